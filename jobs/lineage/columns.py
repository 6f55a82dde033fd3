"""Which columns of the inputs a column of a table is made from, by the operations of the spec as they are compiled.

Every operation says which columns it makes, and of which; so does every fitted operation of a model's bundle. The
operations are compiled from the inputs' columns, so where an input is gone, or has others now, nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.errors import TreadleError
from treadle.jobs.lineage.dataset_names import input_names

if TYPE_CHECKING:
    from treadle.engine.job import Job
    from treadle.engine.program import Program
    from treadle.jobs.run import Run

Origins = frozenset[tuple[str, str]]
"""Section of the spec that names an input, and column of it."""
NONE: Origins = frozenset()
TABLES = ("etl", "features", "predictions", "explanations")
MOST = 50_000
"""Pairs of columns; a wide table of explanations would have millions, each made from all inputs."""


@dataclass(frozen=True)
class ColumnLineage:
    """What the columns of a table are made from."""

    columns: dict[str, Origins]
    deciding: Origins
    """By what rows are left out, or multiplied: filters, dedupes and joins."""


def column_lineage(run: Run, table: str, columns: Sequence[str]) -> ColumnLineage | None:
    """Of a table of rows; None where it is not known."""
    if table not in TABLES:
        return None
    try:
        walk = _Walk.of(run)
        if walk is None:
            return None
        if table == "etl":
            return ColumnLineage({name: walk.before(name) for name in columns}, walk.deciding())
        if run.manifest["model"] is None:
            return None
        found = _of_features(run, walk, table, columns)
        return ColumnLineage(found, walk.deciding()) if sum(map(len, found.values())) <= MOST else None
    except TreadleError:
        return None  # an input or the model is gone


def facet(run: Run, found: ColumnLineage, producer: str) -> Any:
    """As OpenLineage has it; fields are named without saying how they were transformed."""
    from openlineage.client.generated.column_lineage_dataset import (
        ColumnLineageDatasetFacet,
        Fields,
        InputField,
        Transformation,
    )

    names = input_names(run.manifest)
    names["data"] = [*names["data"], *names.get("split", ())]  # the same columns, of the test rows

    def fields(origins: Origins, *kinds: Transformation) -> list[InputField]:
        return [
            InputField(dataset.namespace, dataset.name, column, list(kinds))
            for section, column in sorted(origins)
            for dataset in names.get(section, ())
        ]

    filters = Transformation("INDIRECT", "FILTER", "decides which rows there are", False)
    return ColumnLineageDatasetFacet(
        {name: Fields(fields(origins)) for name, origins in found.columns.items() if origins},
        fields(found.deciding, filters),
        producer=producer,
    )


def _of_features(run: Run, walk: _Walk, table: str, columns: Sequence[str]) -> dict[str, Origins]:
    """Of the tables that a job with a model has."""
    from treadle.engine.blocks import PROTECTED, WEIGHT
    from treadle.engine.encoders import needs

    bundle, data = run.model, walk.job.data
    features = {
        name: NONE.union(*(walk.before(column) for column in needs(bundle.operations, {name})))
        for name in bundle.document.features
    }
    found = {} if data.id is None else {"id": walk.before(data.id)}
    if table != "features":
        # A score is made from all features of the row, and so is each contribution to it.
        every = NONE.union(*features.values())
        return {**{name: every for name in columns if name != "id"}, **found}
    kept = {str(data.target): str(data.target), **{f"{PROTECTED}{name}": name for name in data.protected}}
    kept.update({f"{WEIGHT}{name}": name for name in (data.weight,) if name is not None})
    return {**found, **{name: walk.before(column) for name, column in kept.items()}, **features}


@dataclass(frozen=True)
class _Walk:
    """The operations of a job, to be walked from the last to the first."""

    job: Job
    programs: Sequence[Program]
    """Before each operation, and after the last."""

    @classmethod
    def of(cls, run: Run) -> _Walk | None:
        """None where the input has other columns than in the run."""
        from treadle.engine import etl, job_inputs
        from treadle.jobs.spec import JobSpec

        job = JobSpec.model_validate(run.manifest["spec"]).job
        inputs = job_inputs.inspect(job)
        if inputs.main.kinds != run.manifest["results"]["read"]["kinds"]:
            return None
        return cls(job, etl.outlines(job, inputs.main, inputs.sides, run.store))

    def before(self, column: str, last: int | None = None) -> Origins:
        """What a column after the first `last` operations, all when None, is made from."""
        from treadle.engine.operation import OWN_COLUMNS
        from treadle.engine.relational import Aggregate, Join, Pivot, Union

        needed, found = frozenset({column}), set()
        for index in reversed(range(len(self.job.tables) if last is None else last)):
            given, steps = self.job.tables[index], self.programs[index + 1].steps
            if isinstance(given, (Aggregate, Pivot)) and not given.broadcast:
                # Groups take the place of the rows.
                needed = needed.intersection(given.by) | _gathered(given, needed.difference(given.by))
                continue
            step = steps[-1]
            operation = step.operation
            if isinstance(operation, Union):
                found |= {(f"tables.{index}", _there(operation, c)) for c in needed & set(step.side_columns)}
                needed &= set(self.programs[index].output())
                continue
            hit = operation.makes(step.side_columns) & needed
            if not hit:
                continue
            if isinstance(operation, Join):
                found |= {(f"tables.{index}", _there(operation, name)) for name in hit}
            needed = operation.only(needed).needs(needed, step.side_columns)
            if isinstance(operation, Aggregate):
                needed |= _gathered(operation, hit)
        return frozenset(found | {("data", name) for name in needed.difference(OWN_COLUMNS)})

    def deciding(self) -> Origins:
        """The columns that operations look at which decide what rows there are."""
        from treadle.engine.relational import Dedupe, Filter, Join

        found = NONE
        for index, given in enumerate(self.job.tables):
            if isinstance(given, Join):
                if given.decides_rows:
                    found |= {(f"tables.{index}", _there(given, name)) for name in given.on}
                    found = found.union(*(self.before(name, index) for name in given.reads))
            elif isinstance(given, (Filter, Dedupe)):
                operation = self.programs[index].resolved(given)
                found = found.union(*(self.before(name, index) for name in operation.reads))
        return found


def _gathered(operation: Any, made: frozenset[str]) -> frozenset[str]:
    """The columns that some columns of an aggregate or a pivot are made from: keys, values, and what orders them."""
    from treadle.engine.relational import Aggregate

    if not made:
        return frozenset()
    if not isinstance(operation, Aggregate):
        return frozenset(operation.gathers)
    wanted = [one for name, one in operation.aggregations.items() if name in made]
    ordered = any(one.function in ("first", "last") for one in wanted)
    columns = [*operation.by, *(one.column for one in wanted), operation.order if ordered else None]
    return frozenset(name for name in columns if name is not None)


def _there(operation: Any, column: str) -> str:
    """What a column of another table is called there."""
    return str({new: old for old, new in operation.with_.rename.items()}.get(column, column))
