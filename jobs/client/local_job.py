"""A job of `Client.local`: a process, its files, and what became of it."""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, overload

from treadle.jobs.client.errors import Conflict, JobFailed, StillRunning
from treadle.jobs.client.streams import Event, Lines
from treadle.jobs.html import job_html
from treadle.jobs.run import Run, load_run
from treadle.jobs.service.states import RETRIABLE, State
from treadle.jobs.service.views import JobDetails, JobView, Submission, Transition

LOOK = 0.1
"""Seconds between two looks at a process or a file."""
PATIENCE = 30.0
"""Seconds that a job has to end after it was asked to; then it is killed."""


class LocalJob:
    """A job as a process; what `Job` does, it does."""

    def __init__(self, job_id: str, submission: Submission, root: str, folder: Path) -> None:
        self.id = job_id
        self.submission = submission
        self._root, self._folder = root, folder
        self._created = datetime.now(UTC)
        self._transitions: list[Transition] = []
        self._attempt, self._run, self._stopped = 0, None, ""
        self._lock = threading.RLock()
        folder.mkdir(parents=True)
        self._start(fresh=False, reason="Submitted without a service: it starts at once.")

    def __repr__(self) -> str:
        return f"<LocalJob {self.id}, {self.status().value}>"

    def _start(self, fresh: bool, reason: str) -> None:
        request = {"spec": self.submission.spec, "root": self._root, "fresh": fresh}
        (self._folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        (self._folder / "outcome.json").unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "treadle.jobs.client.local_driver", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the caller's, who may cancel
            )
        self._attempt, self._stopped = self._attempt + 1, ""
        self._move(State.RUNNING, reason)
        if self.submission.timeout is not None:
            self._stop_after(self.submission.timeout, State.TIMED_OUT, self._process)

    def _stop_after(self, seconds: float, why: str, process: subprocess.Popen[bytes], kill: bool = False) -> None:
        """Ends a process when it still runs after some seconds; a thread waits for that."""

        def end() -> None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                return
            with self._lock:
                self._stopped = self._stopped or why
            if kill:
                process.kill()
            else:
                process.terminate()
                self._stop_after(PATIENCE, why, process, kill=True)

        threading.Thread(target=end, daemon=True).start()

    def _move(self, state: State, reason: str) -> None:
        before = self._transitions[-1].after if self._transitions else None
        self._transitions.append(Transition(time=datetime.now(UTC), before=before, after=state, reason=reason))

    def _look(self) -> Transition:
        """The newest step of its life, after a look at the process."""
        with self._lock:
            newest = self._transitions[-1]
            if newest.after is State.RUNNING and (status := self._process.poll()) is not None:
                self._move(*self._end(status))
            return self._transitions[-1]

    def _end(self, status: int) -> tuple[State, str]:
        try:
            outcome = json.loads((self._folder / "outcome.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self._stopped:
                return State(self._stopped), "It was killed, for it did not end when it was asked to."
            return State.LOST, f"Its process ended with status {status} without a word; its log may say more."
        if outcome["state"] == State.CANCELLED and self._stopped == State.TIMED_OUT:
            return State.TIMED_OUT, f"It took longer than {self.submission.timeout:g} s."
        self._run = outcome.get("run")
        return State(outcome["state"]), outcome["reason"]

    def view(self) -> JobDetails:
        """All that is known of it."""
        newest = self._look()
        asked = self.submission
        begun = [step.time for step in self._transitions if step.after is State.RUNNING]
        return JobDetails(
            id=self.id,
            name=asked.spec["name"],
            state=newest.after,
            reason=newest.reason,
            user=getpass.getuser(),
            submission_id=asked.submission_id,
            priority=asked.priority,
            timeout=asked.timeout,
            retries=0,
            after=(),
            attempt=self._attempt,
            created=self._created,
            started=begun[-1],
            finished=newest.time if newest.after.is_terminal else None,
            not_before=None,
            root=self._root,
            run=self._run,
            schedule=None,
            spec=asked.spec,
            transitions=tuple(self._transitions),
        )

    def status(self) -> State:
        """Where it is in its life."""
        return self._look().after

    def wait(self, timeout: float | None = None, *, check: bool = True) -> JobView:
        """Waits until the job is done; raises JobFailed unless `check` is False, and StillRunning."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise StillRunning(self.view()) from None
        view = self.view()
        if check and view.state is not State.SUCCEEDED:
            raise JobFailed(view)
        return view

    @overload
    def logs(self, follow: Literal[False] = False) -> str: ...
    @overload
    def logs(self, follow: Literal[True]) -> Iterator[str]: ...
    def logs(self, follow: bool = False) -> str | Iterator[str]:
        """The log so far; with `follow` its lines, as they are written, until the job is done."""
        if follow:
            return self._lines("log", follow)
        return (self._folder / "log").read_bytes().decode("utf-8", "replace")

    def _lines(self, name: str, follow: bool) -> Iterator[str]:
        lines, path, offset = Lines(), self._folder / name, 0
        while True:
            ended = self.status().is_terminal or not follow
            if path.exists():
                with path.open("rb") as file:
                    file.seek(offset)
                    chunk = file.read()
                offset += len(chunk)
                yield from lines.feed(chunk)
            if ended:
                yield from lines.rest()
                return
            time.sleep(LOOK)

    def events(self, follow: bool = True) -> Iterator[Event]:
        """What happens to the job and its stages, from its beginning until it is done, or until now."""
        started, count = self._transitions[0], 1
        yield Event(str(count), "state", started.model_dump(mode="json"))
        for line in self._lines("events.jsonl", follow):
            count += 1
            yield Event(str(count), "stage", {**json.loads(line), "attempt": self._attempt})
        for step in self._transitions[1:]:
            count += 1
            yield Event(str(count), "state", step.model_dump(mode="json"))
        if self.status().is_terminal:
            view = self.view().model_dump(mode="json", include=set(JobView.model_fields))
            yield Event(str(count + 1), "end", view)

    def cancel(self) -> JobView:
        """Stops the job, which may take a moment: `wait(check=False)`. `Conflict` when it has ended otherwise."""
        with self._lock:
            state = self._look().after
            if state.is_terminal and state is not State.CANCELLED:
                raise Conflict(f"Job {self.id} has {state.value} already; it cannot be cancelled.", 409)
            if not state.is_terminal:
                self._stopped = State.CANCELLED
                self._process.terminate()
                self._stop_after(PATIENCE, State.CANCELLED, self._process, kill=True)
        return self.view()

    def retry(self, fresh: bool = False) -> JobView:
        """Starts a job again that did not succeed; with `fresh` it also does again what is done already."""
        with self._lock:
            state = self._look().after
            if state not in RETRIABLE:
                raise Conflict(f"Job {self.id} is {state.value}; only jobs that did not succeed are retried.", 409)
            self._start(fresh, "Somebody asked to try it again.")
        return self.view()

    def result(self, timeout: float | None = None) -> Run:
        """Waits for the job and returns its run, as `treadle.run` does."""
        view = self.wait(timeout)
        assert view.run is not None
        return load_run(view.root, view.run)

    def _repr_html_(self) -> str:
        """The job in a notebook: state, stages, and the leaderboard when it is done."""
        stages = {one.data["stage"]: one.data["event"] for one in self.events(follow=False) if one.kind == "stage"}
        view = self.view()
        manifest = self.result().manifest if view.state is State.SUCCEEDED else None
        return job_html(view, list(stages.items()), manifest)
