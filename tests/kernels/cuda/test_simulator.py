"""Runs the tests of kernels for devices in Numba's CUDA simulator, which is chosen when Numba is imported.

So each file has a process of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("test_device.py", "gpu and not slow"),
        pytest.param("test_device.py", "gpu and slow", marks=pytest.mark.slow),
        pytest.param("test_device_sums.py", "gpu", marks=pytest.mark.slow),
    ],
)
def test_kernels_for_devices_in_the_simulator(name: str, chosen: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", chosen, "-p", "no:cacheprovider", f"tests/kernels/cuda/{name}"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    # None was skipped: the simulator does what they need.
    assert re.search(r"^\d+ passed(, \d+ deselected)? in", done.stdout, re.MULTILINE), done.stdout[-2000:]
