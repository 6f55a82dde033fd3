"""The driver: one attempt of a job, in a process of its own that needs no service to finish.

It locks the job's folder as long as it lives, gives a sign of life every second, and says last how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from treadle.cluster.private import private
from treadle.errors import StorageError
from treadle.jobs.service.faults import fault_of
from treadle.jobs.service.folders import JobFolder, Order, Outcome
from treadle.jobs.service.paths import confine
from treadle.signals import held, terminable

BEAT_SECONDS = 1.0


def drive(path: str, attempt: int) -> int:
    """Makes one attempt at the job in a folder; 0, unless another attempt was allowed meanwhile."""
    folder = JobFolder(Path(path))
    with terminable(), folder.living(attempt) as allowed:
        if not allowed:
            return 1
        with _beating(folder):
            outcome = _attempted(folder, attempt)
            with held():
                folder.end(outcome)
    return 0


def _attempted(folder: JobFolder, attempt: int) -> Outcome:
    """Everything that can go wrong is an outcome."""
    try:
        order = folder.order()
        _say(f"attempt {attempt} at {order.job}")
        _run(order, _listener(folder, attempt))
    except KeyboardInterrupt:
        return Outcome(attempt, "none", "stopped on request", cancelled=True)
    except BaseException as error:
        traceback.print_exc()
        fault, reason = fault_of(error)
        return Outcome(attempt, fault, reason)
    return Outcome(attempt, "none", "done")


def _run(order: Order, listener: Callable[[dict[str, Any]], None]) -> None:
    from treadle.cluster.launch import open_cluster
    from treadle.engine.store import Store
    from treadle.engine.workers import Workers
    from treadle.jobs import runner
    from treadle.jobs.plan import make_plan
    from treadle.jobs.registry.connection import MODE
    from treadle.jobs.spec import load_spec

    # MLflow takes more of a core than a small job; the next who asks a local registry has it record all of them.
    os.environ.setdefault(MODE, "later")
    store = Store(order.root)
    with contextlib.suppress(StorageError):
        if store.read_json(f"runs/{order.job}/manifest.json")["status"] == "succeeded":
            _say("it was done already")
            return
    spec = load_spec({**order.spec, "cluster": dict(order.cluster)})
    # Once more: what links lead to may be something else than when it was submitted.
    confine(spec, order.root, order.allowed, order.closed)
    with open_cluster(spec.cluster) as client:
        plan = make_plan(spec, order.root, order.fresh, Workers.of(client))
        runner.execute(plan, fresh=order.fresh, listener=listener, run_id=order.job, client=client)


def _listener(folder: JobFolder, attempt: int) -> Callable[[dict[str, Any]], None]:
    """Writes events down for those who watch, and in words into the log."""
    file = open(folder.events, "ab", buffering=0, opener=private)  # noqa: SIM115  (as long as the process)

    def listen(event: dict[str, Any]) -> None:
        # Watching must not end the job: a full disk will say so where it matters.
        with contextlib.suppress(OSError):
            file.write(f"{json.dumps({**event, 'attempt': attempt}, default=str)}\n".encode())
        if event["stage"] == "publish" and event["event"] == "started":
            with contextlib.suppress(OSError):
                folder.publish()
        if event["event"] != "progress":
            seconds = event.get("wall_seconds")
            _say(f"{event['stage']} {event['event']}" + (f" in {seconds:.2f} s" if seconds is not None else ""))

    return listen


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}", flush=True)


@contextlib.contextmanager
def _beating(folder: JobFolder) -> Iterator[None]:
    """A sign of life every second, by a clock that nobody sets."""
    done, began, parent = threading.Event(), time.monotonic(), os.getpid()

    def beat() -> None:
        while os.getpid() == parent:
            if not folder.holds():
                _say("the job's folder is gone, and with it the lock that keeps others from running the job")
                os.kill(parent, signal.SIGKILL)
            with contextlib.suppress(OSError):
                folder.beat(time.monotonic() - began)
            if done.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
