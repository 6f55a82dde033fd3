"""Runs the tests of kernels for devices, and of what uses them, in Numba's CUDA simulator.

It is chosen when Numba is imported: each file has a process of its own.
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
    ("path", "chosen"),
    [
        ("kernels/cuda/test_device.py", "gpu and not slow"),
        pytest.param("kernels/cuda/test_device.py", "gpu and slow", marks=pytest.mark.slow),
        pytest.param("kernels/cuda/test_device_sums.py", "gpu", marks=pytest.mark.slow),
        pytest.param("engine/test_exact_on_devices.py", "gpu", marks=pytest.mark.slow),
    ],
)
def test_kernels_for_devices_in_the_simulator(path: str, chosen: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", chosen, "-p", "no:cacheprovider", f"tests/{path}"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    # None was skipped: the simulator does what they need.
    assert re.search(r"^\d+ passed(, \d+ deselected)? in", done.stdout, re.MULTILINE), done.stdout[-2000:]
