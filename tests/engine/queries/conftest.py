"""Queries are computed by Polars on the host here, as in Numba's simulator; cuDF computes the same ones on a GPU."""

from __future__ import annotations

import pytest

from treadle.engine.backend import Backend


@pytest.fixture(autouse=True)
def _without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What backends are told that the host did."""
    notes: list[str] = []

    def fell_back(self: Backend, what: str, why: str) -> None:
        if self.name == "cuda":
            notes.append(f"{what}: {why}")

    monkeypatch.setattr(Backend, "fell_back", fell_back)
    return notes
