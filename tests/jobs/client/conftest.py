"""A service, and what the tests submit to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import people_spec, write_people
from tests.jobs.service.served import Served, served
from treadle import Client
from treadle.jobs.client import Job


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    roots = ("--root", str(folder / "artifacts"), "--allow-root", str(folder))
    with served(folder, "--scheduler", scheduler, *roots) as service:
        yield service


@pytest.fixture(scope="session")
def spec(service: Served, scheduler: str) -> dict[str, Any]:
    people = write_people(service.folder / "people.parquet")
    made = people_spec(people, service.folder / "artifacts", scheduler)
    del made["cluster"]  # it is the service's
    return made


@pytest.fixture(scope="session")
def long(spec: dict[str, Any]) -> dict[str, Any]:
    """A job that takes minutes."""
    return {**spec, "name": "long", "models": [{"name": "xgboost", "params": {"n_estimators": 200_000}}]}


@pytest.fixture
def broken(service: Served, spec: dict[str, Any]) -> dict[str, Any]:
    """A job that fails until its input, `rows.csv` in the service's folder, is mended."""
    path: Path = service.folder / "rows.csv"
    path.write_text("a,b\n1,2\n3\n")
    kept = {key: spec[key] for key in ("apiVersion", "artifacts")}
    return {**kept, "name": "broken", "data": {"path": str(path)}}


@pytest.fixture(scope="session")
def client(service: Served) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture(scope="session")
def done(client: Client, spec: dict[str, Any]) -> Job:
    job = client.submit(spec, submission_id="people-1", priority=5)
    job.wait(timeout=120)
    return job
