"""The stage cache: what stages made before, and why one has to be made again.

<root>/stages/made/<job>.json   what each stage of a job was made from when it was last made or used

A fingerprint says whether a stage is to be made, and not why. So every run notes what its fingerprints were digests
of, and the next one tells what is not as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from pydantic import Field, ValidationError

from treadle.engine.artifacts import Artifact, Source
from treadle.engine.chain import MadeOf, Stage, folder_of, trials_base
from treadle.engine.checkpoints import folder_of as checkpoints_of
from treadle.engine.differences import difference
from treadle.engine.document import Document
from treadle.engine.events import now
from treadle.engine.store import OUTCOME, Store, modified
from treadle.errors import StorageError, listed

NOTES = "stages/made"
OTHERS = 8
"""Notes of other jobs that are looked at, the newest, for a job that has none of a stage."""
NEVER = "never made under this root"
FRESH = "asked for by --fresh"
ALWAYS = "it always runs, and publishes what is not published yet"


class Notes(Document):
    """made/<job>.json."""

    format: int = 1
    stages: dict[str, MadeOf] = Field(default_factory=dict)
    """Those that were made or used, as they were last."""
    unmade: dict[str, str] = Field(default_factory=dict)
    """Stages of the last run that have no outcome -> their fingerprints."""
    unsettled: tuple[str, ...] = ()
    """Of these, those that were made, and were not final."""
    noted: str = ""
    """When, in UTC: what is in `stages` was used then."""


class Cache:
    """What there is of a job's stages under a root, and of each other one why it is not there.

    `whys` has the stages that are to be made, `outcomes` the others. Nothing of it is looked at again: what another
    run makes meanwhile is made twice.
    """

    def __init__(self, store: Store, job: str, stages: Sequence[Stage], fresh: bool = False) -> None:
        self._store, self._job, self._stages = store, job, stages
        self.outcomes: dict[str, Artifact] = {}
        self.whys: dict[str, str] = {}
        self._notes = read_notes(store, job) or Notes()
        lacking: list[Stage] = []
        for stage in stages:
            found = FRESH if fresh else ALWAYS if stage.always else look(store, stage)
            if isinstance(found, Artifact):
                self.outcomes[stage.name] = found
            else:
                lacking.append(stage)
                self.whys[stage.name] = found
        others: list[tuple[str, Notes]] | None = None
        for stage in lacking:
            if self.whys[stage.name]:
                continue
            known = self._of_this_job(stage)
            if known is None:
                others = _others(store, job) if others is None else others
                known = self._of_others(stage, others)
            self.whys[stage.name] = known or NEVER

    def _of_this_job(self, stage: Stage) -> str | None:
        """What the job's own notes tell."""
        notes = self._notes
        if notes.unmade.get(stage.name) == stage.fingerprint:
            if stage.name in notes.unsettled:
                return "its last outcome was not final, and is not kept"
            return "an earlier run began it, or what it needs, and did not come to its end"
        before = notes.stages.get(stage.name)
        return None if before is None else self._compared(stage, before)

    def _of_others(self, stage: Stage, others: Sequence[tuple[str, Notes]]) -> str | None:
        """What the notes of other jobs tell: the newest that have this stage."""
        for job, notes in others:
            if (before := notes.stages.get(stage.name)) is not None:
                return f"unlike job {job}: {self._compared(stage, before)}"
        return None

    def _compared(self, stage: Stage, before: MadeOf) -> str:
        if before.fingerprint == stage.fingerprint:
            return "its outcome is gone"
        return difference(before, stage.made_of, self.whys)

    @contextlib.contextmanager
    def noting(self, made: Mapping[str, Artifact], unsettled: Collection[str]) -> Iterator[None]:
        """Notes what the stages are made from: those in `made` when the block ends, all others as unmade.

        A run that is killed leaves its stages noted as unmade.
        """
        self._note((), ())
        try:
            yield
        finally:
            self._note(made, unsettled)

    def _note(self, made: Collection[str], unsettled: Collection[str]) -> None:
        kept = [stage for stage in self._stages if not stage.always]
        there = {s.name for s in kept if s.name in self.outcomes or (s.name in made and s.name not in unsettled)}
        notes = Notes(
            stages={**self._notes.stages, **{s.name: s.made_of for s in kept if s.name in there}},
            unmade={s.name: s.fingerprint for s in kept if s.name not in there},
            unsettled=tuple(s.name for s in kept if s.name in unsettled),
            noted=now(),
        )
        _write(self._store, self._job, notes)


def cached(store: Store, stage: Stage) -> Artifact | None:
    """The stage's outcome when it is there with all its files."""
    found = None if stage.always else look(store, stage)
    return found if isinstance(found, Artifact) else None


def look(store: Store, stage: Stage) -> Artifact | str:
    """The stage's outcome, or what is wrong with it; an empty text where there is none under its fingerprint."""
    try:
        artifact = stage.artifact.model_validate(store.read_json(f"{stage.folder}/{OUTCOME}"))
    except (ValidationError, StorageError) as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return ""
        return "its outcome is damaged, or another version of Treadle wrote it"
    if not artifact.holds:
        return "what was found holds no longer, for the time that has passed"
    lacking = store.lacking(*artifact.parts)
    lacking += [path for path in _beside(artifact) if not store.fs.exists(store.path(path))]
    if lacking:
        return f"files of its outcome are gone or have another size: {listed(lacking, 2)}"
    return artifact


def _beside(artifact: Artifact) -> list[str]:
    """Files of an artifact that are no parts of it: the numbers of rows that are left out."""
    source = artifact if isinstance(artifact, Source) else getattr(artifact, "source", None)
    partitions = source.partitions if isinstance(source, Source) else ()
    return sorted({piece.left_out for partition in partitions for piece in partition if piece.left_out})


def folders_of(fingerprints: Mapping[str, str]) -> set[str]:
    """Every folder of the cache that a run may use or make, by the fingerprints of its stages; relative to the root."""
    found = {folder_of(name, fingerprint) for name, fingerprint in fingerprints.items()}
    found |= {checkpoints_of(fingerprint) for fingerprint in fingerprints.values()}
    if "features" in fingerprints and "folds" in fingerprints:
        found.add(f"stages/trials-{trials_base(fingerprints['features'], fingerprints['folds'])}")
    return found


def read_notes(store: Store, job: str) -> Notes | None:
    """What was noted of a job; None where nothing was, or another version of Treadle did."""
    try:
        return Notes.model_validate(store.read_json(f"{NOTES}/{job}.json"))
    except (StorageError, ValidationError):
        return None


def used(store: Store, job: str) -> None:
    """Notes that what the job had last was used again, by a run that had nothing to do."""
    if (notes := read_notes(store, job)) is not None:
        _write(store, job, notes.model_copy(update={"noted": now()}))


def _write(store: Store, job: str, notes: Notes) -> None:
    with contextlib.suppress(StorageError):  # it is for telling only; what needs the disk will complain
        store.write_json(f"{NOTES}/{job}.json", notes.model_dump(mode="json"))


def _others(store: Store, job: str) -> list[tuple[str, Notes]]:
    """The notes of other jobs, the newest first."""
    try:
        listing = store.fs.ls(store.path(NOTES), detail=True)
    except FileNotFoundError:
        return []
    newest = sorted(listing, key=modified, reverse=True)
    names = [str(info["name"]).rsplit("/", 1)[-1] for info in newest]
    jobs = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    found = [(other, read_notes(store, other)) for other in [j for j in jobs if j != job][:OTHERS]]
    return [(other, notes) for other, notes in found if notes is not None]
