"""`treadle check`: a spec against its real input, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.engine import job_inputs, pipeline
from treadle.engine.expectations import named
from treadle.engine.inputs import cut
from treadle.engine.store import Store
from treadle.errors import DataError
from treadle.jobs.example_data import materialise
from treadle.jobs.spec import JobSpec, load_spec

ROWS_READ = 1_000_000
"""Rows of the target that are looked at for its classes: seconds, whatever the size of the input."""


def check_spec(source: str | Path | JobSpec, root: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Columns, types and target classes; what is returned is for showing.

    Raises
    ------
    RequestError
        The first thing in the spec that does not fit the input.
    DataError
        The target has one class, or is null throughout.
    """
    spec = load_spec(source, overrides)
    store = Store(spec.root(root))
    spec = materialise(spec, store)
    inputs = job_inputs.inspect(spec.job)
    programs, features = pipeline.check(spec.job, inputs, store)
    found: dict[str, Any] = {
        "spec": spec.name,
        "files": len(inputs.main.files),
        "format": inputs.main.format,
        "rows": inputs.main.rows,
        "version": inputs.main.version,
        "columns": dict(inputs.main.kinds),
        "warnings": list(inputs.main.warnings),
        "rows_after_tables": programs[-1].output(),
        "contract": [name for name, _ in named(spec.contract)],
        "features": features,
        "target": None,
    }
    target = spec.data.target
    looked_at = spec.job.is_etl or spec.job.looks_at_target
    if target is not None and looked_at and not inputs.main.is_text and target in inputs.main.kinds:
        found["target"] = _target(spec, inputs, store)
    return found


def _target(spec: JobSpec, inputs: job_inputs.Inputs, store: Store) -> dict[str, Any]:
    """Counts of the target's values among the first rows of the input, before any filter."""
    import pyarrow as pa

    from treadle.engine.program import read_piece

    target = spec.data.target or ""
    kinds = {target: inputs.main.kinds[target]}
    rows = min(inputs.main.rows or 0, ROWS_READ)
    files, taken = [], 0
    for file in inputs.main.files:
        if taken < rows:
            files.append(file)
            taken += file.rows or 0
    pieces = [piece for partition in cut(files, 1) for piece in partition]
    column = pa.concat_tables([read_piece(store, piece, kinds) for piece in pieces]).column(target)
    whole = taken >= (inputs.main.rows or 0)
    known = column.drop_null()
    if whole and len(known) == 0:
        raise DataError(f"The target '{target}' is null in all {len(column)} rows; there is nothing to learn.")
    counts = known.value_counts().to_pylist()
    summary: dict[str, Any] = {
        "column": target,
        "kind": kinds[target],
        "nulls": column.null_count,
        "distinct": len(counts),
    }
    if kinds[target] != "float":
        if whole and len(counts) == 1:
            raise DataError(f"The target '{target}' has one class only, {counts[0]['values']!r}; a model needs two.")
        summary["classes"] = {str(c["values"]): c["counts"] for c in sorted(counts, key=lambda c: -c["counts"])[:20]}
        positive = spec.data.positive_class
        if whole and positive is not None and str(positive) not in {str(c["values"]) for c in counts}:
            from treadle.errors import did_you_mean, listed

            values = [str(c["values"]) for c in counts]
            raise DataError(
                f"data.positive_class: {positive!r} is no value of '{target}'. "
                f"Values: [{listed(values)}].{did_you_mean(str(positive), values)}"
            )
    return summary
