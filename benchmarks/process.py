"""Work in a process of its own, and what it cost."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from treadle.errors import TreadleError

SAMPLED_SECONDS = 0.25


def measured(
    command: list[str], seconds: float | None = None, python: str = sys.executable, folder: Path | None = None
) -> dict[str, Any]:
    """Runs Python with these arguments, in a folder if one is given; it prints JSON as its last line.

    Returns that, with the wall and CPU seconds of the process and all that it started, and the most memory that
    they had together (resident bytes, sampled four times a second).

    Raises
    ------
    TreadleError
        It fails, or takes longer than so many seconds.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        [python, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    with ThreadPoolExecutor(1) as pool:
        peak = pool.submit(_peak, process)
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise TreadleError(f"python {' '.join(command)} was not done after {seconds:.0f} s") from None
    if process.returncode:
        raise TreadleError(f"python {' '.join(command)} failed:\n{stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = json.loads(stdout.strip().splitlines()[-1])
    found["process_wall_seconds"] = time.perf_counter() - started
    found["process_cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found["process_peak_bytes"] = peak.result()
    return found


def _peak(process: subprocess.Popen[str]) -> int:
    """The most memory of a process and its children until it ends."""
    most = 0
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            every = [root, *root.children(recursive=True)]
        except psutil.Error:
            break
        held = 0
        for one in every:
            with contextlib.suppress(psutil.Error):
                held += one.memory_info().rss
        most = max(most, held)
        time.sleep(SAMPLED_SECONDS)
    return most
