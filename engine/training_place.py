"""Where a model is trained, by what it is, how many rows there are and what a worker has room for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from treadle.engine.exact.params import trains_exactly
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.boosted import is_linear
from treadle.engine.models.catalogue import entry_of
from treadle.engine.workers import Workers

WORKER_SHARE = 0.25
"""Share of a worker's memory that the training rows of a single-worker model may take (float64)."""
Place = Literal["all workers", "sums", "one worker", "sample"]


def rows_held(features: int, workers: Workers) -> int:
    """Rows that a model which trains on one worker may take."""
    return int(workers.memory * WORKER_SHARE / (8 * features))


def trains_over_all(config: ModelConfig) -> bool:
    """Whether a model is always trained by all workers together: XGBoost's trees."""
    return entry_of(config).family == "boosted" and not is_linear(config.params)


def place_of(config: ModelConfig, rows: int, features: int, workers: Workers) -> Place:
    """Where a model of so many training rows is trained.

    LightGBM goes over all workers only where the rows do not fit one: on one, its model does not depend on how many
    workers there are, and nothing waits for what workers tell each other.
    """
    if trains_over_all(config):
        return "all workers"
    if trains_exactly(config):
        return "sums"
    if rows <= rows_held(features, workers):
        return "one worker"
    return "all workers" if config.name == "lightgbm" and workers.count > 1 else "sample"


def places_told(
    configs: Iterable[ModelConfig], rows: int, features: int, workers: Workers
) -> Mapping[str, tuple[str, ...]]:
    """Where models are trained on so many rows, in words, with the titles of those that are trained there."""
    held = rows_held(features, workers)
    more = f"since {rows:,} rows are more than the {held:,} that one holds"
    found: dict[str, tuple[str, ...]] = {}
    for config in configs:
        place = place_of(config, rows, features, workers)
        by_memory = not (trains_over_all(config) or trains_exactly(config))
        goes_over = config.name == "lightgbm" and workers.count > 1
        if by_memory and workers.limit is None:
            told = f"on one worker, or {'over all' if goes_over else 'on a sample'} where that has not the room"
        elif place == "all workers":
            told = f"over all workers, {more}" if by_memory else "over all workers"
        elif place == "sums":
            told = "exactly, from sums over all workers' rows"
        else:
            told = "on one worker" if place == "one worker" else f"on one worker, on a sample, {more}"
        found[told] = (*found.get(told, ()), config.title)
    return found
