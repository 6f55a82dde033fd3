"""What the tables of a run came from: model, features, inputs, spec, code, environment; and what of it is gone now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from treadle.errors import TreadleError, listed
from treadle.jobs.environment import code, differences, environment, said_of_code
from treadle.jobs.inputs_now import stale_inputs

if TYPE_CHECKING:
    from treadle.jobs.run import Run, Table

READ_BYTES = 256 * 2**20
"""Of inputs, at most, to see whether they have changed; of what comes after them only sizes are looked at."""
MAKERS = ("xgboost", "lightgbm", "catboost", "scikit-learn", "numpy", "pandas", "pyarrow", "numba", "dask")
"""Libraries that are named where not all can be."""
SHOWN = 5


@dataclass(frozen=True)
class Link:
    """Something that a run made, or made something of."""

    kind: str
    """table, model, features, data (or another section of an input), spec, code or environment."""
    name: str
    said: str
    gone: tuple[str, ...] = ()
    """What is missing, or is not what it was."""


@dataclass(frozen=True)
class Provenance:
    """From the tables of a run back to its inputs, its code and its environment; each is made from the next."""

    run: str
    links: tuple[Link, ...]
    changed: tuple[str, ...]
    """How code and libraries are others now: another run would be made by these."""

    @property
    def gone(self) -> tuple[str, ...]:
        """All that is missing or is not what it was, a line each."""
        return tuple(text for link in self.links for text in link.gone)

    def described(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def provenance(run: Run) -> Provenance:
    """The chain of a run, each link looked at as it is now."""
    manifest = run.manifest
    tables = {name: table for name, table in run.tables.items() if name != "features"}
    links = [_tables(tables)] if tables else []
    if manifest["model"] is not None:
        links.append(_model(run))
    if "features" in run.tables:
        links.append(_features(run))
    links += _inputs(manifest)
    links.append(Link("spec", manifest["spec_digest"], f"job {run.job}, seed {manifest['seed']}"))
    links += _made_by(manifest)
    now = {"code": code(), "environment": environment()}
    return Provenance(run.id, tuple(links), tuple(differences(manifest, now)))


def _tables(tables: Mapping[str, Table]) -> Link:
    # The predictions are what is asked about most, so they come first.
    order = sorted(tables, key=lambda name: (name != "predictions", name != "explanations"))
    name = ", ".join(f"{name}@{tables[name].version}" for name in order)
    return Link("table", name, _rows(tables[order[0]].rows), tuple(t for n in order for t in _unreadable(tables[n])))


def _unreadable(table: Table) -> Iterator[str]:
    """What keeps a version of a table from being read."""
    try:
        missing = table.missing_files()
    except TreadleError as error:
        yield str(error)
        return
    if missing:
        more = f", and {len(missing) - 1} more files are" if len(missing) > 1 else " is"
        yield f"table {table.name}@{table.version} cannot be read: {missing[0]}{more} missing"


def _model(run: Run) -> Link:
    reference, results = str(run.manifest["model"]), run.manifest["results"]
    said = str(results.get("evaluate", {}).get("best", ""))
    try:
        document = run.model.document
    except TreadleError as error:
        return Link("model", reference, said, (f"model {reference} cannot be read: {error}",))
    kind = document.model if document.model in ("", said) else f"{document.model}, called {said}"
    return Link("model", reference, f"{kind or said}, {len(document.features)} features, {document.task}")


def _features(run: Run) -> Link:
    table, spec = run.tables["features"], run.manifest["spec"]
    said = [f"{len(spec[key])} of {key}" for key in ("tables", "features") if spec.get(key)]
    operations = f"operations: {', '.join(said)}" if said else "no operations"
    return Link(
        "features", f"features@{table.version}", f"{_rows(table.rows)}, {operations}", tuple(_unreadable(table))
    )


def _inputs(manifest: Mapping[str, Any]) -> Iterator[Link]:
    stale: dict[str, list[str]] = {}
    for one in stale_inputs(manifest, READ_BYTES):
        stale.setdefault(one.section, []).append(one.text)
    for found in manifest["inputs"]:
        files: Sequence[Mapping[str, Any]] = found["files"]
        names = listed((file["path"].rsplit("/", 1)[-1] for file in files), 2)
        version = "" if found["version"] is None else f"version {found['version']}, "
        counts = [file["rows"] for file in files]
        rows = "" if None in counts else f", {_rows(sum(counts))}"
        gone = stale.get(found["section"], [])
        gone = gone if len(gone) <= SHOWN else [*gone[:SHOWN], f"and {len(gone) - SHOWN} more files of it"]
        said = f"{version}digest {found['digest'][:12]}{rows}"
        yield Link(found["section"], names, said, tuple(f"input {text}" for text in gone))


def _made_by(manifest: Mapping[str, Any]) -> Iterator[Link]:
    """Code and environment; of runs from before these were recorded, the libraries that were."""
    recorded = manifest.get("code")
    version = manifest["libraries"]["treadle"]
    yield Link("code", f"treadle {version}", "not recorded" if recorded is None else said_of_code(recorded))
    found = manifest.get("environment", {})
    versions = found.get("distributions", manifest["libraries"])
    named = ", ".join(f"{name} {versions[name]}" for name in MAKERS if name in versions)
    more = len(versions) - sum(name in versions for name in MAKERS)
    variables = "".join(f", {name}={value}" for name, value in found.get("variables", {}).items())
    processor = f", {found['processor']}" if found else ""
    python = found.get("python", manifest["hardware"]["python"])
    yield Link("environment", f"python {python}", f"{named} and {more} more{variables}{processor}")


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
