"""A service that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.service.served import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real one with a worker; tests leave no job behind that runs."""
    with served(tmp_path_factory.mktemp("service")) as one:
        yield one
