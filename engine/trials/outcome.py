"""What came of a trial, and where it is kept: one Parquet file, with everything but the arrays in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from treadle.engine.document import digest
from treadle.engine.job import THRESHOLD
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.catalogue import entry_of
from treadle.engine.store import Store

REVISION = 2
KEY = b"treadle"


@dataclass(frozen=True)
class Outcome:
    """A model's metrics on the rows of a fold, and what it made of them; or why there is none."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0
    """Those that it was trained on."""
    train_seconds: float = 0.0
    predict_seconds: float = 0.0
    peak_bytes: int = 0
    """Resident memory of the worker when the model was trained."""
    said: tuple[str, ...] = ()
    error: str | None = None
    lasting: bool = True
    """Whether the same would come of another attempt."""
    margin: np.ndarray | None = None
    """float64 (rows of the fold,), or (rows, classes)."""
    score: np.ndarray | None = None


FAILED = Outcome(error="failed")


NOT_BEGUN = Outcome(error="not begun: the budget was spent", lasting=False)


def key_of(config: ModelConfig, seed: int, threshold: float = THRESHOLD, rows: int | None = None) -> str:
    """The digest of a model, whatever it is called, of the threshold that it is measured at, and of a sample's rows."""
    sample = [] if rows is None else [rows]
    return digest(
        [config.estimator or config.name, config.params, entry_of(config).version(), seed, threshold, REVISION, *sample]
    )


def path_of(base: str, key: str, fold: int) -> str:
    """Of a trial's file, relative to the root; `base` is the digest of its rows, features and folds."""
    return f"stages/trials-{base}/{key}/{fold:03d}.parquet"


def fold_path(base: str, fold: int) -> str:
    """Of the file that has id and target of the rows of a fold, in the order of its trials' arrays."""
    return f"stages/trials-{base}/fold-{fold:03d}.parquet"


def out_of_fold(store: Store, base: str, outcomes: Sequence[Outcome]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins, scores and targets of the rows of all folds, one fold after the other, by outcomes of all folds.

    Each row's are of the model that was trained without its fold.
    """
    targets = [store.read_parquet(fold_path(base, fold)).column("target").to_numpy() for fold in range(len(outcomes))]
    margins = np.concatenate([outcome.margin for outcome in outcomes if outcome.margin is not None])
    scores = np.concatenate([outcome.score for outcome in outcomes if outcome.score is not None])
    return margins, scores, np.concatenate(targets)


def save(store: Store, path: str, outcome: Outcome) -> None:
    """Writes it, if another attempt would end in the same."""
    if not outcome.lasting:
        return
    columns: dict[str, np.ndarray] = {}
    for name in ("margin", "score"):
        values = getattr(outcome, name)
        if values is not None:
            columns |= {f"{name}_{i}": column for i, column in enumerate(np.reshape(values, (len(values), -1)).T)}
    several = outcome.margin is not None and outcome.margin.ndim > 1
    document = {key: getattr(outcome, key) for key in _PLAIN} | {"several": several}
    table = pa.table({name: pa.array(np.ascontiguousarray(values)) for name, values in columns.items()})
    store.write_parquet(path, table.replace_schema_metadata({KEY: json.dumps(document)}))


def load(store: Store, path: str) -> Outcome | None:
    """What was saved there, or None."""
    if not store.exists(path):
        return None
    with store.fs.open(store.path(path), "rb") as file:
        table = pq.read_table(file)
    document: dict[str, Any] = json.loads(table.schema.metadata[KEY])
    several = document.pop("several")
    arrays: dict[str, Any] = {}
    for name in ("margin", "score"):
        columns = [table.column(c).to_numpy() for c in table.column_names if c.startswith(f"{name}_")]
        if columns:
            arrays[name] = np.stack(columns, axis=1) if several else columns[0]
    said = tuple(document.pop("said"))
    return Outcome(said=said, **document, **arrays)


_PLAIN = ("metrics", "rows", "train_seconds", "predict_seconds", "peak_bytes", "said", "error")
