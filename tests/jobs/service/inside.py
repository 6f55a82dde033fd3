"""A service inside of the test's process, whose dispatcher does not run: what it is asked is all that happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from treadle.jobs.service.database import migrate
from treadle.jobs.service.http.app import app_of
from treadle.jobs.service.service import Service
from treadle.jobs.service.settings import Settings


class Inside:
    """A service and its app. A bug that an answer tells as 500 is one here, too."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        given = {"root": str(folder / "artifacts"), "allow_roots": (str(folder),), "requests_a_minute": 10**6}
        self.service = Service(Settings(**{**given, **settings}), folder / "home")
        migrate(self.service.engine)
        self.app = app_of(self.service)
        self._transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://127.0.0.1:8844") as client:
                return await client.request(method, path, **how)

        return asyncio.run(asked())

    def submit(self, text: bytes | str) -> httpx.Response:
        """Of a body as it is."""
        return self.ask("POST", "/v1/jobs", content=text, headers={"Content-Type": "application/json"})

    @property
    def jobs(self) -> int:
        """How many there are."""
        return sum(self.service.store.counts().values())


@contextlib.contextmanager
def inside(folder: Path, **settings: Any) -> Iterator[Inside]:
    one = Inside(folder, **settings)
    try:
        yield one
    finally:
        one.service.engine.dispose()
