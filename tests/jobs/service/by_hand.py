"""A service whose jobs a test moves by hand: the real app and store, without the dispatcher that would run them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.jobs.service.access import Scope
from treadle.jobs.service.http.app import app_of
from treadle.jobs.service.service import Service
from treadle.jobs.service.settings import Settings
from treadle.jobs.service.states import State
from treadle.jobs.service.views import Submission

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as Connection


@dataclass(frozen=True)
class Asked:
    """A request that was made."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class ByHand:
    """Jobs in a real store, and what the service was asked."""

    service: Service
    root: Path
    asked: list[Asked] = field(default_factory=list)

    @classmethod
    def open(cls, home: Path, **settings: Any) -> ByHand:
        from treadle.jobs.service.database import migrate

        home.mkdir()
        service = Service(Settings(root=str(home / "artifacts"), **settings), home)
        migrate(service.engine)
        return cls(service, home / "artifacts")

    def app(self) -> ASGIApp:
        """The real app, which notes what it is asked."""
        app = app_of(self.service)

        async def noting(scope: Connection, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                headers = {name.decode(): value.decode() for name, value in scope["headers"]}
                self.asked.append(Asked(scope["method"], scope["path"], headers))
            await app(scope, receive, send)

        return noting

    def close(self) -> None:
        self.service.closing.set()
        self.service.engine.dispose()

    def asked_for(self, part: str) -> list[Asked]:
        """Requests whose path has this part."""
        return [asked for asked in self.asked if part in asked.path]

    @contextlib.contextmanager
    def streams_end(self) -> Iterator[None]:
        """Logs and events that are followed end at once during the block, as when the service stops."""
        self.service.closing.set()
        self.service.bell.ring()
        try:
            yield
        finally:
            self.service.closing.clear()

    def token(self) -> str:
        """A new one that is good for everything."""
        return self.service.access.add("mara", Scope.ADMIN)

    def add(self, name: str, *steps: tuple[State, str], spec: Mapping[str, Any] | None = None, **more: Any) -> str:
        """A job that took some steps; whether its spec is allowed is not looked at."""
        submission = Submission(spec=dict(spec or {"name": name}), retries=1)
        fields = {"root": str(self.root), "user": "mara", **more}
        job = self.service.store.submit(submission, name, **fields)[0].id
        for state, reason in steps:
            self.move(job, state, reason)
        return job

    def move(self, job: str, state: State, reason: str) -> None:
        """By way of `running`, where there is no other."""
        view = self.service.store.view(job)
        if view.state is State.QUEUED and state not in (State.RUNNING, State.CANCELLED, State.FAILED):
            self.move(job, State.RUNNING, "its driver is at work")
            view = self.service.store.view(job)
        begins = state is State.RUNNING
        changes = {"started": datetime.now(UTC).timestamp(), "attempt": view.attempt + 1} if begins else {}
        self.service.store.move(job, view.state, state, reason, **changes)
        self.service.bell.ring()

    def rename(self, job: str, name: str) -> None:
        """Gives a job a name that none could have been submitted with."""
        from treadle.jobs.service.tables import jobs

        with self.service.engine.begin() as connection:
            connection.execute(jobs.update().where(jobs.c.id == job).values(name=name))

    def say(self, job: str, stage: str, event: str, **more: Any) -> None:
        """An event of a stage."""
        attempt = self.service.store.view(job).attempt
        said = {"time": datetime.now(UTC).isoformat(), "stage": stage, "event": event, "attempt": attempt, **more}
        self._append(self.service.dispatcher.folder(job).events, f"{json.dumps(said)}\n".encode())

    def log(self, job: str, text: bytes) -> None:
        self._append(self.service.dispatcher.folder(job).log, text)

    def _append(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(content)
        self.service.bell.ring()

    def results(self, job: str, manifest: Mapping[str, Any], **files: bytes) -> None:
        """The manifest of its run, and other files."""
        folder = self.root / "runs" / job
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / "manifest.json").write_text(json.dumps({"tables": [], "model": None, **manifest}))

    def state(self, job: str) -> State:
        return self.service.store.view(job).state
