"""A whole job with `device: cuda`, as far as a machine without a GPU can show it.

The kernels run in Numba's CUDA simulator, in a process that starts with it. Stand-ins say that there is a GPU,
start workers without one in place of dask-cuda's, and train forests in place of cuML. The rest is real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from tests.cluster.test_device_memory import RESOURCES
from tests.conftest import people_spec, write_people
from treadle.engine.models.boosted import native_params, train_booster
from treadle.errors import DataError
from treadle.jobs.run import load_run

STAND_INS = """
import json, sys
import treadle
from treadle.cluster import launch
from treadle.cluster.hardware import Gpu, GpuReport
from treadle.jobs import device

report = GpuReport((), (Gpu(0, "GPU-0", "a stand-in", 2**36, (9, 0)),), "1", {})
device.gpus_here = launch.gpus_here = lambda: report
"""
DASK_CUDA = """
from distributed import LocalCluster

def LocalCUDACluster(CUDA_VISIBLE_DEVICES, rmm_pool_size, enable_cudf_spill, protocol, **options):
    return LocalCluster(**options)
"""
CUML = """
import treelite

class RandomForestClassifier:
    def __init__(self, model):
        self.model = model

    @classmethod
    def from_sklearn(cls, model):
        return cls(model)

    def set_params(self):
        return self

    def fit(self, rows, labels):
        self.model.fit(rows, labels)
        return self

    def as_treelite(self):
        return treelite.sklearn.import_model(self.model)
"""


def with_stand_ins(script: str, given: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    """A process with the stand-ins and the simulator, to which `given` is handed as JSON."""
    (folder / "dask_cuda.py").write_text(DASK_CUDA)
    (folder / "cuml").mkdir()
    (folder / "cuml" / "ensemble.py").write_text(CUML)
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", STAND_INS + script],
        input=json.dumps(given),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def cuda_run(spec: dict[str, Any], folder: Path) -> Any:
    given = {**spec, "device": "cuda", "cluster": {"workers": 2}}
    done = with_stand_ins("print(treadle.run(json.load(sys.stdin)).id)", given, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_run(spec["artifacts"]["root"], done.stdout.split()[-1])


@pytest.mark.slow
def test_a_job_on_a_device_equals_one_on_the_cpu(tmp_path: Path, scheduler: str) -> None:
    people = write_people(tmp_path / "people.parquet", rows=60)
    tree = [{"name": "decision_tree", "params": {"max_depth": 3}}]
    here = treadle.run(people_spec(people, tmp_path / "cpu", scheduler, models=tree))
    (tmp_path / "rmm").mkdir()
    (tmp_path / "rmm" / "__init__.py").write_text("from . import mr\n")
    (tmp_path / "rmm" / "mr.py").write_text(RESOURCES)
    there = cuda_run(people_spec(people, tmp_path / "cuda", scheduler, models=tree), tmp_path)
    assert (here.manifest["plan"]["device"], there.manifest["plan"]["device"]) == ("cpu", "cuda")
    expected, found = (run.table("predictions").to_pandas() for run in (here, there))
    assert 5 < len(found) < 30
    assert found.equals(expected)
    expected, found = (run.table("explanations").to_pandas() for run in (here, there))
    assert found["id"].equals(expected["id"])
    np.testing.assert_allclose(found.drop(columns="id"), expected.drop(columns="id"), atol=1e-6)
    # What ran on the host all the same is named.
    fell_back = dict(text.split(": ", 1) for text in there.manifest["fell_back"])
    assert set(fell_back) == {"read", "split", "features", "train:decision_tree", "evaluate"}
    assert fell_back["features"].startswith("statistics of columns: on the host, since ")
    assert fell_back["train:decision_tree"] == "decision_tree: trained on the host, since there is no code for GPUs"
    assert here.manifest["fell_back"] == []
    # Each stage has the memory of GPUs that was used; the stand-in of RMM gave none out.
    assert {record["device_peak_bytes"] for record in there.manifest["stages"]} == {0}
    assert {record["device_used_bytes"] for record in there.manifest["stages"]} == {0}
    assert {record["device_peak_bytes"] for record in here.manifest["stages"]} == {None}
    log = Path(there.path(f"runs/{there.id}/workers.log")).read_text()
    assert "memory of the GPU is not counted" not in log


@pytest.mark.slow
def test_models_that_devices_train(tmp_path: Path, scheduler: str) -> None:
    """By sums over rows, by cuML or, of what it refuses, on the host; in folds, too, and then on all rows."""
    people = write_people(tmp_path / "people.parquet", rows=80)
    few = {"n_estimators": 4, "max_depth": 3}
    models = [
        {"name": "random_forest", "params": few},
        {"name": "random_forest", "label": "weighted", "params": {**few, "class_weight": "balanced"}},
        {"name": "ridge"},
        {"name": "naive_bayes"},
    ]
    changes: dict[str, Any] = {"models": models, "compare": {"folds": 2}}
    here = leaderboard(treadle.run(people_spec(people, tmp_path / "cpu", scheduler, **changes)))
    run = cuda_run(people_spec(people, tmp_path / "cuda", scheduler, **changes), tmp_path)
    assert leaderboard(run) == pytest.approx(here, abs=1e-6)
    said = [text for text in run.manifest["fell_back"] if "trained on the host" in text]
    counts = "trained on the host, since cuML counts weights of rows and classes in another way"
    assert said in (
        [f"compare: weighted: {counts}"],
        [f"compare: weighted: {counts}", f"refit: weighted: {counts}"],
    )
    assert not [text for text in run.manifest["fell_back"] if "sums over rows" in text]


def leaderboard(run: Any) -> dict[str, float]:
    """The metric of every model."""
    table = run.table("leaderboard").to_pandas()
    return dict(zip(table["model"], table["auc"], strict=True))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_xgboost_that_trains_without_the_gpu_it_was_to_use_is_refused() -> None:
    """It does so with a mere warning, where there is no GPU."""
    rounds, params = native_params({"n_estimators": 2}, "regression", 0, 1)
    matrix = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    assert train_booster(matrix, matrix[:, 0], {**params, "device": "cpu"}, rounds)
    with pytest.raises(DataError, match="XGBoost was to train on cuda, and did on cpu"):
        train_booster(matrix, matrix[:, 0], {**params, "device": "cuda"}, rounds)
