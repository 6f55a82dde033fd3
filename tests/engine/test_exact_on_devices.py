"""Exact models whose sums are made on a device: those of the host, as `tests/kernels/cuda/test_device.py`.

Without a GPU they run in Numba's simulator, which `tests/kernels/cuda/test_simulator.py` starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.kernels.cuda.test_device import why_not
from tests.kernels.cuda.test_device_sums import small
from treadle.engine import device
from treadle.engine.backend import HOST, Backend
from treadle.engine.exact.fit import fit
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Task
from treadle.engine.passes import OverBlocks, OverRows, Rows
from treadle.kernels.cuda import arrays

__all__ = ["small"]
CUDA = Backend("cuda", topic="treadle/run/train")
CLASSES = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
MODELS: list[tuple[str, Task, dict[str, Any]]] = [
    ("logistic_regression", "binary", {"class_weight": "balanced"}),
    ("logistic_regression", "multiclass", {"C": 0.5}),
    ("lda", "binary", {}),
    ("qda", "binary", {"reg_param": 0.1}),
    ("naive_bayes", "multiclass", {}),
    ("ridge", "binary", {}),
    ("ridge", "regression", {"alpha": 2.0}),
    ("linear_regression", "regression", {}),
]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.usefixtures("small")]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What workers would tell of the host's work."""
    found: list[str] = []
    monkeypatch.setattr("treadle.engine.fallbacks.tell", lambda topic, text: found.append(text) if topic else None)
    return found


def some_parts(task: Task, weighted: bool = True) -> list[Rows]:
    """Three parts, of which one has no rows that count, and a matrix with nulls in rows that do not."""
    rng = np.random.default_rng(4)
    matrix = rng.normal(size=(72, 3)).astype(np.float32)
    matrix[:, 2] += 50
    signal = matrix[:, 0] - 0.5 * matrix[:, 1] + rng.normal(size=72)
    target = {
        "binary": (signal > 0).astype(float),
        "multiclass": np.digitize(signal, [-0.7, 0.7]).astype(float),
        "regression": signal.astype(float),
    }[task]
    counts = rng.random(72) < 0.8
    counts[60:] = False
    matrix[~counts, 1] = np.nan
    weight = rng.integers(1, 4, 72) / 2.0 if weighted else None
    cuts = [slice(0, 25), slice(25, 60), slice(60, 72)]
    return [
        Rows(matrix[cut], target[cut], np.flatnonzero(counts[cut]), None if weight is None else weight[cut])
        for cut in cuts
    ]


def margins(name: str, task: Task, params: dict[str, Any], parts: Sequence[Rows], backend: Backend) -> Any:
    passes = OverRows(parts, backend=backend)
    model, _ = fit(ModelConfig(name=name, params=params), task, CLASSES[task], passes)
    return model.margin(np.nan_to_num(parts[0].matrix))


@pytest.mark.parametrize(("name", "task", "params"), MODELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_model_from_sums_of_a_device_is_the_hosts(
    name: str, task: Task, params: dict[str, Any], weighted: bool, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = some_parts(task, weighted)
    expected = margins(name, task, params, parts, HOST)
    uploaded: list[int] = []
    upload = arrays.upload

    def counting(array: np.ndarray) -> Any:
        if array.dtype == np.float32:
            uploaded.append(len(array))
        return upload(array)

    monkeypatch.setattr(arrays, "upload", counting)
    found = margins(name, task, params, parts, CUDA)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    if name == "linear_regression":
        assert said
        assert set(said) == {
            "sums over rows: on the host, since the triangular factor of least squares has no kernel for GPUs"
        }
        assert not uploaded
    else:
        assert said == []
        # The matrix of each part that has rows, once in each pass.
        sizes = [len(parts[0].only(parts[0].index).matrix), len(parts[1].only(parts[1].index).matrix)]
        assert uploaded == sizes * (len(uploaded) // 2)
        assert len(uploaded) >= 2


class OneWorker:
    """A context whose tasks run here."""

    backend = CUDA
    room = SimpleNamespace(memory=2**30)

    def submit_like(self, function: Callable[..., Any], blocks: Sequence[Any], *args: Any) -> list[Any]:
        return [function(block, *args) for block in blocks]

    def reduce(self, parts: list[Any], merge: Callable[[list[Any]], Any]) -> Any:
        return merge(parts)


def test_passes_over_the_blocks_of_a_job_go_to_the_devices(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the backend of the context; test rows do not count."""
    (rows, *_), upload, uploaded = some_parts("regression"), arrays.upload, []

    def counting(array: np.ndarray) -> Any:
        uploaded.append(array.dtype)
        return upload(array)

    monkeypatch.setattr(arrays, "upload", counting)
    test = np.ones(len(rows.matrix), dtype=bool)
    test[rows.index] = False
    block = SimpleNamespace(matrix=rows.matrix, target=rows.target, weight=rows.weight, test=test)
    training: Any = SimpleNamespace(context=OneWorker(), found={}, blocks=lambda: [block], names=("a", "b", "c"))
    for name in ("ridge", "linear_regression"):
        config = ModelConfig(name=name)
        model, _ = fit(config, "regression", (), OverBlocks(training, []))
        expected, _ = fit(config, "regression", (), OverRows([rows]))
        where = np.nan_to_num(rows.matrix)
        np.testing.assert_allclose(model.margin(where), expected.margin(where), rtol=0, atol=1e-9)
        assert np.dtype(np.float32) in uploaded
        assert len(said) == (name == "linear_regression")


def test_halves_where_a_device_has_little_memory(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose sums are merged; few rows that do not fit are added up on the host, which is told once a part and pass."""
    (name, task, params), parts = MODELS[4], some_parts("multiclass")
    expected = margins(name, task, params, parts, HOST)
    upload, sizes = arrays.upload, []

    def of_little_memory(array: np.ndarray) -> Any:
        if array.dtype == np.float32:
            if len(array) > limit:
                raise MemoryError("std::bad_alloc: out_of_memory: CUDA error")
            sizes.append(len(array))
        return upload(array)

    monkeypatch.setattr(arrays, "upload", of_little_memory)
    monkeypatch.setattr(device, "FEWEST_ROWS", 4)
    limit = 14
    found = margins(name, task, params, parts, CUDA)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert len(sizes) > 4
    assert said == []
    limit = 0
    found = margins(name, task, params, parts, CUDA)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert set(said) == {"sums over rows: some on the host, for want of memory on the GPU"}
