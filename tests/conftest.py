"""Fixtures for tests of whole jobs: one Dask cluster for the session, small inputs, real data when present."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

import treadle
from tests.s3 import S3, s3_server
from treadle.jobs.run import Run

if TYPE_CHECKING:
    from distributed import LocalCluster

# A first call may compile a kernel, and a busy machine is slow: neither says anything of the result.
settings.register_profile("treadle", deadline=None)
# A change is not held up by an example that another run would not have drawn: looking for those is for everyone else.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "treadle"))

# Recording a run in MLflow has tests of its own; whatever else runs jobs need not wait for it.
os.environ.setdefault("TREADLE_TRACKING", "off")

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets, which are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"the real data sets are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster of two worker processes that all tests of a session share."""
    with two_workers(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    """A server that speaks S3 with an empty bucket `lake`, where moto is installed."""
    yield from s3_server()


@contextlib.contextmanager
def two_workers(folder: Path) -> Iterator[LocalCluster]:
    """A cluster of two worker processes, whose nannies start them again, with its files in a folder."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        local_directory=str(folder),
    ) as cluster:
        yield cluster


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """600 rows with numbers, text, times and nulls, and a target `buys` that depends on them."""
    return write_people(tmp_path / "people.parquet")


def write_people(path: Path, rows: int = 600, seed: int = 3) -> Path:
    """Columns: key, age, income (nulls), city (nulls), member, joined, buys."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, rows)
    income = np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(10, 0.5, rows))
    city = rng.choice(
        np.array(["Ulm", "Köln", "Bonn", "Trier", None], dtype=object), rows, p=[0.4, 0.3, 0.15, 0.1, 0.05]
    )
    chance = 1 / (1 + np.exp(-(0.08 * (age - 45) + (city == "Ulm") * 1.5 - 0.5)))
    frame = pd.DataFrame(
        {
            "key": np.arange(1000, 1000 + rows),
            "age": age,
            "income": income,
            "city": city,
            "member": rng.random(rows) < 0.5,
            "joined": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 400 * 24, rows), unit="h"),
            "buys": np.where(rng.random(rows) < chance, "yes", "no"),
        }
    )
    frame.to_parquet(path, row_group_size=100)
    return path


def people_spec(path: Path | str, root: Path | str, scheduler: str, **changes: Any) -> dict[str, Any]:
    """A quick spec on `people`, attached to the session's cluster; `changes` replace its sections."""
    spec = {
        "apiVersion": "treadle/v1",
        "name": "people",
        "data": {"path": str(path), "target": "buys", "positive_class": "yes", "id": "key"},
        "tables": [{"op": "derive", "name": "log_income", "sql": "ln(income)"}, {"op": "drop", "columns": ["income"]}],
        "features": [
            {"op": "impute", "columns": ["log_income"], "method": "median", "indicator": True},
            {"op": "date_parts", "columns": ["joined"], "parts": ["month", "weekday"]},
            {"op": "one_hot", "columns": ["city"], "missing": "?"},
            {"op": "scale", "columns": "numeric"},
        ],
        "split": {"kind": "stratified", "test_size": 0.25},
        "models": [{"name": "xgboost", "params": {"n_estimators": 20, "max_depth": 3}}],
        "metric": "auc",
        "artifacts": {"root": str(root)},
        "cluster": {"profile": "address", "address": scheduler},
    }
    return {**spec, **changes}


@pytest.fixture
def run_people(people: Path, tmp_path: Path, scheduler: str) -> Callable[..., Run]:
    """Runs the quick spec with some sections changed."""

    def run(fresh: bool = False, **changes: Any) -> Run:
        return treadle.run(people_spec(people, tmp_path / "artifacts", scheduler, **changes), fresh=fresh)

    return run
