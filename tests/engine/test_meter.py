"""What a stage cost, of GPUs too."""

from __future__ import annotations

import pytest

from treadle.engine.meter import Meter


class Gpus:
    """Counts as it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def begin(self) -> None:
        self.asked.append("begin")

    def used(self) -> tuple[int | None, int | None]:
        self.asked.append("used")
        return 5, 7


def test_memory_of_gpus_is_that_since_the_block_began() -> None:
    gpus = Gpus()
    with Meter(gpus) as meter:
        assert gpus.asked == ["begin"]
    assert (meter.cost.device_peak_bytes, meter.cost.device_used_bytes) == (5, 7)
    assert meter.cost.peak_bytes > 0
    with Meter() as meter:
        pass
    assert (meter.cost.device_peak_bytes, meter.cost.device_used_bytes) == (None, None)


def test_a_block_that_failed_asks_no_worker() -> None:
    gpus = Gpus()
    meter = Meter(gpus)
    with pytest.raises(ValueError, match="lost"), meter:
        raise ValueError("lost")
    assert gpus.asked == ["begin"]
    assert meter.cost.device_peak_bytes is None
