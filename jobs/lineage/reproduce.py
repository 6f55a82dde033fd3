"""`treadle reproduce`: a run made again from its manifest under a root of its own, and held against what it made.

The spec is the one that was recorded, with everything pinned that it left to the moment: the partitions, the
versions of Delta tables, the time by which `fresh` goes. Nothing runs unless all inputs are what they were.
"""

from __future__ import annotations

import contextlib
import copy
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from treadle.engine.sections.outputs import COSTS
from treadle.engine.store import Store
from treadle.errors import RequestError, listed
from treadle.jobs.lineage.inputs_now import stale_inputs, unsure_inputs
from treadle.jobs.run import Run, load_run

if TYPE_CHECKING:
    from distributed import Client

    from treadle.engine.events import Listener
    from treadle.engine.table_compare import Comparison, Outcome
    from treadle.jobs.plan import Plan

TOLERANCE = 1e-6
PREDICTING = ("model.", "levels-", "side-")
"""What the names of a bundle's files begin with that it predicts by; others say of which run it is."""
SHOWN = 3
"""Files of an input that are named in a message."""
SAMPLED_ROWS = 1000
"""Rows of the feature table whose margins are compared where a bundle has no sample."""
_BUILT_IN = re.compile(r".*/inputs/sklearn-([a-z_]+)\.parquet")


@dataclass(frozen=True)
class TableResult:
    """A table of the run beside that of its reproduction."""

    name: str
    versions: tuple[int | None, int | None]
    """Of the run and of its reproduction; None where one of them did not make the table."""
    comparison: Comparison | None

    @property
    def outcome(self) -> Outcome:
        return "different" if self.comparison is None else self.comparison.outcome


@dataclass(frozen=True)
class ModelResult:
    """The run's model beside that of its reproduction."""

    then: str
    now: str | None
    outcome: Outcome
    said: str
    """By what they were compared, and what came of it."""
    largest: float = 0.0
    """The largest difference of two margins, as a part of the run's, or of 1 where that is smaller."""


@dataclass(frozen=True)
class Reproduction:
    """What came of making a run again."""

    run: str
    reproduction: str
    """The id of the run that was made."""
    root: str
    kept: bool
    seconds: float
    tolerance: float
    differences: tuple[str, ...]
    """Of code, libraries and machine."""
    notes: tuple[str, ...]
    """What is not promised to repeat, and what was done otherwise."""
    tables: tuple[TableResult, ...]
    model: ModelResult | None

    @property
    def right(self) -> bool:
        """Whether all that was compared is equal by its bits, or within the tolerance."""
        results: list[TableResult | ModelResult] = [*self.tables, *([self.model] if self.model else [])]
        return all(result.outcome != "different" for result in results)

    def described(self) -> dict[str, Any]:
        """For --json: numbers that are not finite become texts."""
        tables = []
        for table in self.tables:
            found = table.comparison
            compared = {} if found is None else {**asdict(found), "largest": _plain(found.largest)}
            if found is not None and found.first is not None:
                compared["first"] = {name: _plain(value) for name, value in asdict(found.first).items()}
            tables.append({"table": table.name, "versions": table.versions, "outcome": table.outcome, **compared})
        model = None if self.model is None else {**asdict(self.model), "largest": _plain(self.model.largest)}
        own = ("run", "reproduction", "root", "kept", "seconds", "tolerance", "differences", "notes")
        return {
            **{name: getattr(self, name) for name in own},
            "not_compared": list(COSTS),
            "right": self.right,
            "tables": tables,
            "model": model,
        }


def reproduce(
    root: str,
    run_id: str,
    *,
    out: str | None = None,
    keep: bool = False,
    workers: int | None = None,
    tolerance: float = TOLERANCE,
    listener: Listener | None = None,
    client: Client | None = None,
) -> Reproduction:
    """Makes a run again and compares every table and the model.

    Parameters
    ----------
    run_id
        Of the run, or the start of it.
    out
        Artifacts root of the reproduction, which must be empty; else a folder below `root`.
    keep
        Leave the reproduction there; else it is removed when it has been compared.
    workers
        Local worker processes in place of the recorded cluster.
    tolerance
        As that of `treadle.engine.table_compare.compare`.
    client
        Of a cluster that is open already, in place of all others.

    Raises
    ------
    RequestError
        There is no such run or it did not succeed, an input is missing or has changed, or the folder is in use:
        nothing was run.
    TreadleError
        The reproduction failed.
    """
    from treadle.jobs import runner

    run = load_run(root, run_id)
    if run.status != "succeeded":
        raise RequestError(f"Run {run.id} {run.status}; only a run that succeeded can be reproduced.")
    store = Store(root)
    place = Store(out or f"{store.url.rstrip('/')}/reproductions/{run.id}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    if place.list(""):
        raise RequestError(f"{place.url} is not empty; name another folder with --out.")
    _check_inputs(run.manifest)
    started = time.perf_counter()
    try:
        _bring_earlier_models(run.manifest, store, place)
        plan = _planned(run.manifest, place, workers)
        made = runner.execute(plan, listener=listener, client=client)
        return Reproduction(
            run=run.id,
            reproduction=made.id,
            root=place.url,
            kept=keep,
            seconds=time.perf_counter() - started,
            tolerance=tolerance,
            differences=tuple(_differences(run.manifest, made.manifest)),
            notes=tuple(_notes(run.manifest, made.manifest)),
            tables=tuple(_tables(run, made, tolerance)),
            model=_model(run, made, tolerance),
        )
    finally:
        if not keep:
            _remove(place, store if out is None else None)


def _check_inputs(manifest: Mapping[str, Any]) -> None:
    # A built-in data set that is gone is made anew, and its digest looked at when it is there.
    wrong = [one for one in stale_inputs(manifest) if not (_BUILT_IN.fullmatch(one.path) and one.said == "is missing")]
    if wrong:
        more = f"; and {len(wrong) - SHOWN} more files" if len(wrong) > SHOWN else ""
        raise RequestError(
            f"Run {manifest['run']} cannot be reproduced, for its inputs are not what they were: "
            f"{'; '.join(one.text for one in wrong[:SHOWN])}{more}. Put them back as they were."
        )


def _planned(manifest: Mapping[str, Any], place: Store, workers: int | None) -> Plan:
    """The plan of the recorded spec; RequestError when inputs are others now, by files that came or went."""
    from treadle.jobs.plan import make_plan
    from treadle.jobs.runner import described_inputs
    from treadle.jobs.spec import load_spec

    spec = load_spec(pinned(manifest, workers))
    plan = make_plan(spec, place.url)
    now = {found["section"]: found for found in described_inputs(plan)}
    for then in manifest["inputs"]:
        found = now[then["section"]]
        if found["digest"] != then["digest"]:
            digests = {file["path"]: file["digest"] for file in then["files"]}
            other = [file["path"] for file in found["files"] if digests.get(file["path"]) != file["digest"]]
            raise RequestError(
                f"Run {manifest['run']} cannot be reproduced: its input {then['section']} is another one now "
                f"({len(found['files'])} files, and {len(digests)} before; new or changed: "
                f"[{', '.join(other[:SHOWN]) or 'none'}]). Put it back as it was."
            )
    return plan


def pinned(manifest: Mapping[str, Any], workers: int | None = None) -> dict[str, Any]:
    """The recorded spec, with what it left to the moment as it was in the run."""
    from treadle.jobs.spec import JobSpec

    spec: dict[str, Any] = copy.deepcopy(manifest["spec"])
    spec.get("artifacts", {}).pop("root", None)
    if "tracking" in JobSpec.model_fields:
        spec["tracking"] = {"enabled": False}  # a reproduction is no run of the job
    inputs = {found["section"]: found for found in manifest["inputs"]}
    if (count := _partitions(manifest)) is not None:
        spec["data"].setdefault("partitions", count)
    for section, found in inputs.items():
        if found["version"] is None:
            continue
        kind, _, place = section.partition(".")
        holder = spec[kind][int(place)]["with" if kind == "tables" else "in"] if place else spec[kind]
        holder["version"] = found["version"]
    for expectation in spec.get("contract", ()):
        if expectation["expect"] == "fresh":
            expectation.setdefault("of", manifest["started"])
    (first, *others) = [file["path"] for file in inputs["data"]["files"]]
    built_in = _BUILT_IN.fullmatch(first)
    if built_in and not others and _is_gone(first):
        spec["data"]["path"] = f"sklearn://{built_in[1]}"
        spec["data"].pop("format", None)
    cluster = spec.get("cluster", {})
    is_local = cluster.get("profile", "local") == "local"
    if workers is not None:
        spec["cluster"] = {**(cluster if is_local else {}), "profile": "local", "workers": workers}
    elif is_local and manifest.get("cluster") is not None:
        spec["cluster"] = {**manifest["cluster"], "profile": "local", **cluster}
    return spec


def _is_gone(path: str) -> bool:
    from treadle.engine.inputs import filesystem

    fs, bare = filesystem(path)
    return not fs.exists(bare)


def _partitions(manifest: Mapping[str, Any]) -> int | None:
    """Of each input; None where they were not recorded, or where train and test have other numbers of them."""
    read = manifest["plan"].get("partitions_read")
    if read is None:
        planned: int | None = manifest["plan"]["partitions"]
        return planned
    return read["data"] if read["split"] in (None, read["data"]) else None


def _bring_earlier_models(manifest: Mapping[str, Any], store: Store, place: Store) -> None:
    """Copies the bundles that `continue_from` names, which are looked for under the root of a run."""
    models = manifest["spec"].get("models", ())
    wanted = {m["continue_from"] for m in models if isinstance(m, Mapping) and m.get("continue_from")}
    for reference in sorted(wanted):
        folder = f"models/{reference.replace(':', '/')}"
        names = store.list(folder)
        if "bundle.json" not in names:
            raise RequestError(
                f"Run {manifest['run']} cannot be reproduced: model {reference}, which it went on from, is gone from "
                f"{store.url}."
            )
        wanted_files = [n for n in names if n.startswith(PREDICTING) or n == "sample.parquet"]
        for name in (*wanted_files, "bundle.json"):
            with store.fs.open(store.path(f"{folder}/{name}"), "rb") as file, place.writing(f"{folder}/{name}") as out:
                out.write(file.read())


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Code, libraries and machine; and what the run itself was done on."""
    from treadle.jobs.lineage.environment import differences

    yield from differences(then, now)
    for name in ("machine", "system", "cores", "memory_bytes"):
        old, new = then["hardware"].get(name), now["hardware"][name]
        if old != new:
            yield f"{name}: {new}, and was {old}"
    if then["plan"]["device"] != now["plan"]["device"]:
        yield f"device: {now['plan']['device']}, and was {then['plan']['device']}"


def _notes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    spec = then["spec"]
    limits = {
        "budget": spec.get("budget"),
        "compare.time_limit": (spec.get("compare") or {}).get("time_limit"),
        "tune.budget": (spec.get("tune") or {}).get("budget"),
    }
    for key, value in limits.items():
        if value is not None:
            yield f"{key} is {value}: what is done within a time is not promised to repeat"
    for path in unsure_inputs(then):
        yield f"{path} has another time than in the run, and is so large that only its ends were compared"
    for model in spec.get("models", ()):
        if isinstance(model, Mapping) and model.get("estimator"):
            yield f"{model['estimator']} is code of your own, whose version no manifest has"
    old, new = then.get("cluster"), now["cluster"]
    if old is not None and old["workers"] != new["workers"]:
        yield (
            f"it was made on {new['workers']} workers, and the run on {old['workers']}: boosted trees that are trained "
            "over workers take their bins from each worker's rows, and may be others"
        )
    before = then["plan"].get("partitions_read")
    if before is None:
        yield "the run did not record into how many partitions its inputs were cut"
    elif before != now["plan"]["partitions_read"]:
        yield f"the inputs were cut into other partitions: {now['plan']['partitions_read']}, and {before} before"


def _tables(run: Run, made: Run, tolerance: float) -> Iterator[TableResult]:
    from treadle.engine.table_compare import compare

    then, now = run.tables, made.tables
    for name in {**then, **now}:
        a, b = then.get(name), now.get(name)
        found = None if a is None or b is None else compare(a.batches(), b.batches(), tolerance, COSTS)
        yield TableResult(name, (a.version if a else None, b.version if b else None), found)


def _model(run: Run, made: Run, tolerance: float) -> ModelResult | None:
    if run.manifest["model"] is None:
        return None
    then, now = str(run.manifest["model"]), made.manifest["model"]
    if now is None:
        return ModelResult(then, None, "different", "the reproduction has no model")
    here, there = _files(run, then), _files(made, now)
    if here == there:
        return ModelResult(then, now, "bit-equal", f"the same bytes ({', '.join(here)})")
    other = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
    largest, by = _margins(run, made)
    outcome: Outcome = "equal" if largest <= tolerance else "different"
    return ModelResult(then, now, outcome, f"{listed(other, 4)} differ; compared by margins of {by}", largest)


def _files(run: Run, reference: str) -> dict[str, bytes]:
    """Digests of the files of a bundle that make it predict."""
    import hashlib

    store, folder = run.store, f"models/{reference.replace(':', '/')}"
    found = {}
    for name in store.list(folder):
        if name.startswith(PREDICTING):
            with store.fs.open(store.path(f"{folder}/{name}"), "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").digest()
    return found


def _margins(run: Run, made: Run) -> tuple[float, str]:
    """How far apart the margins of the two models are on rows of the run, and which rows these are."""
    import numpy as np

    from treadle.engine.skew import Sample

    then, now = run.model, made.model
    if then.document.features != now.document.features:
        return float("inf"), "no rows: the features are others"
    d = then.document
    if d.sample is not None and d.sample.rows:
        sample = Sample.read(then.store, then.folder, list(d.inputs), d.features, then.model.outputs)
        matrix, said = sample.matrix, f"the {d.sample.rows} rows of the sample"
    else:
        batches = run.table("features").batches(list(d.features))
        rows = [batch.slice(0, SAMPLED_ROWS) for _, batch in zip(range(2), batches, strict=False)][-1]
        columns = [column.to_numpy(zero_copy_only=False) for column in rows.columns]
        matrix, said = np.stack(columns, axis=1).astype(np.float32), f"the first {rows.num_rows} rows of features"
    a, b = then.model.margin(matrix), now.model.margin(matrix)
    if a.shape != b.shape:
        return float("inf"), said
    return float((np.abs(a - b) / np.maximum(1.0, np.abs(a))).max(initial=0.0)), said


def _remove(place: Store, above: Store | None) -> None:
    with contextlib.suppress(FileNotFoundError):
        place.fs.rm(place.path("").rstrip("/"), recursive=True)
    if above is not None:
        above.remove_empty("reproductions")


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value if isinstance(value, int | float | str | bool | None) else str(value)
