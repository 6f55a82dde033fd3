"""Runs `test_device.py` in Numba's CUDA simulator, in a process of its own: it is chosen when Numba is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).with_name("test_device.py")
ROOT = TESTS.resolve().parents[3]


def test_kernels_for_devices_in_the_simulator() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "-p",
            "no:cacheprovider",
            "tests/kernels/cuda/test_device.py",
        ],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    # None was skipped: the simulator does what they need.
    assert re.search(r"^\d\d passed in", done.stdout, re.MULTILINE), done.stdout[-2000:]
