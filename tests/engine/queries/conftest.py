"""Queries are computed by Polars on the host here, as in Numba's simulator; cuDF computes the same ones on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from treadle.engine.backend import Backend


@pytest.fixture(scope="session", autouse=True)
def _without_a_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_ENABLE_CUDASIM", "1")
        yield


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What backends are told that the host did."""
    notes: list[str] = []

    def fell_back(self: Backend, what: str, why: str) -> None:
        if self.name == "cuda":
            notes.append(f"{what}: {why}")

    monkeypatch.setattr(Backend, "fell_back", fell_back)
    return notes
