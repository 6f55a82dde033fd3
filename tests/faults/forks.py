"""Runs of jobs in forks of one process that has everything imported; a fork may be told where to kill itself.

Points are the events of the stage `publish`, from its start on or by their notes, and two more around the manifest.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from types import TracebackType
from typing import Any

BEFORE_MANIFEST = -2
"""The manifest is written under another name."""
AFTER_MANIFEST = -1
"""The manifest is there, and the driver has still its turn."""
SUCCEEDED, KILLED = 0, -signal.SIGKILL
REPOSITORY = Path(__file__).resolve().parents[2]


class Forks:
    """The process that forks; leaving the block ends it."""

    def __enter__(self) -> Forks:
        command = [sys.executable, "-m", __name__]
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=REPOSITORY)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, tasks: Sequence[Mapping[str, Any]], together: bool = False) -> list[int]:
        """Runs `{spec, root, kill}` in turn or all at once; their exit statuses, negative for a signal.

        With `back`, a run, instead of `spec`, that run is made current again.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"tasks": list(tasks), "together": together}) + "\n")
        self._process.stdin.flush()
        statuses: list[int] = json.loads(self._process.stdout.readline())
        return statuses


def _run(
    root: str,
    spec: Mapping[str, Any] | None = None,
    back: str | None = None,
    kill: int | str | None = None,
) -> None:
    import treadle
    from treadle.jobs.tables.rollback import rollback

    seen = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def listener(event: Mapping[str, Any]) -> None:
        nonlocal seen
        # Passes over rows tell how far they are, which is no step of the publication.
        if event["stage"] == "publish" and (event["event"] != "progress" or "note" in event):
            seen += 1
            if kill in (seen - 1, event.get("note", "")):
                die()

    replace = os.replace

    def replacing(source: str, target: str) -> None:
        is_manifest = str(target).endswith("manifest.json")
        if is_manifest and kill == BEFORE_MANIFEST:
            die()
        replace(source, target)
        if is_manifest and kill == AFTER_MANIFEST:
            die()

    os.replace = replacing  # type: ignore[assignment]
    if spec is not None:
        treadle.run(spec, root=root, listener=listener)
    elif back is not None:
        rollback(back, root, listener)


def _fork(task: Mapping[str, Any]) -> int:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # threads of libraries, all idle
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(2, 1)
            _run(**task)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def _end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Reads requests and answers them, a line each."""
    from treadle.jobs.service.nursery import prepare

    prepare()
    for line in sys.stdin:
        request = json.loads(line)
        if request["together"]:
            statuses = [_end_of(pid) for pid in [_fork(task) for task in request["tasks"]]]
        else:
            statuses = [_end_of(_fork(task)) for task in request["tasks"]]
        print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    main()
