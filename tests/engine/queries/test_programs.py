"""The tests of programs and of the stage `etl`, whose rows are held against slow references, with a device.

In a process of its own, because whether there is Numba's simulator in place of a GPU is decided when it starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from treadle.cluster.probe import ProbeFailed, ask

FOLDER = Path(__file__).parent.parent


def run_again(**environment: str) -> None:
    left_out = ("NUMBA_ENABLE_CUDASIM", "PYTEST_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    tests = [str(FOLDER / name) for name in ("test_etl.py", "test_program.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu", *tests],
        cwd=FOLDER.parent.parent,
        env={**inherited, "TREADLE_TEST_DEVICE": "cuda", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_programs_as_queries_of_polars() -> None:
    run_again(NUMBA_ENABLE_CUDASIM="1")


@pytest.mark.gpu
def test_programs_on_a_gpu() -> None:
    pytest.importorskip("cudf_polars", reason="cudf-polars is not installed: the extra gpu")
    try:
        ask("device")
    except ProbeFailed as error:
        pytest.skip(f"no GPU: {error}")
    run_again()
