"""The pass that writes predictions and contributions: once for both, block by block, and checked."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from treadle.engine import scoring as module
from treadle.engine.models.base import Model
from treadle.engine.models.boosted import native_params, quiet, train_booster
from treadle.engine.models.booster import model_of_booster
from treadle.engine.models.forest import ForestModel
from treadle.engine.models.linear import LinearModel
from treadle.engine.scoring import Scored, Scoring, Target, write_scores
from treadle.engine.store import Store
from treadle.errors import DataError

ROWS, FEATURES = 230, 6
NAMES = [f"f{i}" for i in range(FEATURES)]
CLASSES = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"], "regression": []}
RNG = np.random.default_rng(1)
MATRIX = RNG.normal(size=(ROWS, FEATURES)).astype(np.float32)
IDS = pa.array([f"row {i}" for i in range(ROWS)])
TEST = RNG.random(ROWS) < 0.3
SELECTED = {"test": TEST, "all": np.ones(ROWS, dtype=bool), "none": None}
KINDS = [
    (kind, task)
    for kind in ("forest", "xgboost", "gblinear", "linear")
    for task in CLASSES
    if (kind, task) != ("forest", "regression")
]
ASKED = [pair for pair in itertools.product(["test", "all", "none"], repeat=2) if pair != ("none", "none")]


def model_of(kind: str, task: Any) -> Model:
    classes = max(len(CLASSES[task]), 2)
    target = MATRIX[:, 0] + MATRIX[:, 1] if task == "regression" else np.arange(ROWS) % classes
    if kind == "forest":
        return ForestModel.of(task, RandomForestClassifier(7, random_state=0).fit(MATRIX, np.arange(ROWS) % classes))
    if kind == "linear":
        outputs = classes if task == "multiclass" else 1
        return LinearModel(
            task, "identity", RNG.normal(size=(outputs, FEATURES)), np.ones(outputs), MATRIX.mean(axis=0)
        )
    params = {"booster": "gblinear"} if kind == "gblinear" else {"max_depth": 3}
    rounds, native = native_params({"n_estimators": 12, **params}, task, classes, 0)
    with quiet():
        return model_of_booster(task, train_booster(MATRIX, target, native, rounds))[0]


def written(folder: Path, scoring: Scoring, predict: str, explain: str) -> Scored:
    """A pass that writes predictions.parquet and explanations.parquet of the rows test, all or none."""

    def target(name: str, rows: str) -> Target | None:
        selected = SELECTED[rows]
        return None if selected is None else Target(f"{name}.parquet", selected)

    store = Store(str(folder))
    return write_scores(
        scoring, IDS, MATRIX, store, target("predictions", predict), target("explanations", explain), "partition 7"
    )


def read(folder: Path, name: str) -> pa.Table:
    return pq.read_table(folder / f"{name}.parquet")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some forty rows a block, or a third of that with three classes."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 8 * (FEATURES + 1) * 40)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_one_pass_writes_what_two_would(tmp_path: Path, kind: str, task: Any) -> None:
    scoring = Scoring(model_of(kind, task), NAMES, CLASSES[task])
    for predict, explain in itertools.product(["test", "all"], repeat=2):
        together = written(tmp_path / "both", scoring, predict, explain)
        first = written(tmp_path / "first", scoring, predict, "none")
        second = written(tmp_path / "second", scoring, "none", explain)
        assert together.predictions == first.predictions
        assert together.explanations == second.explanations
        assert (first.explanations, second.predictions) == (None, None)
        np.testing.assert_array_equal(together.sizes, second.sizes)
        assert together.error == second.error
        assert read(tmp_path / "both", "predictions").equals(read(tmp_path / "first", "predictions"))
        assert read(tmp_path / "both", "explanations").equals(read(tmp_path / "second", "explanations"))


@pytest.mark.parametrize("task", CLASSES)
def test_tables_hold_what_the_library_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Any) -> None:
    """Against XGBoost's own margins and contributions; blocks change nothing."""
    model = model_of("xgboost", task)
    assert isinstance(model, ForestModel)
    whole = written(tmp_path / "whole", Scoring(model, NAMES, CLASSES[task]), "all", "test")
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    rowwise = written(tmp_path / "rowwise", Scoring(model, NAMES, CLASSES[task]), "all", "test")
    for name in ("predictions", "explanations"):
        assert read(tmp_path / "whole", name).equals(read(tmp_path / "rowwise", name))
    np.testing.assert_allclose(rowwise.sizes, whole.sizes, rtol=1e-12)
    booster = xgboost.Booster(model_file=bytearray(model.native or b""))
    outputs = max(model.outputs, 1)
    margin = booster.predict(xgboost.DMatrix(MATRIX), output_margin=True).reshape(ROWS, outputs)
    contributions = booster.predict(xgboost.DMatrix(MATRIX[TEST]), pred_contribs=True).reshape(-1, FEATURES + 1)
    predictions = read(tmp_path / "whole", "predictions")
    names = [f"margin_{c}" for c in CLASSES[task]] if task == "multiclass" else ["margin"]
    np.testing.assert_allclose(np.array([predictions[name] for name in names]).T, margin, rtol=1e-5, atol=1e-5)
    assert predictions["id"].to_pylist() == IDS.to_pylist()
    explanations = read(tmp_path / "whole", "explanations")
    found = np.array([explanations[name] for name in [*NAMES, "bias"]]).T
    np.testing.assert_allclose(found, contributions, atol=2e-5)
    assert explanations["id"].to_pylist() == np.repeat(np.array(IDS)[TEST], outputs).tolist()
    np.testing.assert_allclose(whole.sizes, np.abs(contributions[:, :-1]).sum(axis=0), rtol=1e-4)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("predict", "explain"), ASKED)
def test_a_rows_margin_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predict: str, explain: str
) -> None:
    model = model_of("xgboost", "binary")
    real, seen = model._margin, []

    def counting(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        seen.append(matrix)
        return real(matrix)

    monkeypatch.setattr(model, "_margin", counting)
    scored = written(tmp_path, Scoring(model, NAMES, CLASSES["binary"]), predict, explain)
    wanted = MATRIX if "all" in (predict, explain) else MATRIX[TEST]
    np.testing.assert_array_equal(np.concatenate(seen), wanted)
    assert scored.rows == len(wanted)


@pytest.mark.parametrize("top_k", [None, 2])
def test_contributions_in_double_precision(tmp_path: Path, top_k: int | None) -> None:
    model = model_of("linear", "binary")
    exact, rounded = [
        Scoring(model, NAMES, CLASSES["binary"], top_k, dtype)  # type: ignore[arg-type]
        for dtype in ("float64", "float32")
    ]
    written(tmp_path / "exact", exact, "none", "all")
    written(tmp_path / "rounded", rounded, "none", "all")
    found, single = read(tmp_path / "exact", "explanations"), read(tmp_path / "rounded", "explanations")
    numbers = [name for name in found.column_names if not name.startswith(("id", "feature_"))]
    assert {str(found.schema.field(name).type) for name in numbers} == {"double"}
    assert {str(single.schema.field(name).type) for name in numbers} == {"float"}
    for name in numbers:
        np.testing.assert_array_equal(np.array(found[name]).astype(np.float32), np.array(single[name]))
    np.testing.assert_allclose(np.sum([found[name] for name in numbers], axis=0), model.margin(MATRIX), atol=1e-14)
    if top_k is None:
        np.testing.assert_array_equal(np.array([found[name] for name in numbers]).T, model.contributions(MATRIX))


def test_a_partition_without_wanted_rows_is_an_empty_file_with_all_columns(tmp_path: Path) -> None:
    scoring = Scoring(model_of("xgboost", "multiclass"), NAMES, CLASSES["multiclass"])
    nobody = np.zeros(ROWS, dtype=bool)
    store = Store(str(tmp_path))
    for matrix, ids, rows in ((MATRIX, IDS, nobody), (MATRIX[:0], IDS[:0], nobody[:0])):
        scored = write_scores(scoring, ids, matrix, store, Target("p.parquet", rows), Target("e.parquet", rows))
        assert (scored.rows, scored.error) == (0, 0.0)
        assert not scored.sizes.any()
        for name, columns in (("p", 8), ("e", FEATURES + 3)):
            assert (read(tmp_path, name).num_rows, read(tmp_path, name).num_columns) == (0, columns)


def test_contributions_of_a_wide_model_are_never_there_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's memory at the peak, which tracemalloc counts, beside that of all contributions."""
    features, rows = 400, 20_000
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 2**20)
    model = LinearModel("binary", "logistic", np.ones((1, features)), np.zeros(1), np.zeros(features))
    scoring = Scoring(model, [f"f{i}" for i in range(features)], ["no", "yes"])
    matrix, every = np.ones((rows, features), np.float32), np.ones(rows, dtype=bool)
    store, ids = Store(str(tmp_path)), pa.array(range(rows))
    tracemalloc.start()
    try:
        write_scores(scoring, ids, matrix, store, Target("p.parquet", every), Target("e.parquet", every))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows * features * 8 == 64_000_000
    assert peak < 32_000_000
    assert pq.ParquetFile(tmp_path / "e.parquet").metadata.num_row_groups == -(-rows // (4 * 2**20 // 8 // 401))


class Crooked(LinearModel):
    """Contributions of the row that begins with 7 do not add up."""

    def _contributions(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        found = super()._contributions(matrix)
        found[matrix[:, 0] == 7, 1] += 0.5
        return found


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("row", [2, 199])
def test_contributions_that_do_not_add_up_are_refused_with_their_place(tmp_path: Path, row: int) -> None:
    crooked = Crooked("binary", "logistic", np.ones((1, FEATURES)), np.zeros(1), np.zeros(FEATURES))
    matrix, every = np.zeros((ROWS, FEATURES), np.float32), np.ones(ROWS, dtype=bool)
    matrix[row] = [7, -7, 0, 0, 0, 0]
    with pytest.raises(
        DataError, match=f"The contributions of row {row} of partition 7 miss its margin by 0.37, more than 0.0001"
    ):
        write_scores(
            Scoring(crooked, NAMES, [0, 1]), IDS, matrix, Store(str(tmp_path)), None,
            Target("e.parquet", every), "partition 7",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["xgboost", "gblinear"])
def test_large_contributions_that_cancel_out_are_rounded_not_wrong(tmp_path: Path, kind: str) -> None:
    """A target of millions of either sign: margins near 0 are what is left of contributions of millions."""
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(3000, FEATURES)).astype(np.float32)
    params = {"booster": "gblinear"} if kind == "gblinear" else {"max_depth": 6}
    rounds, native = native_params(params, "regression", 2, 0)
    target = 1e6 * (matrix[:, 0] + matrix[:, 1] - matrix[:, 2])
    with quiet():
        model, _ = model_of_booster("regression", train_booster(matrix, target, native, rounds))
    if kind == "gblinear":  # the first feature cancels out the others
        matrix[:, 0] -= model.margin(matrix) * matrix[:, 0] / model.contributions(matrix)[:, 0]
    every = np.ones(len(matrix), dtype=bool)
    scored = write_scores(
        Scoring(model, NAMES, []), pa.array(range(3000)), matrix, Store(str(tmp_path)), None, Target("e.parquet", every)
    )
    gap = np.abs(model.contributions(matrix).sum(axis=1) - model.margin(matrix))
    assert (gap / np.maximum(1, np.abs(model.margin(matrix)))).max() > module.ADDITIVITY_BOUND
    assert 0 < scored.error < module.ADDITIVITY_BOUND
