"""Bins of rows on a device; see `treadle.kernels.binning`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda

from treadle.kernels.binning import Bins
from treadle.kernels.cuda.arrays import DeviceRows, Work, blocks_for, threads_for, upload
from treadle.kernels.forest import ZERO_BOUND, Forest


@dataclass(frozen=True, eq=False)
class DeviceBins:
    """What `Bins` has, on a device; `numeric_features` and `coded_features` are on the host."""

    bins: Bins
    kind: Any
    cuts: Any
    cut_start: Any
    numeric: Any
    coded: Any
    tables: Any
    numeric_features: tuple[int, ...]
    coded_features: tuple[int, ...]

    def stride(self, rows: int) -> int:
        """The length of a column of so many rows: whole cache lines of bytes."""
        return -(-rows // 128) * 128


def upload_bins(forest: Forest, bins: Bins) -> DeviceBins:
    return DeviceBins(
        bins=bins,
        kind=forest.dtype.type,
        cuts=upload(forest.cuts),
        cut_start=upload(forest.cut_start),
        numeric=upload(bins.numeric),
        coded=upload(bins.coded),
        tables=upload(bins.tables),
        numeric_features=tuple(bins.numeric[:, 0].tolist()),
        coded_features=tuple(bins.coded[:, 0].tolist()),
    )


def bin_on_device(device: DeviceBins, rows: DeviceRows, work: Work) -> Any:
    """Bins of rows: device array (columns * stride,), one column after the other."""
    stride = device.stride(len(rows))
    out = work.empty(max(1, device.bins.columns * stride), device.bins.dtype)
    threads = threads_for(len(rows))
    across = blocks_for(len(rows), threads)
    numeric, coded = _numeric_kernel(device.kind), _coded_kernel(device.kind)
    for kernel, features, table, rest in (
        (numeric, device.numeric_features, device.numeric, (device.cuts, device.cut_start)),
        (coded, device.coded_features, device.coded, (device.tables,)),
    ):
        if rows.is_matrix:
            launches = [(rows.parts[0], 0, 0, len(features))] if features else []
        else:
            launches = [(rows.parts[f], f, i, 1) for i, f in enumerate(features)]
        for part, first, begin, count in launches:
            kernel[(across, count), threads, work.stream](part, first, table, begin, *rest, stride, out)
    return out


@functools.cache
def _numeric_kernel(kind: Any) -> Any:
    """A kernel for forests that compare in `kind`; its grid is (blocks of rows, numeric features)."""

    @cuda.jit(cache=True)
    def bin_numeric(matrix, first_feature, numeric, begin, cuts, cut_start, stride, out):  # type: ignore[no-untyped-def]
        entry = begin + cuda.blockIdx.y
        feature = numeric[entry, 0]
        low, high, missing = numeric[entry, 3], numeric[entry, 4], numeric[entry, 5]
        count, zero = numeric[entry, 6], numeric[entry, 7]
        start = cut_start[feature]
        for r in range(cuda.grid(1), matrix.shape[0], cuda.gridDim.x * cuda.blockDim.x):
            x = kind(matrix[r, feature - first_feature])
            if zero != 0 and abs(x) <= ZERO_BOUND:
                x = kind(np.nan)
            # How many cuts are at or below x; a comparison with NaN is false.
            left, right = 0, count
            while left < right:
                middle = (left + right) // 2
                if cuts[start + middle] <= x:
                    left = middle + 1
                else:
                    right = middle
            if low >= 0:
                out[low * stride + r] = left
            if high >= 0:
                out[high * stride + r] = count if x != x else left
            if missing >= 0:
                out[missing * stride + r] = 1 if x != x else 0

    return bin_numeric


@functools.cache
def _coded_kernel(kind: Any) -> Any:
    """As `_numeric_kernel`, for columns of categorical features."""

    @cuda.jit(cache=True)
    def bin_coded(matrix, first_feature, coded, begin, tables, stride, out):  # type: ignore[no-untyped-def]
        entry = begin + cuda.blockIdx.y
        feature, codes, start, column = coded[entry, 0], coded[entry, 1], coded[entry, 2], coded[entry, 3]
        for r in range(cuda.grid(1), matrix.shape[0], cuda.gridDim.x * cuda.blockDim.x):
            x = kind(matrix[r, feature - first_feature])
            code = codes
            if x != x:
                code = codes + 1
            elif x >= 0 and x < codes:
                code = np.int64(x)
            out[column * stride + r] = tables[start + code]

    return bin_coded
