"""The nursery: a process that has loaded the libraries once, and is copied for every driver.

Importing Dask, XGBoost and scikit-learn takes seconds of a core; a copy has them at once. The nursery starts nothing
else: it runs one thread, opens no connection and touches no GPU, so that a copy is as good as a new process. Copies
are leaders of their own sessions, and live on when the nursery or the service dies. (The standard library's
forkserver is not used, because a process that has started some waits for all of them before it ends.)

Each request is one message on a socket, with the descriptor of a file in memory that holds the arguments, which may be
longer than a message, and that of what gets the copy's output when it is to go elsewhere than into the log. Answers
are {"request": n, "pid": p}, and {"pid": p, "status": s} when a copy has ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, NoReturn

from treadle.cluster.private import private
from treadle.errors import TreadleError

LIBRARIES = (
    "treadle.jobs.runner",
    "treadle.cluster.remote",
    "treadle.cluster.probe",
    "distributed",
    "deltalake",
    "pyarrow.parquet",
    "pandas",
    "numba",
    "xgboost",
    "sklearn.linear_model",
    "sklearn.ensemble",
    "sklearn.neural_network",
    "distributed.protocol.arrow",
    "tornado.platform.asyncio",
    "treadle.jobs.explaining",
    "treadle.jobs.service.driver",
)
TASKS = {
    "drive": "treadle.jobs.service.driver:drive",  # the service limits its time
    "free": "treadle.jobs.service.upkeep:free",
    "look": "treadle.jobs.service.upkeep:look",
    "plan": "treadle.jobs.service.reading:plan",
    "rows": "treadle.jobs.service.reading:rows",
}
"""What a copy may be asked to do: functions of texts and numbers, which return an exit status."""
SECONDS = {"free": 60, "look": 30, "plan": 120, "rows": 3600}
"""After which a copy that answers a request is ended by the system: it may hang on a file that never answers."""
MESSAGE = 2**16
CHUNK = 2**18
START_SECONDS = 120.0
MORE_LIKELY_KILLED = "300"
"""When memory runs out, the system kills a driver rather than the service."""


def main(descriptor: int) -> None:
    """Loads the libraries, and makes copies until the service closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the service
    wakes, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    prepare()
    connection = socket.socket(fileno=descriptor)
    connection.send(json.dumps({"ready": True}).encode())
    while True:
        readable, _, _ = select.select([connection.fileno(), wakes], [], [])
        if wakes in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wakes, 4096)
            _reap(connection)
        if connection.fileno() in readable:
            text, descriptors, _, _ = socket.recv_fds(connection, MESSAGE, 2)
            if not text:
                return
            request = json.loads(text)
            pid = _copy(request, descriptors, (connection.fileno(), wakes, woken))
            for received in descriptors:
                os.close(received)
            connection.send(json.dumps({"request": request["request"], "pid": pid}).encode())


def prepare() -> None:
    """Loads what drivers need, and has it remember what it finds out once in a process."""
    for name in LIBRARIES:
        importlib.import_module(name)
    from treadle.cluster.agreement import installed
    from treadle.engine.warmup import set_up

    installed()
    set_up()


def _reap(connection: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        connection.send(json.dumps({"pid": pid, "status": status}).encode())


def _copy(request: Mapping[str, Any], descriptors: Sequence[int], ours: Sequence[int]) -> int:
    pid = os.fork()
    if pid == 0:
        _live(request, descriptors, ours)
    return pid


def _live(request: Mapping[str, Any], descriptors: Sequence[int], ours: Sequence[int]) -> NoReturn:
    """The copy's life: its own session and output, none of the nursery's descriptors and signal handlers."""
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(SECONDS.get(request["task"], 0))
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(MORE_LIKELY_KILLED)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(descriptors[1] if len(descriptors) > 1 else log, 1)
        os.dup2(log, 2)
        for descriptor in ours:
            os.close(descriptor)
        with open(descriptors[0], "rb") as file:
            arguments = json.load(file)
        module, _, name = TASKS[request["task"]].partition(":")
        status = getattr(importlib.import_module(module), name)(*arguments)
        sys.stdout.flush()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


class Nursery:
    """The service's end. Started when the first copy is wanted, and again when it has died."""

    def __init__(self, log: Path, on_end: Callable[[int, int], None]) -> None:
        self._log = log
        self._on_end = on_end
        """Called on another thread with the process id and wait status of each copy that ended."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._answers: dict[int, int] = {}
        self._answered = threading.Condition()
        self._requests = 0

    def start(self, task: str, *arguments: str | float | None, log: Path, output: int | None = None) -> int:
        """Starts a copy that does `task`, and tells its process id.

        Raises
        ------
        TreadleError
            The nursery does not start, or died of the request.
        """
        with self._lock:
            connection = self._living()
            self._requests += 1
            number = self._requests
            request = {"request": number, "task": task, "log": str(log)}
            try:
                with open(os.memfd_create("arguments"), "r+b") as file:
                    file.write(json.dumps(arguments).encode())
                    file.seek(0)
                    descriptors = [file.fileno(), *([] if output is None else [output])]
                    socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
            except OSError as error:
                raise TreadleError(f"The parent of the drivers died ({error}); {self._log} may say why.") from error
        with self._answered:
            done = self._answered.wait_for(
                lambda: number in self._answers or self._connection is not connection, START_SECONDS
            )
            if not done or number not in self._answers:
                raise TreadleError(f"The parent of the drivers does not answer; {self._log} may say why.")
            return self._answers.pop(number)

    def read(self, task: str, *arguments: str | float | None) -> BufferedReader[FileIO]:
        """Starts a copy as `start` does, and gives what it prints; its errors go into the nursery's log."""
        reading, writing = os.pipe()
        output = BufferedReader(FileIO(reading, "rb"), CHUNK)
        try:
            self.start(task, *arguments, log=self._log, output=writing)
        except BaseException:
            output.close()
            raise
        finally:
            os.close(writing)
        return output

    def close(self) -> None:
        """Ends the nursery; copies live on."""
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
            if self._process is not None:
                self._process.wait()

    def _living(self) -> socket.socket:
        if self._connection is not None and self._process is not None and self._process.poll() is None:
            return self._connection
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, open(self._log, "ab", opener=private) as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({theirs.fileno()})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ours.settimeout(START_SECONDS)
        try:
            ready = ours.recv(MESSAGE)
        except TimeoutError:
            ready = b""
        if not ready:
            self._process.kill()
            raise TreadleError(f"The parent of the drivers did not start; {self._log} says why.")
        ours.settimeout(None)
        self._connection = ours
        threading.Thread(target=self._listen, args=(ours,), name="nursery", daemon=True).start()
        return ours

    def _listen(self, connection: socket.socket) -> None:
        with connection:
            while text := self._received(connection):
                said = json.loads(text)
                if "status" in said:
                    self._on_end(said["pid"], said["status"])
                    continue
                with self._answered:
                    self._answers[said["request"]] = said["pid"]
                    self._answered.notify_all()
        with self._answered:
            if self._connection is connection:
                self._connection = None
            self._answered.notify_all()

    @staticmethod
    def _received(connection: socket.socket) -> bytes:
        try:
            return connection.recv(MESSAGE)
        except OSError:
            return b""
