"""The states of a job, and the only ways from one to another.

queued -> running -> succeeded | failed | cancelled | timed_out | lost
queued -> cancelled | failed        (it never started)
running -> queued                   (a fault of the machine, and another attempt is due)
failed, cancelled, timed_out, lost -> queued        (somebody asked to retry)
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It cannot be done as it is written, or its attempts are spent."""
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    """Its driver vanished without a word, as often as it was started."""

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more happens to the job by itself."""
        return self not in (State.QUEUED, State.RUNNING)


MOVES: Mapping[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset(State) - {State.RUNNING},
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
    State.TIMED_OUT: frozenset({State.QUEUED}),
    State.LOST: frozenset({State.QUEUED}),
}
RETRIABLE = frozenset(state for state in State if state.is_terminal and State.QUEUED in MOVES[state])
