"""Tasks that need each other, one a worker, run so that the loss of a worker costs an attempt and not the job.

A worker that dies takes a distributed training with it. The others get an error, or wait for it in vain when
it died while they were still finding each other; and a task that waits blocks its worker for all that follows.
So an attempt is watched, what it leaves behind is ended, and the next begins when the cluster is whole again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.engine.context import Context

if TYPE_CHECKING:
    from distributed import Future

ATTEMPTS = 4
LOOK_SECONDS = 0.5
"""Between looks at the cluster."""
NOTICE_SECONDS = 1.0
"""For the scheduler to hear of a lost worker, which may be after those that talked to it."""
GRACE_SECONDS = 3.0
"""For the others' tasks to end by themselves."""
RESTART_SECONDS = 30.0
RESULT_SECONDS = 60.0
"""For the result of a finished task to arrive."""
NETWORK = ("connection", "comm closed", "socket", "rabit", "tracker", "broken pipe", "reset by peer")
"""What errors say that tell of lost processes, and not of what was asked."""


class WorkerLost(Exception):
    """A worker died under tasks that need each other."""


def persistently(context: Context, submit: Callable[[list[str]], list[Future]], again: Callable[[int], None]) -> Any:
    """The result of the first of the tasks that `submit(workers)` starts, each bound to one worker by its address.

    Parameters
    ----------
    again : called with the number of an attempt that was lost, before the next.

    Raises
    ------
    WorkerLost
        A worker died in every attempt.
    Exception
        What a task raised while all workers lived.
    """
    for attempt in range(1, ATTEMPTS + 1):
        workers = context.all_workers()
        futures: list[Future] = []
        try:
            futures = submit(workers)
            wait_together(context, workers, futures)
            return futures[0].result(timeout=RESULT_SECONDS)
        except Exception as error:
            lost = _lost(context, workers)
            if not (lost or isinstance(error, WorkerLost) or _is_of_network(error)):
                raise
            _free(context, set(workers) - lost, futures)
            if attempt == ATTEMPTS:
                raise WorkerLost(
                    f"a worker died in each of {ATTEMPTS} attempts, most likely for want of memory; "
                    f"give each more (fewer cluster.workers, or cluster.memory). The last said: {error}"
                ) from error
        finally:
            context.client.cancel(futures)
        again(attempt)
    raise AssertionError("the loop returns or raises")


def wait_together(context: Context, workers: Collection[str], futures: Sequence[Future]) -> None:
    """Waits until all tasks are done; raises when one fails, and WorkerLost when one of the workers is gone."""
    from distributed import wait

    pending = list(futures)
    while pending:
        with contextlib.suppress(TimeoutError):
            pending = list(wait(pending, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED").not_done)
        for future in futures:
            if future.status not in ("pending", "finished"):
                future.result(timeout=RESULT_SECONDS)
        if gone := set(workers) - set(context.workers):
            raise WorkerLost(f"the worker at {min(gone)} died")


def _lost(context: Context, workers: Iterable[str]) -> set[str]:
    """Which of the workers are gone."""
    end = time.monotonic() + NOTICE_SECONDS
    while True:
        lost = set(workers) - set(context.workers)
        if lost or time.monotonic() > end:
            return lost
        time.sleep(LOOK_SECONDS / 5)


def _free(context: Context, workers: Collection[str], futures: Sequence[Future]) -> None:
    """Ends the tasks that still wait for each other, by starting their workers again.

    A worker without a nanny cannot be: its task ends by a time limit, XGBoost's own of 5 minutes or that of a mesh.
    """
    end = time.monotonic() + GRACE_SECONDS
    keys = {str(future.key) for future in futures}
    while True:
        running = context.client.processing(list(workers))
        stuck = [worker for worker, tasks in running.items() if keys & {str(task) for task in tasks}]
        if not stuck:
            return
        if time.monotonic() > end:
            with contextlib.suppress(ValueError, KeyError):  # it has no nanny, or is gone meanwhile
                context.client.restart_workers(stuck, timeout=RESTART_SECONDS, raise_for_error=False)
            return
        time.sleep(LOOK_SECONDS / 5)


def _is_of_network(error: BaseException) -> bool:
    described = f"{type(error).__name__} {error}".lower()
    return any(sign in described for sign in NETWORK)
