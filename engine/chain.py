"""Stages in order, each with a fingerprint of what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from treadle.engine.artifacts import Artifact, digest
from treadle.engine.context import Context

Made = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """What a stage is made from, and the function that makes it."""

    name: str
    artifact: type[Artifact]
    needs: tuple[str, ...]
    fingerprint: str
    function: Callable[[Context, Made], Artifact]
    always: bool = False
    """Never skipped: it finds out itself whether anything is to be done."""

    @property
    def folder(self) -> str:
        return f"stages/{self.name.replace(':', '-')}-{self.fingerprint}"


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


class Chain:
    """Stages by name, in order; each new one gets its fingerprint from those that it needs."""

    def __init__(self) -> None:
        self.stages: dict[str, Stage] = {}

    def add(
        self,
        name: str,
        artifact: type[Artifact],
        needs: tuple[str, ...],
        config: Any,
        revision: int,
        function: Callable[[Context, Made], Artifact],
        always: bool = False,
    ) -> None:
        made_of = [name.partition(":")[0], revision, config, [self.stages[n].fingerprint for n in needs]]
        self.stages[name] = Stage(name, artifact, needs, digest(made_of), function, always)
