"""The job store, on SQLite and on PostgreSQL: the same tests for both."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.jobs.service.stores import brought, cleared, submitted
from treadle.errors import RequestError
from treadle.jobs.service.states import MOVES, State
from treadle.jobs.service.store import Conflict, Defaults, JobStore, NoSuchJob, StateChanged
from treadle.jobs.service.views import Submission

LAW = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENDS = [State.FAILED, State.CANCELLED, State.TIMED_OUT, State.LOST]


def at_once(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What each of as many threads returned, which began together."""
    together = threading.Barrier(count)

    def begin(number: int) -> Any:
        together.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def test_what_was_submitted_can_be_read(store: JobStore) -> None:
    first = submitted(store, "first")
    options = {"priority": 7, "timeout": 2.5, "retries": 0, "after": (first,), "submission_id": "x@1"}
    spec = {"name": "second", "text": "Zürich \u2603 \0", "numbers": [1, 2.5, None, True]}
    begun = time.time()
    view, new = store.submit(Submission(spec=spec, **options), "second", "/data", "ben", "nightly")
    assert new
    details = store.details(view.id)
    assert details.spec == spec
    assert details.model_dump(exclude={"spec", "transitions"}) == view.model_dump()
    expected = {**options, "name": "second", "user": "ben", "root": "/data", "schedule": "nightly", "attempt": 0}
    assert expected.items() <= view.model_dump().items()
    assert view.id.startswith("second-")
    assert (view.state, view.reason, view.run, view.started, view.finished) == ("queued", "submitted", None, None, None)
    assert begun - 1 < view.created.timestamp() < time.time() + 1
    assert [(step.before, step.after) for step in details.transitions] == [(None, State.QUEUED)]
    assert store.view(view.id) == view


def test_a_submission_that_does_not_say_gets_the_defaults(engine: sa.Engine) -> None:
    store = JobStore(engine, Defaults(retries=5, timeout=60.0))
    silent, telling = store.view(submitted(store)), store.view(submitted(store, retries=0, timeout=1.0))
    assert (silent.retries, silent.timeout) == (5, 60.0)
    assert (telling.retries, telling.timeout) == (0, 1.0)


def test_a_hundred_submissions_of_one_id_from_twenty_threads_are_one_job(store: JobStore) -> None:
    def submit(_: int) -> list[tuple[str, bool]]:
        wanted = Submission(spec={"name": "once"}, submission_id="once")
        found = [store.submit(wanted, "once", "/data", "ana") for _ in range(5)]
        return [(view.id, new) for view, new in found]

    found = [pair for pairs in at_once(20, submit) for pair in pairs]
    assert len(found) == 100
    assert len({job for job, _ in found}) == 1
    assert sum(new for _, new in found) == 1
    assert store.counts()[State.QUEUED] == 1
    assert len(store.details(found[0][0]).transitions) == 1


@pytest.mark.parametrize(
    "change",
    [{"spec": {"name": "other"}}, {"priority": 1}, {"timeout": 9.0}, {"retries": 1}, {"root": "/elsewhere"}],
    ids=str,
)
def test_the_same_id_with_something_else_is_refused(store: JobStore, change: dict[str, Any]) -> None:
    def submit(spec: Any = MappingProxyType({"name": "a"}), root: str = "/data", **options: Any) -> Any:
        return store.submit(Submission(spec=dict(spec), submission_id="mine", **options), "a", root, "ana")

    view, _ = submit()
    with pytest.raises(Conflict, match=f"submission_id: 'mine' is job {view.id}, which was submitted with another"):
        submit(**change)
    assert submit() == (view, False)
    assert store.counts()[State.QUEUED] == 1


def test_the_same_id_of_another_user_is_another_job(store: JobStore) -> None:
    jobs = {submitted(store, user=user, submission_id="mine") for user in ("ana", "ben", "eva")}
    assert len(jobs) == 3


def test_submissions_without_an_id_are_all_jobs(store: JobStore) -> None:
    assert len(set(at_once(10, lambda _: submitted(store)))) == 10


def test_a_known_submission_is_told_with_the_state_that_it_has_now(store: JobStore) -> None:
    job = brought(store, submitted(store, submission_id="mine"), State.RUNNING, State.SUCCEEDED, run="r")
    view, new = store.submit(Submission(spec={"name": "job"}, submission_id="mine"), "job", "/data", "ana")
    assert (view.id, view.state, view.run, new) == (job, State.SUCCEEDED, "r", False)


def test_a_job_that_is_not_there_is_not_waited_for(store: JobStore) -> None:
    known = submitted(store)
    with pytest.raises(NoSuchJob, match="after: there is no job 'nobody'."):
        submitted(store, after=(known, "nobody"))
    assert sum(store.counts().values()) == 1


def test_a_job_that_is_waited_for_twice_is_one(store: JobStore) -> None:
    first, second = submitted(store), submitted(store)
    job, _ = store.submit(Submission(spec={}, after=(second, first, second)), "job", "/data", "ana")
    assert job.after == (first, second)
    assert store.view(job.id) == job


@pytest.mark.parametrize("job", ["nobody", "", "a\0b", "x" * 500])
def test_a_job_that_is_not_there_is_told(store: JobStore, job: str) -> None:
    for ask in (store.view, store.details, store.row):
        with pytest.raises(NoSuchJob, match="There is no job"):
            ask(job)


@dataclass(frozen=True)
class Drawn:
    """A job of a random queue."""

    path: tuple[State, ...]
    priority: int
    user: str
    needs: tuple[int, ...]
    not_before: float | None

    @property
    def state(self) -> State:
        return (State.QUEUED, *self.path)[-1]


@st.composite
def queues(draw: st.DrawFn) -> list[Drawn]:
    """Jobs in the order of their submission; each may need earlier ones."""
    running = (State.RUNNING,)
    paths = [(), (), (), running, (*running, State.QUEUED), (*running, State.SUCCEEDED)]
    paths += [(*running, end) for end in ENDS]
    drawn: list[Drawn] = []
    for number in range(draw(st.integers(0, 9))):
        path = draw(st.sampled_from(paths))
        needs = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        waits = draw(st.sampled_from([None, 99.0, 100.0, 101.0])) if path[1:] == (State.QUEUED,) else None
        user = draw(st.sampled_from("abc"))
        drawn.append(Drawn(path, draw(st.integers(-1, 1)), user, tuple(sorted(needs)), waits))
    return drawn


def made(store: JobStore, queue: Sequence[Drawn]) -> list[str]:
    """The ids of the jobs of a queue, which are now in the store."""
    ids: list[str] = []
    for one in queue:
        after = tuple(ids[need] for need in one.needs)
        job = submitted(store, user=one.user, priority=one.priority, after=after)
        ids.append(brought(store, job, *one.path, **({"not_before": one.not_before} if one.not_before else {})))
    return ids


def slowly_due(queue: Sequence[Drawn], now: float, limit: int, per_user: int | None) -> list[int]:
    """What `due` has to return, one job after the other."""
    running = Counter(one.user for one in queue if one.state is State.RUNNING)
    found: list[int] = []
    for priority in (1, 0, -1):
        for number, one in enumerate(queue):
            is_ready = one.state is State.QUEUED and all(queue[need].state is State.SUCCEEDED for need in one.needs)
            is_time = one.not_before is None or one.not_before <= now
            has_room = per_user is None or running[one.user] < per_user
            if one.priority == priority and is_ready and is_time and has_room and len(found) < limit:
                found.append(number)
                running[one.user] += 1
    return found


@LAW
@given(queue=queues(), limit=st.integers(0, 5), per_user=st.none() | st.integers(1, 3))
def test_what_is_due_and_what_is_doomed_are_what_the_slow_references_say(
    store: JobStore, queue: list[Drawn], limit: int, per_user: int | None
) -> None:
    cleared(store.engine)
    ids = made(store, queue)
    due = [row["id"] for row in store.due(100.0, limit, per_user)]
    assert due == [ids[number] for number in slowly_due(queue, 100.0, limit, per_user)]
    bad = {
        ids[number]: {(ids[need], queue[need].state) for need in one.needs if queue[need].state in ENDS}
        for number, one in enumerate(queue)
        if one.state is State.QUEUED
    }
    doomed = {row["id"]: (needed, state) for row, needed, state in store.doomed()}
    assert set(doomed) == {job for job, needed in bad.items() if needed}
    assert all(doomed[job] in bad[job] for job in doomed)


def test_the_higher_priority_comes_first_and_then_the_older(store: JobStore) -> None:
    low, old, young, high = (submitted(store, priority=priority) for priority in (-5, 0, 0, 5))
    assert [row["id"] for row in store.due(0.0, 10, None)] == [high, old, young, low]
    assert [row["id"] for row in store.due(0.0, 3, 3)] == [high, old, young]


def test_of_twenty_that_move_a_job_one_wins(store: JobStore) -> None:
    job = submitted(store)

    def move(number: int) -> bool:
        try:
            store.move(job, State.QUEUED, State.RUNNING, f"thread {number}", attempt=number)
        except StateChanged:
            return False
        return True

    won = at_once(20, move)
    assert sum(won) == 1
    details = store.details(job)
    assert [step.reason for step in details.transitions] == ["submitted", f"thread {won.index(True)}"]
    assert (details.state, details.attempt) == (State.RUNNING, won.index(True))


def test_a_job_that_is_not_there_cannot_be_moved(store: JobStore) -> None:
    with pytest.raises(StateChanged, match="job nobody is no more queued"):
        store.move("nobody", State.QUEUED, State.RUNNING, "test")


def test_what_ends_is_no_more_waited_for(store: JobStore) -> None:
    job = brought(store, submitted(store), State.RUNNING)
    assert store.ask_to_cancel(job, "cancelled by ana")
    store.move(job, State.RUNNING, State.QUEUED, "again", not_before=5.0)
    before = time.time()
    store.move(job, State.QUEUED, State.CANCELLED, "done")
    row = store.row(job)
    assert (row["cancel"], row["not_before"]) == (None, None)
    assert row["finished"] >= before - 1


class Life(RuleBasedStateMachine):
    """Moves of a few jobs, allowed or not, against a model in plain Python."""

    def __init__(self, store: JobStore) -> None:
        super().__init__()
        self.store = store
        cleared(store.engine)
        self.lives: dict[str, list[State]] = {}

    @rule()
    def submit(self) -> None:
        if len(self.lives) < 3:
            self.lives[submitted(self.store)] = [State.QUEUED]

    @rule(which=st.integers(0, 2), before=st.sampled_from(State), after=st.sampled_from(State))
    def move_from_anywhere(self, which: int, before: State, after: State) -> None:
        if self.lives:
            self._move(which, before, after)

    @rule(which=st.integers(0, 2), after=st.sampled_from(State))
    def move_from_where_it_is(self, which: int, after: State) -> None:
        if self.lives:
            self._move(which, list(self.lives.values())[which % len(self.lives)][-1], after)

    def _move(self, which: int, before: State, after: State) -> None:
        job = list(self.lives)[which % len(self.lives)]
        life = self.lives[job]
        if after not in MOVES[before]:
            with pytest.raises(ValueError, match="a job cannot get from"):
                self.store.move(job, before, after, "test")
        elif before is not life[-1]:
            with pytest.raises(StateChanged, match=f"job {job} is no more {before}"):
                self.store.move(job, before, after, "test")
        else:
            self.store.move(job, before, after, "test")
            life.append(after)

    def teardown(self) -> None:
        assert self.store.counts() == self._counts()
        assert {state: len(self.store.rows(state)) for state in State} == self._counts()
        for job, life in self.lives.items():
            steps = self.store.details(job).transitions
            assert [step.after for step in steps] == life
            assert [step.before for step in steps] == [None, *life[:-1]]

    @invariant()
    def counts_agree(self) -> None:
        assert self.store.counts() == self._counts()

    def _counts(self) -> dict[State, int]:
        now = [life[-1] for life in self.lives.values()]
        return {state: now.count(state) for state in State}


def test_jobs_move_only_along_the_lines_and_every_step_is_noted(store: JobStore) -> None:
    few = settings(max_examples=15, stateful_step_count=20, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(lambda: Life(store), settings=few)


@pytest.mark.parametrize("text", ["a\0b", "file \udcff.csv", "é\n" * 5000])
def test_any_reason_can_be_noted(store: JobStore, text: str) -> None:
    """Messages quote names of files and columns, which may hold anything."""
    job = brought(store, submitted(store), State.RUNNING)
    assert store.ask_to_cancel(job, text)
    store.move(job, State.RUNNING, State.FAILED, text)
    kept = store.view(job).reason
    assert len(kept) == len(text)
    assert all(was == now for was, now in zip(text, kept, strict=True) if was not in "\0\udcff")


def test_pages_have_every_job_once_also_while_others_are_submitted(store: JobStore) -> None:
    there = [submitted(store) for _ in range(23)]
    pages: list[list[str]] = []
    cursor: str | None = None
    while not pages or cursor is not None:
        page = store.page(limit=5, cursor=cursor)
        pages.append([view.id for view in page.jobs])
        cursor = page.next
        submitted(store, "later")
    assert [job for page in pages for job in page] == there[::-1]
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3]


def test_a_page_that_ends_with_the_last_job_has_no_next(store: JobStore) -> None:
    assert store.page().model_dump() == {"jobs": (), "next": None}
    for _ in range(4):
        submitted(store)
    assert store.page(limit=4).next is None
    assert store.page(limit=3).next is not None


def test_pages_have_only_what_was_asked_for(store: JobStore) -> None:
    done = brought(store, submitted(store, "a"), State.RUNNING, State.SUCCEEDED)
    failed = brought(store, submitted(store, "a", "ben"), State.RUNNING, State.FAILED)
    queued = submitted(store, "b", "ben")

    def found(**asked: Any) -> list[str]:
        return [view.id for view in store.page(**asked).jobs]

    assert found(name="a") == [failed, done]
    assert found(user="ben") == [queued, failed]
    assert found(states=[State.SUCCEEDED, State.QUEUED]) == [queued, done]
    assert found(states=[State.FAILED], name="a", user="ben") == [failed]
    assert found(name="b", user="ana") == []
    assert found(name="\0") == found(user="\0") == []


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "٣", "9" * 10, "9" * 18, "9" * 400, "1 OR 1=1"])
def test_a_cursor_of_another_kind_is_refused(store: JobStore, cursor: str) -> None:
    with pytest.raises(RequestError, match="cursor: it is not one that a page gave as `next`."):
        store.page(cursor=cursor)


def test_the_greatest_cursor_is_the_first_page(store: JobStore) -> None:
    job = submitted(store)
    assert [view.id for view in store.page(cursor="9" * 9).jobs] == [job]


def test_only_a_job_that_runs_is_asked_to_stop(store: JobStore) -> None:
    queued = submitted(store)
    running = brought(store, submitted(store), State.RUNNING)
    done = brought(store, submitted(store), State.RUNNING, State.SUCCEEDED)
    asked = [store.ask_to_cancel(job, "cancelled by ana") for job in (queued, running, done, "nobody")]
    assert asked == [False, True, False, False]
    cancels = [store.row(job)["cancel"] for job in (queued, running, done)]
    assert cancels == [None, "cancelled by ana", None]
    assert store.view(running).state is State.RUNNING


def test_the_oldest_is_the_one_that_waits_longest(store: JobStore) -> None:
    assert store.oldest(State.QUEUED) == 0.0
    before = time.time()
    job = submitted(store)
    time.sleep(0.3)
    submitted(store)
    assert 0.3 <= store.oldest(State.QUEUED) <= time.time() - before + 0.01
    brought(store, job, State.RUNNING)
    assert store.oldest(State.QUEUED) < 0.3 <= store.oldest(State.RUNNING)
