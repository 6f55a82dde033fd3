"""Services that tests share, a browser, and databases of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from tests.jobs.service.browser import chromium
from tests.jobs.service.postgres import Postgres, postgres, why_no_postgres
from tests.jobs.service.served import Served, served
from tests.jobs.service.stores import cleared
from treadle.jobs.service.database import migrate, open_database
from treadle.jobs.service.store import JobStore

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real one with a worker; tests leave no job behind that runs."""
    with served(tmp_path_factory.mktemp("service")) as one:
        yield one


@pytest.fixture(scope="session")
def attached(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Iterator[Served]:
    """A real one on the tests' cluster, which all share that need none of its own; they leave no job that runs."""
    with served(tmp_path_factory.mktemp("attached"), "--scheduler", scheduler) as one:
        yield one


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser saves files."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile"), downloads) as driver:
        yield driver


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real one, where it is installed."""
    if why := why_no_postgres():
        pytest.skip(why)
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_jobs(postgres_server: Postgres) -> Iterator[sa.Engine]:
    """A database with the tables, which tests share: to make one takes longer than they do."""
    made = open_database(postgres_server.new_database())
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """Every test that needs a database runs on both kinds."""
    return str(request.param)


@pytest.fixture
def address(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture
def engine(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """A database with the tables, which are empty."""
    if kind == "postgresql":
        made = request.getfixturevalue("postgres_jobs")
        cleared(made)
    else:
        made = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
        migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> JobStore:
    return JobStore(engine)
