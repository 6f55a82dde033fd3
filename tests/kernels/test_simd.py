"""Explicit vectors: every operation against NumPy, and that they are vectors in the machine code."""

from __future__ import annotations

import platform
import re
from typing import Any

import numba
import numpy as np
import pytest
from numba import types
from numba.core.errors import TypingError

from treadle.kernels import lookup, predict
from treadle.kernels.simd import aligned, count, fma, join, load, select, splat, store, turned

LANES = 16
x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")


@numba.njit
def arithmetic(a: Any, b: Any, out: Any) -> None:
    x, y = load(a, 0, LANES), load(b, 0, LANES)
    store(out, 0, x + y)
    store(out, LANES, x - y)
    store(out, 2 * LANES, x * y)


@numba.njit
def comparisons(a: Any, b: Any, out: Any) -> None:
    x, y = load(a, 0, LANES), load(b, 0, LANES)
    one, zero = splat(np.uint8(1), LANES), splat(np.uint8(0), LANES)
    store(out, 0, select(x > y, one, zero))
    store(out, LANES, select(x <= y, one, zero))


def operands(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 12, LANES).astype(dtype) for _ in range(2))
    b[:4] = a[:4]
    if np.dtype(dtype).kind == "f":
        a[5], b[6], a[7], b[7] = np.nan, np.nan, np.inf, np.inf
    elif np.dtype(dtype).kind == "u":
        a[5] = np.iinfo(dtype).max
    else:
        a[5] = -3
    return a, b


DTYPES = [np.uint8, np.uint16, np.uint32, np.int64, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_operators_are_those_of_numpy(dtype: Any) -> None:
    a, b = operands(dtype)
    out = np.empty(3 * LANES, dtype)
    arithmetic(a, b, out)
    with np.errstate(all="ignore"):
        expected = np.concatenate([a + b, a - b, a * b])
    np.testing.assert_array_equal(out, expected)
    flags = np.empty(2 * LANES, np.uint8)
    comparisons(a, b, flags)
    # Comparisons with NaN are false, as in NumPy.
    np.testing.assert_array_equal(flags, np.concatenate([a > b, a <= b]))


@numba.njit
def others(a: Any, b: Any, out: Any) -> int:
    x, y = load(a, 0, LANES), load(b, 0, LANES)
    store(out, 0, fma(x, y, splat(np.float32(0.5), LANES)))
    store(out, LANES, join(load(a, 0, 8), load(b, 8, 8)))
    return count(x > y)


def test_the_other_operations() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, LANES)).astype(np.float32)
    out = np.empty(2 * LANES, np.float32)
    assert others(a, b, out) == (a > b).sum()
    np.testing.assert_allclose(out[:LANES], a.astype(float) * b + 0.5, rtol=1e-6)
    np.testing.assert_array_equal(out[LANES:], np.concatenate([a[:8], b[8:]]))


@numba.njit
def turn(a: Any, out: Any) -> None:
    v = turned(
        (
            load(a, 0, LANES),
            load(a, LANES, LANES),
            load(a, 2 * LANES, LANES),
            load(a, 3 * LANES, LANES),
            load(a, 4 * LANES, LANES),
            load(a, 5 * LANES, LANES),
            load(a, 6 * LANES, LANES),
            load(a, 7 * LANES, LANES),
        )
    )
    store(out, 0, v[0])
    store(out, LANES, v[1])
    store(out, 2 * LANES, v[2])
    store(out, 3 * LANES, v[3])
    store(out, 4 * LANES, v[4])
    store(out, 5 * LANES, v[5])
    store(out, 6 * LANES, v[6])
    store(out, 7 * LANES, v[7])


def test_turning_transposes_both_halves() -> None:
    a = np.arange(8 * LANES, dtype=np.float32)
    out = np.empty_like(a)
    turn(a, out)
    square, found = a.reshape(8, LANES), out.reshape(8, LANES)
    np.testing.assert_array_equal(found[:, :8], square[:, :8].T)
    np.testing.assert_array_equal(found[:, 8:], square[:, 8:].T)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_aligned_arrays_begin_at_a_cache_line(size: int) -> None:
    for _ in range(5):
        array = aligned(size, np.float32)
        assert (len(array), array.dtype, array.ctypes.data % 64) == (size, np.float32, 0)


def test_what_is_no_vector_is_refused() -> None:
    @numba.njit
    def strided(a: Any) -> None:
        store(a, 0, load(a, 0, 8))

    with pytest.raises(TypingError, match="contiguous one-dimensional arrays"):
        strided(np.zeros((4, 4), np.float32))
    with pytest.raises(TypingError, match="does not go into"):
        numba.njit(lambda a, b: store(a, 0, load(b, 0, 8)))(np.zeros(8, np.float32), np.zeros(8, np.uint8))


def assembly(function: Any, *signature: Any) -> str:
    """Machine code of a kernel, compiled anew: that of a cached one cannot be read."""
    fresh = numba.njit(nogil=True)(function.py_func)
    fresh.compile(signature)
    return str(fresh.inspect_asm(fresh.signatures[0]))


i64, bins = types.int64, types.Array(types.uint8, 1, "C")


def row(dtype: Any) -> Any:
    return types.Array(dtype, 1, "C")


@x86
def test_the_inner_loops_are_vector_code() -> None:
    """Comparisons of bytes and sums of floats in wide registers, and no call into a helper from within."""
    offset, ranks = row(types.int64), row(types.uint8)
    tree = assembly(predict._perfect_tree, offset, ranks, i64, bins, i64, bins)
    condition = types.Tuple((row(types.int32), bins, bins, row(types.uint16)))
    table = [row(i64), condition, row(i64), row(types.float32), types.Array(i64, 2, "C"), bins, i64, row(types.float32)]
    out = types.Array(types.float64, 3, "C")
    dense = assembly(lookup.add_dense_16, *table, out, row(i64))
    wide = r"%[yz]mm\d+" if "+avx2" in numba.core.codegen.get_host_cpu_features() else r"%xmm\d+"
    assert len(re.findall(rf"vpcmp\w*ub?\s.*{wide}|pcmp.*{wide}|pmaxub.*{wide}|pminub.*{wide}", tree)) >= 7
    assert re.search(rf"addps\s.*{wide}", dense)
    assert re.search(rf"paddw\s.*{wide}", dense)
