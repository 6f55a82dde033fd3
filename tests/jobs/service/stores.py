"""Jobs in a store, for tests."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from treadle.jobs.service import tables
from treadle.jobs.service.states import State
from treadle.jobs.service.store import JobStore
from treadle.jobs.service.views import Submission


def submitted(store: JobStore, name: str = "job", user: str = "ana", root: str = "/data", **options: Any) -> str:
    """The id of a new job."""
    view, new = store.submit(Submission(spec={"name": name}, **options), name, root, user)
    assert new
    return view.id


def brought(store: JobStore, job: str, *states: State, **changes: Any) -> str:
    """The job, when it went from queued through these states; the last step has the changes."""
    before = State.QUEUED
    for after in states:
        store.move(job, before, after, "test", **(changes if after is states[-1] else {}))
        before = after
    return job


def cleared(engine: sa.Engine) -> None:
    """Empties the tables."""
    with engine.begin() as connection:
        for table in reversed(tables.metadata.sorted_tables):
            connection.execute(table.delete())
