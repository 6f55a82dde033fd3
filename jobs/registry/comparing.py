"""Test rows of a run, raw once more: what two versions of a model are compared by.

Rows are those of the run's test that neither version learned from. They are read again from the run's inputs, whose
digests must be those of then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.engine import job_inputs
from treadle.engine.bundle import Bundle
from treadle.engine.inputs import InputFile, Inspected, cut, partition_count, row_bytes
from treadle.engine.measuring import metrics_of
from treadle.engine.operation import ROW_ID
from treadle.engine.program import Program
from treadle.engine.store import Store
from treadle.engine.text_input import convert_file
from treadle.errors import DataError, listed
from treadle.jobs.example_data import materialise
from treadle.jobs.predict import WHOLE_BYTES
from treadle.jobs.run import Run
from treadle.jobs.spec import JobSpec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class RawRows:
    """Raw rows with what is true of them, in the order of the input."""

    frame: pd.DataFrame
    """The columns that the versions want, and `__id__`."""
    labels: pd.Series
    """Of those that are measured, class or value by id; `frame` may have other rows, which operations look at."""
    test_rows: int
    """Of the run, of which the labels are some."""


def metrics(bundles: Sequence[Bundle], rows: RawRows) -> tuple[list[dict[str, float]], int]:
    """The metrics of each version on the rows that all of them predict, and how many these are.

    Raises
    ------
    DataError
        There are none, or a version predicts something else.
    """
    import numpy as np
    import pandas as pd

    found = []
    for bundle in bundles:
        ids, matrix = bundle.features_of(rows.frame.drop(columns=ROW_ID))
        names = pd.Index(ids.to_pandas())
        if bundle.document.id is None:  # ids are the places in this frame then
            names = pd.Index(rows.frame[ROW_ID].to_numpy()[names.to_numpy()])
        found.append((names, matrix))
    common = rows.labels.index
    for names, _ in found:
        common = common[common.isin(names)]
    if len(common) == 0:
        raise DataError("no row is predicted by both versions")
    results = []
    for bundle, (names, matrix) in zip(bundles, found, strict=True):
        wanted = names.isin(common)
        if wanted.sum() != len(common):
            raise DataError(f"{bundle.reference} makes several rows of one, so that it is not known which to measure")
        document = bundle.document
        labels = rows.labels.loc[names[wanted]].to_numpy()
        if document.task != "regression":
            codes = {value: code for code, value in enumerate(document.classes)}
            unknown = sorted({str(value) for value in labels.tolist() if value not in codes})
            if unknown:
                raise DataError(f"{bundle.reference} does not know the classes [{listed(unknown)}]")
            labels = np.array([codes[value] for value in labels.tolist()], dtype=np.int64)
        margin = bundle.model.margin(matrix[wanted])
        scores = bundle.model.scores(margin)
        results.append(metrics_of(bundle.model, document.task, margin, scores, labels))
    return results, len(common)


def rows_of_test(store: Store, candidate: Bundle, other: Bundle | None, most: int) -> RawRows:
    """At most so many test rows of the candidate's run, which the other version did not learn from either.

    Raises
    ------
    DataError
        Why there are none.
    """
    run = _run(store, candidate)
    labels, test_count = _labels(run, candidate)
    if other is not None:
        labels = labels[~labels.index.isin(_learned(store, run, candidate, other))]
    if len(labels) == 0:
        why = "all of them are rows that one of the versions learned from" if test_count else "its run held none back"
        raise DataError(f"there are no test rows of {candidate.reference} to measure by: {why}")
    labels = _fewer(labels, most)
    wanted: dict[str, str] = {}
    for bundle in (candidate, other):
        wanted |= dict(bundle.document.inputs) if bundle else {}
    together = any(step.operation.together is not None for b in (candidate, other) if b for step in b.program.steps)
    with tempfile.TemporaryDirectory(prefix="treadle-") as scratch:  # for files of text, which become tables first
        frame = _read(store, run, candidate, wanted, None if together else labels, Store(scratch))
    return RawRows(frame, labels, test_count)


def _run(store: Store, bundle: Bundle) -> Run:
    return Run(store, store.read_json(f"runs/{bundle.document.run}/manifest.json"))


def _labels(run: Run, bundle: Bundle) -> tuple[pd.Series, int]:
    """Class or value by id of the test rows with an id of their own, and how many test rows there are."""
    import pyarrow.compute as pc

    target = bundle.document.target
    table = run.table("features").to_arrow(["id", "split", target])
    test = table.filter(pc.equal(table.column("split"), "test")).to_pandas()
    labels = test.set_index("id")[target]
    twice = table.column("id").to_pandas().duplicated(keep=False)
    repeated = set(table.column("id").to_pandas()[twice])
    return (labels[~labels.index.isin(repeated)] if repeated else labels), len(test)


def _learned(store: Store, run: Run, candidate: Bundle, other: Bundle) -> np.ndarray:
    """Ids of rows that the other version learned from, where its ids name the same rows."""
    import pyarrow.compute as pc

    theirs = _run(store, other)

    def digests(one: Run) -> list[Any]:
        return [found["digest"] for found in one.manifest["inputs"] if found["section"] in ("data", "split")]

    named = candidate.document.id is not None and candidate.document.id == other.document.id
    if not named and digests(run) != digests(theirs):
        raise DataError(
            f"rows have no ids of their own, and {other.reference} was trained on another input, so that it is not "
            "known which rows it learned from: give the data a column of ids, data.id"
        )
    table = theirs.table("features").to_arrow(["id", "split"])
    return table.filter(pc.not_equal(table.column("split"), "test")).column("id").to_pandas().to_numpy()


def _fewer(labels: pd.Series, most: int) -> pd.Series:
    """Those whose ids come first by a hash, so that the same rows are drawn again."""
    import numpy as np
    import pandas as pd

    if len(labels) <= most:
        return labels
    hashes = pd.util.hash_array(labels.index.to_numpy())
    return labels.iloc[np.sort(np.argsort(hashes, kind="stable")[:most])]


def _read(
    store: Store, run: Run, bundle: Bundle, wanted: Mapping[str, str], labels: pd.Series | None, scratch: Store
) -> pd.DataFrame:
    """The raw rows with these ids, or all where operations look at others."""
    import pandas as pd

    then = {found["section"]: found for found in run.manifest["inputs"]}
    spec = materialise(JobSpec.model_validate(run.manifest["spec"]), store)
    if then["data"]["version"] is not None:  # of a Delta table: that of then, not the newest
        data = spec.data.model_copy(update={"version": then["data"]["version"]})
        spec = spec.model_copy(update={"data": data})
    inputs = job_inputs.inspect(spec.job)
    frames, offset = [], 0
    for section, found in (("data", inputs.main), ("split", inputs.test)):
        if found is None:
            continue
        if found.content != then[section]["digest"]:
            raise DataError(f"the input of {run.id} ({section}) has changed since the run")
        missing = [name for name in wanted if name not in found.kinds]
        if missing:
            raise DataError(f"the input of {run.id} ({section}) has no column '{missing[0]}', which a version wants")
        read, rows = _frames(store, bundle, found, list(wanted), labels, Store(f"{scratch.url}/{section}"), offset)
        frames += read
        offset += rows
    return pd.concat(frames, ignore_index=True)


def _frames(
    store: Store,
    bundle: Bundle,
    found: Inspected,
    columns: Sequence[str],
    labels: pd.Series | None,
    scratch: Store,
    offset: int,
) -> tuple[list[pd.DataFrame], int]:
    files, of = list(found.files), store
    if found.is_text:
        parts = [
            part for n, file in enumerate(files) for part in convert_file((n, file.path), scratch, found, "rows")[0]
        ]
        files, of = [InputFile(part.path, part.bytes, "", part.rows) for part in parts], scratch
    rows = sum(file.rows or 0 for file in files)
    width = row_bytes(found.kinds)
    if labels is None and rows * width > WHOLE_BYTES:
        raise DataError(
            f"operations look at several rows of a key, and {rows} rows are too many to be taken all at once"
        )
    kinds = tuple((name, found.kinds[name]) for name in columns)
    program = Program(of, bundle.program.backend, kinds, bundle.document.id, ())
    frames = []
    for partition in cut(files, partition_count(rows, width, 1), own=found.is_text, offset=offset):
        frame = program.rows(partition)
        frames.append(frame if labels is None else frame[frame[ROW_ID].isin(labels.index)])
    return frames, rows
