"""What a job would otherwise compile while it runs."""

from __future__ import annotations

from pathlib import Path


def warm_up() -> float:
    """Compiles the kernels of features, predictions and explanations, unless they are on disk; seconds that took."""
    from treadle.kernels.warmup import warm_up as warm_up_kernels

    return warm_up_kernels()


def kept_code() -> tuple[Path, int]:
    """The folder for the kernels' machine code, and of how many functions it has some."""
    from treadle.kernels.warmup import kept_code as kept

    return kept()
