"""Progress of a run: one JSON object a line, and a listener that a terminal hangs on."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from treadle.engine.store import Store, storage_errors

Listener = Callable[[dict[str, Any]], None]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Events:
    """Appends `{time, stage, event, ...}` to the run's events.jsonl and tells the listener.

    Events are started, finished, cached, failed, progress. On an object store, which cannot
    append, the file is written whenever a stage is started, and by `close`.
    """

    def __init__(self, store: Store, run_id: str, listener: Listener | None = None) -> None:
        self._store = store
        self._path = f"runs/{run_id}/events.jsonl"
        self._listener = listener
        self._lines: list[str] = []
        self._file = None
        if "file" in store.fs.protocol:
            with storage_errors(store.path(self._path)):
                store.fs.makedirs(store.path(f"runs/{run_id}"), exist_ok=True)
                # Unbuffered: a line that finds the disk full is not tried again when the file is closed.
                self._file = open(store.path(self._path), "ab", buffering=0)  # noqa: SIM115

    def emit(self, stage: str, event: str, **fields: Any) -> None:
        record = {"time": now(), "stage": stage, "event": event, **fields}
        line = json.dumps(record, default=str)
        if self._file is not None:
            with storage_errors(self._store.path(self._path)):
                self._file.write(f"{line}\n".encode())
        else:
            self._lines.append(line)
            if event == "started":
                self._put()
        if self._listener is not None:
            self._listener(record)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        else:
            self._put()

    def _put(self) -> None:
        with self._store.writing(self._path) as file:
            file.write("".join(f"{line}\n" for line in self._lines).encode())
