"""`treadle profile`: one pass over an input, what it holds, what is odd in it, and a spec to start from."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import is_here
from treadle.engine import job_inputs, pipeline
from treadle.engine.artifacts import Source
from treadle.engine.backend import Backend
from treadle.engine.context import Context
from treadle.engine.events import Events, Listener
from treadle.engine.inputs import find_files
from treadle.engine.job import BadRows, Data
from treadle.engine.meter import Meter
from treadle.engine.profile.describe import describe
from treadle.engine.profile.document import Profile
from treadle.engine.profile.gather import gather
from treadle.engine.profile.sniff import sniff
from treadle.engine.profile.statistics import Statistics
from treadle.engine.store import Store
from treadle.errors import RequestError, StorageError, column_not_found, did_you_mean, listed
from treadle.jobs.example_data import SCHEME, materialise
from treadle.jobs.proposal import propose
from treadle.jobs.spec import JobSpec, load_spec

STAGE = "profile"
SECTIONS = ("data", "cluster", "artifacts")
SHOWN_BROKEN = 3
ANY = 2**62
"""Broken rows: all of them are told, and none is an error."""


@dataclass(frozen=True)
class Profiled:
    """A profile, and the spec that it proposes."""

    profile: Profile
    request: JobSpec
    """How the input was read."""
    spec: str
    """YAML, with its reasons as comments."""
    broken: tuple[str, ...]
    """The first broken rows of text files, and why they are."""

    def propose(self, folder: Path, models: Sequence[str]) -> str:
        """The spec with other lines in place of its models', as it is written into the folder."""
        return propose(self.profile, self.request.data, folder, models)

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.profile.model_dump(mode="json"), "broken": list(self.broken), "spec": self.spec}


def profile_input(
    paths: Sequence[str],
    *,
    format_: str | None = None,
    target: str | None = None,
    workers: int | None = None,
    overrides: Sequence[str] = (),
    beside: Path | None = None,
    listener: Listener | None = None,
) -> Profiled:
    """Profiles files, folders, globs or URLs.

    `format_` and `target` are those of a spec's `data`, `workers` those of its `cluster`; `overrides` set any other
    key of the two, as with --set, or the artifacts root, under which workers elsewhere find text files as Parquet. How
    text files are written is guessed where it is not set. The proposed spec names the input so that it is found from
    the folder `beside`, by default the working folder.

    Raises
    ------
    RequestError
        An input or a column that is not there.
    DataError
        The input has no rows, or cannot be read.
    """
    asked = _asked(paths, format_, target, workers, overrides)
    with _scratch(asked) as store:
        spec = materialise(asked, store)
        data = spec.data.model_copy(update={"bad_rows": BadRows(limit=ANY)})
        job = spec.model_copy(update={"data": data}).job
        inputs = job_inputs.inspect(job)
        kinds = inputs.main.kinds
        if target is not None and target not in kinds:
            raise column_not_found(target, "the input (--target)", kinds)
        pipeline.check(job, inputs, store)
        read, *_ = pipeline.stages_of(job, inputs)
        run = f"profile-{uuid.uuid4().hex[:8]}"
        with open_cluster(spec.cluster) as client, contextlib.closing(Events(store, run, listener)) as events:
            context = Context(job, store, Backend(), client, events, run)
            made, _ = pipeline.run(context, (read,))
            source = made["read"]
            assert isinstance(source, Source)
            found = _passed(context, source, target)
        broken = _broken(store, source)
    profile = describe(
        found,
        kinds,
        target,
        path=paths[0] if len(paths) == 1 else tuple(paths),
        format_=inputs.main.format,
        files=len(inputs.main.files),
        bytes_=inputs.main.bytes,
        quarantined=source.bad_rows,
    )
    return Profiled(profile, asked, propose(profile, asked.data, beside or Path.cwd()), broken)


def write_profile(found: Profiled, path: Path) -> None:
    """The profile as JSON, whole or not at all."""
    store = Store(str(path.absolute().parent))
    store.write_json(path.name, found.described())


def check_new(path: Path, option: str = "--spec") -> None:
    """Refuses to write a spec over a file: it may be one that somebody has worked on."""
    if path.exists():
        raise RequestError(f"{option}: {path} is there already; name another file, or remove it.")


def write_spec(spec: str, path: Path) -> None:
    """The text of a spec, whole or not at all."""
    store = Store(str(path.absolute().parent))
    with store.writing(path.name) as file:
        file.write(spec.encode())


def _asked(
    paths: Sequence[str], format_: str | None, target: str | None, workers: int | None, overrides: Sequence[str]
) -> JobSpec:
    """The request as a spec, with what its text files show about themselves."""
    formats = [str(f) for union in get_args(Data.model_fields["format"].annotation) for f in get_args(union)]
    if format_ is not None and format_ not in formats:
        near = did_you_mean(format_, formats)
        raise RequestError(f"--format: '{format_}' is not known. Allowed: [{listed(formats)}].{near}")
    for override in overrides:
        if override.partition("=")[0].split(".")[0].strip() not in SECTIONS:
            raise RequestError(f"--set {override}: a profile has the sections {listed(SECTIONS)} only.")
    data: dict[str, Any] = {"path": paths[0] if len(paths) == 1 else list(paths)}
    data |= {key: value for key, value in (("format", format_), ("target", target)) if value is not None}
    request: dict[str, Any] = {"apiVersion": "treadle/v1", "name": STAGE, "data": data}
    if workers is not None:
        request["cluster"] = {"profile": "local", "workers": workers}
    spec = load_spec(request, overrides)
    if isinstance(spec.data.path, str) and spec.data.path.startswith(SCHEME):
        return spec
    found = find_files(spec.data.path, spec.data.format)
    if found.format != "csv":
        return spec
    given = {key: getattr(spec.data, key) for key in spec.data.model_fields_set}
    return load_spec({**request, "data": {**data, **sniff(found.files[0].path, given)}}, overrides)


@contextlib.contextmanager
def _scratch(spec: JobSpec) -> Iterator[Store]:
    """A folder for text files as Parquet, which is removed; where workers elsewhere see it when there are such."""
    if is_here(spec.cluster):
        with tempfile.TemporaryDirectory(prefix="treadle-profile-") as folder:
            yield Store(folder)
        return
    store = Store(f"{spec.root()}/profile-{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield store
    finally:
        if store.fs.exists(store.path("")):
            store.fs.rm(store.path(""), recursive=True)


def _passed(context: Context, source: Source, target: str | None) -> Statistics:
    """The pass over the rows, as a stage that the listener hears of."""
    context.stage = STAGE
    context.events.emit(STAGE, "started")
    try:
        with Meter() as meter:
            found = gather(context, source, source.kinds, target)
    except BaseException as error:
        with contextlib.suppress(StorageError):
            context.events.emit(STAGE, "failed", error=f"{type(error).__name__}: {error}")
        raise
    context.events.emit(STAGE, "finished", **asdict(meter.cost))
    return found


def _broken(store: Store, source: Source) -> tuple[str, ...]:
    if not source.quarantine:
        return ()
    rows = store.read_parquet(source.quarantine[0].path).slice(0, SHOWN_BROKEN).to_pylist()
    return tuple(f"{row['file']}, line {row['line']}: {row['reason']}" for row in rows)
