"""Every kernel for devices, with the types that it is launched with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from treadle.kernels.cuda.binning import _coded_kernel, _numeric_kernel
from treadle.kernels.cuda.logistic import find_bends, find_chances, find_slopes
from treadle.kernels.cuda.lookup import ROWS_A_THREAD, SLOTTED_ROWS, dense_kernel, slotted_kernel
from treadle.kernels.cuda.predict import add_trees
from treadle.kernels.cuda.quadrature import walk_kernel
from treadle.kernels.cuda.scatter import take_rows
from treadle.kernels.cuda.tiles import SIDES, add_columns, add_parts, products_kernel, take
from treadle.kernels.cuda.treeshap import complete, convert, fill_bias
from treadle.kernels.tables import NARROW, WIDE

i64 = types.int64


def array(kind: Any, axes: int = 1, layout: str = "C") -> types.Array:
    return types.Array(kind, axes, layout)


def kernels() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Kernel and signature by name."""
    long, single, double = (array(kind) for kind in (i64, types.float32, types.float64))
    found: dict[str, tuple[Any, tuple[Any, ...]]] = {}
    for bits, bins in ((8, array(types.uint8)), (16, array(types.uint16))):
        for kind in (np.float32, np.float64):
            name = f"{np.dtype(kind).name}_{bits}"
            cuts = array(types.float32 if kind is np.float32 else types.float64)
            rows = array(types.float32, 2, "A")
            found[f"numeric_{name}"] = _numeric_kernel(kind), (rows, i64, array(i64, 2), i64, cuts, long, i64, bins)
            found[f"coded_{name}"] = _coded_kernel(kind), (rows, i64, array(i64, 2), i64, bins, i64, bins)
        nodes = array(types.int32, 2)
        margin = array(types.float64, 2)
        found[f"trees_{bits}"] = add_trees, (nodes, double, long, i64, i64, bins, i64, types.float64, margin, i64)
        shared = (array(i64, 2), array(i64, 2), nodes, single, bins, i64, i64)
        out = array(types.float64, 3)
        for width in (NARROW, WIDE):
            found[f"dense_{width}_{bits}"] = dense_kernel(width, ROWS_A_THREAD[width]), (*shared, long, out)
        found[f"slotted_{bits}"] = slotted_kernel(SLOTTED_ROWS), (*shared, long, long, i64, i64, single, out)
        for levels in (8, 32):
            found[f"walks_{levels}_{bits}"] = (
                walk_kernel(levels),
                (array(i64, 2), array(i64, 2), nodes, nodes, single, bins, i64, i64, i64, long, i64, single, out),
            )
    sums = array(types.float64, 3)
    found["fill_bias"] = fill_bias, (sums, double)
    found["convert"] = convert, (sums, array(types.float32, 3))
    found["complete"] = complete, (sums, sums, long, i64, array(types.float64, 4))
    return found | sums_of_rows()


def sums_of_rows() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Those of the sums that models are solved from."""
    long, double = array(i64), array(types.float64)
    parts, table, rows = array(i64, 2), array(types.float64, 2), array(types.float32, 2, "A")
    columns = (rows, table, long, table, table, double)
    found: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "take": (take, (double, long, double)),
        "take_rows": (take_rows, (rows, table, long, table, table, double, table)),
        "add_parts": (add_parts, (table, long, i64, table)),
        "add_columns": (add_columns, (*columns, double, i64, parts, i64, i64, table)),
        "find_chances": (
            find_chances,
            (rows, double, long, double, i64, double, table, double, table, table, double, double),
        ),
        "find_slopes": (find_slopes, (double, long, double, table, i64, double)),
        "find_bends": (find_bends, (double, table, i64, i64, double)),
    }
    for side in SIDES:
        found[f"products_{side}"] = products_kernel(side), (*columns, double, i64, parts, i64, i64, table)
    return found
