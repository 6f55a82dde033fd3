"""What `treadle parity` finds: a line for each stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

BOUND = 1e-4
"""Largest accepted difference of contributions and margins of one model, as a part of the largest value."""


@dataclass(frozen=True)
class Line:
    """One stage: seconds on the CPU and on the device, and how far the two are apart."""

    stage: str
    cpu_seconds: float | None
    device_seconds: float | None
    difference: float | None
    said: str
    bound: float = BOUND
    """Of the difference."""
    faults: tuple[str, ...] = ()
    """What differs by more than a bound, or may not differ at all."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Columns and metrics whose numbers differ -> the largest difference."""
    fell_back: tuple[str, ...] = ()
    """What the host did of the stage in the run on the device."""

    @property
    def right(self) -> bool | None:
        """None: not covered."""
        if self.faults:
            return False
        return None if self.difference is None else self.difference <= self.bound


@dataclass(frozen=True)
class Parity:
    """What was compared on which device."""

    run: str
    """That on the CPU."""
    device: str
    lines: tuple[Line, ...]
    device_run: str | None = None
    """That of the whole job on the device; None where only kernels were compared."""
    not_covered: str | None = None
    """What was not compared, and why."""
    kept: str | None = None
    """Where both runs lie, when something differs."""

    @property
    def right(self) -> bool:
        """Whether all that was compared agrees."""
        return all(line.right is not False for line in self.lines)

    def described(self) -> dict[str, Any]:
        """For --json: differences that are not finite become texts."""
        lines = []
        for line in self.lines:
            columns = {name: _plain(apart) for name, apart in line.columns.items()}
            said = {"difference": _plain(line.difference), "columns": columns, "right": line.right}
            lines.append({**asdict(line), **said})
        own = ("run", "device_run", "device", "right", "not_covered", "kept")
        return {**{name: getattr(self, name) for name in own}, "bound": BOUND, "stages": lines}


def _plain(difference: float | None) -> float | str | None:
    """A number as JSON has it."""
    return difference if difference is None or math.isfinite(difference) else str(difference)
