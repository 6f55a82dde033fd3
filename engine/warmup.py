"""What a job would otherwise compile while it runs."""

from __future__ import annotations


def warm_up() -> float:
    """Compiles the kernels that predict and explain, unless they are on disk already; seconds that took."""
    from treadle.kernels.warmup import warm_up as warm_up_kernels

    return warm_up_kernels()
