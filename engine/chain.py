"""Stages in order, each with a fingerprint of what it is made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import Field

from treadle.engine.artifacts import Artifact
from treadle.engine.context import Context
from treadle.engine.document import Document, digest
from treadle.engine.inputs import Inspected

Made = Mapping[str, Any]
MOST_FILES = 2000
"""Of one input that are told apart when it changes; of more it is only told that it did."""


class MadeOf(Document):
    """What a stage is made from: all that its fingerprint is a digest of, and the inputs' files."""

    fingerprint: str
    revision: int
    """Of the stage's code."""
    config: dict[str, Any]
    """By the key of the spec; versions of libraries as `libraries.<name>`, and `<section>.content` of an input."""
    needs: dict[str, str]
    """Stage -> fingerprint."""
    files: dict[str, dict[str, str] | None] = Field(default_factory=dict)
    """Section of an input -> path -> digest; None where they are more than `MOST_FILES`."""


@dataclass(frozen=True)
class Stage:
    """What a stage is made from, and the function that makes it."""

    name: str
    artifact: type[Artifact]
    needs: tuple[str, ...]
    fingerprint: str
    function: Callable[[Context, Made], Artifact]
    made_of: MadeOf
    always: bool = False
    """Never skipped: it finds out itself whether anything is to be done."""

    @property
    def folder(self) -> str:
        return folder_of(self.name, self.fingerprint)


def folder_of(stage: str, fingerprint: str) -> str:
    """Where a stage's outcome lies, relative to the root."""
    return f"stages/{stage.replace(':', '-')}-{fingerprint}"


def trials_base(features: str, folds: str) -> str:
    """What the trials of models by folds lie under, by the fingerprints of both stages."""
    return digest([features, folds])


@dataclass(frozen=True)
class Record:
    """How a stage went in a run."""

    stage: str
    fingerprint: str
    status: str
    """cached | finished"""
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    device_peak_bytes: int | None = None
    """Those of GPUs as `treadle.engine.meter.Cost` has them; None of a stage that is cached."""
    device_used_bytes: int | None = None
    why: str | None = None
    """Why there was no outcome to use; None of one that is cached."""


class Chain:
    """Stages by name, in order; each new one gets its fingerprint from those that it needs."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def add(
        self,
        name: str,
        artifact: type[Artifact],
        needs: tuple[str, ...],
        config: Mapping[str, Any],
        revision: int,
        function: Callable[[Context, Made], Artifact],
        always: bool = False,
        inputs: Mapping[str, Inspected | None] = MappingProxyType({}),
    ) -> None:
        """Adds a stage; `config` is by keys of the spec, and `inputs` are those whose content it holds, by section."""
        needed = {need: self.stages[need].fingerprint for need in needs}
        plain = json.loads(json.dumps(config, default=str))  # as it is when it is read again
        fingerprint = digest([name.partition(":")[0], revision, plain, list(needed.values())])
        files = {section: _files(inspected) for section, inspected in inputs.items() if inspected is not None}
        made_of = MadeOf(fingerprint=fingerprint, revision=revision, config=plain, needs=needed, files=files)
        self.stages[name] = Stage(name, artifact, needs, fingerprint, function, made_of, always)


def content_of(section: Mapping[str, Any], inspected: Inspected) -> dict[str, Any]:
    """Another table in a fingerprint: by what it holds, which tells the version too, not by where it lies."""
    said = {key: value for key, value in section.items() if key != "path"}
    return {**said, "content": inspected.digest, "version": inspected.version}


def input_config(inspected: Inspected) -> dict[str, Any]:
    """An input in the fingerprint of `read`.

    Parquet is read where it lies, and later stages go there again: elsewhere, the same content is made anew.
    """
    content = {"content": inspected.digest, "version": inspected.version}
    if inspected.is_text:
        return content
    return {**content, "path": [file.path for file in inspected.files], "types": inspected.kinds}


def _files(inspected: Inspected) -> dict[str, str] | None:
    """The digests of an input's files, unless they are too many."""
    if len(inspected.files) > MOST_FILES:
        return None
    return {file.path: f"{file.digest}{dict(file.constants) or ''}" for file in inspected.files}
