"""Fixtures of the tests of stages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import Client


@pytest.fixture(scope="module")
def client(scheduler: str) -> Iterator[Client]:
    """Of the session's cluster; it is the default one, which waiting for tasks asks for."""
    with Client(scheduler) as client:
        yield client
