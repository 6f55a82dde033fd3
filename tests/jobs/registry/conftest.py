"""A root whose runs are recorded in MLflow: two versions of the job `people`, the first better than the second."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import treadle
from tests.conftest import people_spec, write_people
from treadle.engine.store import Store
from treadle.jobs.registry.connection import Connection, Target
from treadle.jobs.run import Run

GATES: list[dict[str, Any]] = [
    {"gate": "not_worse", "tolerance": 0.001},
    {"gate": "bound", "min": 0.55},
    {"gate": "fairness", "column": "city", "max_difference": 0.9, "min_rows": 5},
    {"gate": "calibration", "max_error": 0.5},
    {"gate": "latency", "p95_ms": 10_000, "calls": 10},
]
GOOD = {"name": "xgboost", "params": {"n_estimators": 20, "max_depth": 3}}
STUMP = [{"name": "xgboost", "params": {"n_estimators": 1, "max_depth": 1}}]


@dataclass
class Recorded:
    """The root, its runs, and a database of MLflow that has nothing in it."""

    folder: Path
    scheduler: str
    empty: Path
    runs: tuple[Run, ...] = ()

    @property
    def root(self) -> str:
        return str(self.folder / "artifacts")

    @property
    def store(self) -> Store:
        return Store(self.root)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root}/mlflow.db"

    @property
    def raw(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "people.parquet")

    def spec(self, **changes: Any) -> dict[str, Any]:
        spec = people_spec(self.folder / "people.parquet", self.root, self.scheduler, promotion={"gates": GATES})
        spec["data"] = {**spec["data"], "protected": ["city"]}
        return {**spec, **changes}

    def connection(self) -> Connection:
        return Connection(Target(self.uri, "people"))

    def copied(self, folder: Path) -> Recorded:
        """All of it once more, for a test that changes things; runs are recorded in the copy's own database."""
        shutil.copytree(self.folder, folder / "copied")
        return Recorded(folder / "copied", self.scheduler, self.empty, self.runs)


@pytest.fixture(scope="package")
def tracked() -> Iterator[None]:
    """Runs record themselves, as they do for users."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TREADLE_TRACKING")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="package")
def recorded(tmp_path_factory: pytest.TempPathFactory, scheduler: str, tracked: None) -> Recorded:
    folder = tmp_path_factory.mktemp("registry")
    write_people(folder / "people.parquet", rows=400)
    made = Recorded(folder, scheduler, folder / "empty.db")
    Path(made.root).mkdir()
    with made.connection().using():
        shutil.copy(f"{made.root}/mlflow.db", made.empty)
    made.runs = (
        treadle.run(made.spec(models=[GOOD, "decision_tree"])),
        treadle.run(made.spec(models=STUMP)),
    )
    return made
