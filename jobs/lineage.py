"""`treadle lineage`: one row of a run, from its prediction back to the raw row in its file.

Only what statistics of Delta tables and Parquet files do not rule out is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from treadle.errors import RequestError, did_you_mean, listed
from treadle.jobs.run import Run, Table, list_runs, load_run
from treadle.jobs.source_rows import SourceRow, source_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from treadle.jobs.provenance import Provenance

TABLES = ("predictions", "explanations", "features", "etl")
"""That a row can be looked for in; the first that a run has, when none is named."""
MOST = 5
"""Rows with the same id that are told of."""


@dataclass(frozen=True)
class Contribution:
    """What a feature did to a margin."""

    feature: str
    value: float | None
    """Of the feature in this row; None for null, and where the run has no table `features`."""
    contribution: float


@dataclass(frozen=True)
class Explained:
    """The contributions to one margin of a row, largest first."""

    class_: Any
    """Whose margin it is; None unless there are several classes."""
    contributions: tuple[Contribution, ...]
    others: float | None
    """The sum of those that the table does not have, where the spec says `top_k`."""
    bias: float


@dataclass(frozen=True)
class Row:
    """What the tables of a run say of a row."""

    side: str | None
    """train or test; None where the run has no split."""
    prediction: dict[str, Any]
    """score, margin and class; empty where the row was not predicted."""
    explained: tuple[Explained, ...]
    features: dict[str, float | None]
    columns: dict[str, Any]
    """The target, weights and protected columns, as the table `features` has them; of `etl` all columns."""


@dataclass(frozen=True)
class Lineage:
    """A row of a run, by its id."""

    run: str
    id: Any
    table: str
    """With its version, where the row was looked for."""
    count: int
    """Rows that have the id; at most `MOST` are in `rows`."""
    rows: tuple[Row, ...]
    sources: tuple[SourceRow, ...]
    """Rows of the inputs that have the id."""
    said: str
    """Why there are no such rows, or what is to be known of them; or empty."""
    provenance: Provenance

    def described(self) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "id": _plain(self.id), "provenance": self.provenance.described()}


def find_run(root: str, run_id: str | None = None, job: str | None = None) -> Run:
    """The run with an id, or the newest one of a job that succeeded; of the only job when none is named.

    Raises
    ------
    RequestError
        There is none, or there are several jobs.
    """
    if run_id is not None:
        found = load_run(root, run_id)
        if job is not None and found.job != job:
            raise RequestError(f"Run {found.id} is of job '{found.job}', not of '{job}'; leave --job or --run out.")
        return found
    runs = [one for one in list_runs(root) if one["status"] == "succeeded"]
    jobs = sorted({one["job"] for one in runs})
    if job is not None and job not in jobs:
        raise RequestError(
            f"No run of job '{job}' under {root} has succeeded. Jobs: [{listed(jobs)}].{did_you_mean(job, jobs)}"
        )
    if not jobs:
        raise RequestError(f"No run under {root} has succeeded yet; another folder is named with --root.")
    if job is None and len(jobs) > 1:
        raise RequestError(f"There are {len(jobs)} jobs under {root}; name one with --job, or a run: [{listed(jobs)}].")
    return load_run(root, next(one["run"] for one in runs if job in (None, one["job"])))


def lineage_of(run: Run, row_id: object, table: str | None = None) -> Lineage:
    """All that is known of the rows with an id.

    Parameters
    ----------
    row_id
        A value of the id column, or its text; without an id column the row's number in the input, from 0.
    table
        Where it is looked for; else in the first of `TABLES` that the run has.

    Raises
    ------
    RequestError
        The run has no such table, no row has the id, or it is no value that ids have.
    StorageError
        A table cannot be read.
    """
    from treadle.jobs.provenance import provenance

    chosen = _table(run, table)
    column = _id_column(run, chosen)
    value = _parsed(run, chosen, column, row_id)
    found = {name: run.tables[name].where("id", value) for name in TABLES[:3] if name in run.tables}
    if chosen.name not in found:
        found[chosen.name] = chosen.where(column, value)
    if not found[chosen.name].num_rows:
        others = [name for name, rows in found.items() if rows.num_rows]
        where = f" Table '{others[0]}' has it: --table {others[0]}." if others else ""
        raise RequestError(f"No row of {chosen.name}@{chosen.version} of run {run.id} has the id {row_id}.{where}")
    rows = list(_rows(run, chosen.name, found))
    sources, said = source_rows(run, value, MOST)
    return Lineage(
        run=run.id,
        id=value.as_py(),
        table=f"{chosen.name}@{chosen.version}",
        count=len(rows),
        rows=tuple(rows[:MOST]),
        sources=tuple(sources),
        said=said,
        provenance=provenance(run),
    )


def _table(run: Run, name: str | None) -> Table:
    if name is not None and name not in TABLES:
        raise RequestError(
            f"--table: a row cannot be looked for in '{name}'. Allowed: [{listed(TABLES)}].{did_you_mean(name, TABLES)}"
        )
    if name is not None:
        return run.table(name)
    there = [one for one in TABLES if one in run.tables]
    if not there:
        raise RequestError(f"Run {run.id} {run.status} and published no table of rows; there is nothing to look up.")
    return run.tables[there[0]]


def _id_column(run: Run, table: Table) -> str:
    if table.name != "etl":
        return "id"
    column = run.manifest["spec"]["data"].get("id")
    if column is None or column not in table.schema.names:
        raise RequestError(
            f"Table etl@{table.version} of run {run.id} has no ids to look for: name the column of ids in data.id, and "
            "keep it in tables."
        )
    return str(column)


def _parsed(run: Run, table: Table, column: str, row_id: object) -> pa.Scalar:
    """The id as a value of the column's type."""
    import pyarrow as pa

    type_ = table.schema.field(column).type
    try:
        return pa.scalar(str(row_id), pa.string()).cast(type_)
    except pa.ArrowException as error:
        raise RequestError(f"Ids of run {run.id} are of type {type_}, and '{row_id}' is no such value.") from error


def _rows(run: Run, table: str, found: Mapping[str, pa.Table]) -> Iterator[Row]:
    """One for each row of a table with the id, with what the other tables say of it.

    Rows are in the same order in all tables, so the n-th of equal ids in one is the n-th in another, among the rows
    that both have.
    """
    spec = run.manifest["spec"]
    if table == "etl":
        yield from (Row(None, {}, (), {}, row) for row in found["etl"].to_pylist())
        return
    features = found["features"].to_pylist() if "features" in found else []
    scopes = {"predictions": "predict", "explanations": "explain"}
    said: dict[str, list[Any]] = {"predictions": [], "explanations": []}
    if "predictions" in found:
        said["predictions"] = found["predictions"].to_pylist()
    if "explanations" in found:
        said["explanations"] = _by_row(run, found["explanations"].to_pylist())
    left = {name: iter(rows) for name, rows in said.items()}
    for row in features or [{}] * max(map(len, said.values())):
        side = row.get("split")
        own: dict[str, Any] = {}
        for name, section in scopes.items():
            rows = spec.get(section, {}).get("rows", "test")
            own[name] = next(left[name], None) if side is None or rows == "all" or side == rows else None
        if table != "features" and own[table] is None:
            continue
        values, columns = _split(row, spec)
        yield Row(
            side,
            {name: value for name, value in (own["predictions"] or {}).items() if name != "id"},
            tuple(_explained(one, values) for one in own["explanations"] or ()),
            values,
            columns,
        )


def _by_row(run: Run, rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Explanations by row: with several classes there is one a class."""
    classes = len({row["class"] for row in rows}) if rows and _has_classes(run) else 1
    return [list(rows[start : start + classes]) for start in range(0, len(rows), classes)]


def _has_classes(run: Run) -> bool:
    return run.manifest["results"].get("split", {}).get("task") == "multiclass"


def _split(row: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[dict[str, float | None], dict[str, Any]]:
    """A row of the table `features` as features, and what else it has."""
    own = ("id", "split")
    other = {spec["data"].get("target")}
    is_other = {name: name in other or name.startswith(("protected.", "weight.")) for name in row if name not in own}
    return (
        {name: row[name] for name, is_own in is_other.items() if not is_own},
        {name: row[name] for name, is_own in is_other.items() if is_own},
    )


def _explained(row: Mapping[str, Any], values: Mapping[str, float | None]) -> Explained:
    if "feature_1" in row and "contribution_1" in row and "others" in row:
        count = sum(name.startswith("contribution_") for name in row)
        pairs = [(row[f"feature_{n}"], row[f"contribution_{n}"]) for n in range(1, count + 1)]
    else:
        pairs = [(name, value) for name, value in row.items() if name not in ("id", "class", "bias")]
    ordered = sorted(pairs, key=lambda pair: -abs(pair[1]))
    return Explained(
        row.get("class"),
        tuple(Contribution(name, values.get(name), value) for name, value in ordered),
        row.get("others") if "feature_1" in row else None,
        row["bias"],
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | None) else str(value)
