"""Runs of jobs in forks of one process that has everything imported; a fork may be told where to kill itself.

Points are the events of the stage `publish`, from its start on, and two more around the manifest.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

BEFORE_MANIFEST = -2
"""The manifest is written under another name."""
AFTER_MANIFEST = -1
"""The manifest is there, and the driver has still its turn."""
SUCCEEDED, KILLED = 0, -signal.SIGKILL
REPOSITORY = Path(__file__).resolve().parents[2]


def run_forks(tasks: Sequence[Mapping[str, Any]], together: bool = False) -> list[int]:
    """Runs `{spec, root, kill}` one after the other, or all at once; their exit statuses, negative for a signal."""
    command = [sys.executable, "-m", __name__, "together" if together else "apart"]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=REPOSITORY) as process:
        said, _ = process.communicate(json.dumps(list(tasks)), timeout=240)
    assert process.returncode == 0
    statuses: list[int] = json.loads(said.splitlines()[-1])
    return statuses


def _run(spec: Mapping[str, Any], root: str, kill: int | None = None) -> None:
    import treadle
    from treadle.engine.store import Store

    seen = 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def listener(event: Mapping[str, Any]) -> None:
        nonlocal seen
        if event["stage"] == "publish":
            seen += 1
            if seen - 1 == kill:
                die()

    rename = Store._rename

    def renaming(store: Store, source: str, target: str) -> None:
        is_manifest = target.endswith("manifest.json")
        if is_manifest and kill == BEFORE_MANIFEST:
            die()
        rename(store, source, target)
        if is_manifest and kill == AFTER_MANIFEST:
            die()

    Store._rename = renaming  # type: ignore[method-assign]
    treadle.run(spec, root=root, listener=listener)


def main() -> None:
    from treadle.jobs.service.nursery import prepare

    prepare()
    tasks = json.load(sys.stdin)
    statuses, pids = [], []
    for task in tasks:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _run(**task)
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        pids.append(pid)
        if sys.argv[1] == "apart":
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    if sys.argv[1] == "together":
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    print(json.dumps(statuses))


if __name__ == "__main__":
    main()
