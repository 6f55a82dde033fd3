"""The machine code of the kernels for devices, compiled to PTX without one."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import pytest

from tests.kernels.cuda.kernels import kernels

pytestmark = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="numba-cuda is not installed, with which PTX is made"
)


@pytest.fixture(scope="module", params=[pytest.param((8, 0), marks=pytest.mark.slow), (9, 0)], ids=["sm_80", "sm_90"])
def ptx(request: pytest.FixtureRequest) -> tuple[str, dict[str, str]]:
    """The architecture, and the PTX of each kernel for it."""
    from numba import cuda

    major, minor = request.param

    def compiled(kernel: Any, types: Any) -> str:
        return str(cuda.compile_ptx(kernel.py_func, types, cc=(major, minor))[0])

    return f"sm_{major}{minor}", {name: compiled(*item) for name, item in kernels().items()}


def test_all_kernels_compile(ptx: tuple[str, dict[str, str]]) -> None:
    architecture, found = ptx
    assert len(found) > 20
    for name, text in found.items():
        assert f".target {architecture}" in text, name
        assert ".entry" in text, name
        assert "call.uni" not in text, f"{name}: a function was not inlined"


def test_lines_are_read_four_numbers_at_a_time(ptx: tuple[str, dict[str, str]]) -> None:
    for name, text in ptx[1].items():
        if name.startswith(("dense", "slotted")):
            assert "ld.shared.v4.f32" in text, name


def test_sums_stay_in_registers(ptx: tuple[str, dict[str, str]]) -> None:
    for name, text in ptx[1].items():
        # Only the walks have stacks, in local memory.
        assert ("__local_depot" in text) == name.startswith("walks"), name


def test_products_load_eight_numbers_for_sixteen(ptx: tuple[str, dict[str, str]]) -> None:
    found = [text for name, text in ptx[1].items() if name.startswith("products")]
    assert len(found) == 2
    for text in found:
        assert (text.count("fma.rn.f64"), text.count("ld.shared.f64")) == (16, 8)


def test_nothing_is_added_in_an_order_that_may_vary(ptx: tuple[str, dict[str, str]]) -> None:
    for name, text in ptx[1].items():
        assert not re.search(r"\b(atom|red)\.", text), name
