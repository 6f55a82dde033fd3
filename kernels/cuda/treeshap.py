"""Exact Shapley values on a device, by the tables and walks of a `treadle.kernels.treeshap.TreeExplainer`."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from treadle.kernels.cuda.arrays import DeviceRows, Work, as_device_rows, blocks_for, result, threads_for, upload
from treadle.kernels.cuda.binning import bin_on_device
from treadle.kernels.cuda.lookup import DeviceLookup, add_lookup, upload_lookup
from treadle.kernels.cuda.quadrature import DeviceWalks, add_walks, upload_walks

if TYPE_CHECKING:
    from treadle.kernels.plan import Tabled
    from treadle.kernels.treeshap import TreeExplainer

BLOCK_BYTES = 256 * 2**20
"""Bins and float64 sums of the rows that are worked on together."""


@dataclass(frozen=True, eq=False)
class DevicePlan:
    lookup: DeviceLookup | None
    walks: DeviceWalks | None
    features: Any
    """On the device: the features that trees split on; the accumulators' rows."""


class DeviceExplainer:
    """The values of an explainer's forest on the current device; results stay there.

    Trees that have no tables and need them, for interactions or a background, are left to the host.
    """

    def __init__(self, explainer: TreeExplainer) -> None:
        self.explainer = explainer
        self.forest = explainer.forest

    def shap_values(self, rows: Any, dtype: Any = np.float64, work: Work | None = None) -> Any:
        """As `TreeExplainer.shap_values`, of rows on the device: a device array."""
        f = self.forest
        given = as_device_rows(f, rows)
        returned, values = self._result(len(given), (f.n_features + 1,), dtype)
        if not len(given):
            return returned
        if self._values is None:
            values.copy_to_device(self.explainer.shap_values(_to_host(given), dtype).reshape(values.shape))
        else:
            self._explain(self._values, given, values, work or Work())
        return returned

    def interaction_values(self, rows: Any) -> Any:
        """As `TreeExplainer.interaction_values`, of rows on the device: a float64 device array."""
        f = self.forest
        given = as_device_rows(f, rows)
        returned, values = self._result(len(given), (f.n_features + 1, f.n_features + 1), np.float64)
        if not len(given):
            return returned
        if self._pairs is None:
            values.copy_to_device(self.explainer.interaction_values(_to_host(given)).reshape(values.shape))
        else:
            self._interact(given, values, Work())
        return returned

    def stream_values(self, blocks: Iterable[NDArray[Any]], dtype: Any = np.float32) -> Iterator[NDArray[Any]]:
        """Values of blocks of rows on the host, one after the other, as host arrays.

        Two blocks are under way at a time, each in a stream of its own, so that copies to and from the
        device overlap with the computation.
        """
        waiting: deque[_Lane] = deque()
        free = [_Lane(self, dtype), _Lane(self, dtype)]
        for block in blocks:
            if not free:
                lane = waiting.popleft()
                yield lane.take()
                free.append(lane)
            lane = free.pop()
            lane.start(block)
            waiting.append(lane)
        while waiting:
            yield waiting.popleft().take()

    def _result(self, rows: int, last: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
        """What the caller gets, without the axis of a single output; and the array with it."""
        outputs = self.forest.n_outputs
        returned, values = result((rows, *last) if outputs == 1 else (rows, outputs, *last), dtype)
        return returned, values.reshape(rows, outputs, *last)

    @functools.cached_property
    def _values(self) -> DevicePlan | None:
        """None: the host has to do it."""
        explainer = self.explainer
        rest, tabled = explainer.tabled
        walks = None
        if rest.any():
            if explainer.background is not None:
                return None
            walks = upload_walks(self.forest, explainer.shape, explainer.walks)
        return DevicePlan(self._lookup(tabled, len(explainer.features)), walks, upload(explainer.features))

    @functools.cached_property
    def _pairs(self) -> DevicePlan | None:
        rest, tabled = self.explainer.tabled_pairs
        if rest.any():
            return None
        used = len(self.explainer.features)
        return DevicePlan(self._lookup(tabled, used * used), None, upload(np.arange(used * used)))

    def _lookup(self, tabled: Tabled | None, targets: int) -> DeviceLookup | None:
        if tabled is None:
            return None
        return upload_lookup(self.forest, tabled.groups, tabled.tables, tabled.tree, targets)

    @functools.cached_property
    def _expected(self) -> Any:
        return upload(np.broadcast_to(self.explainer.expected, (self.forest.n_outputs,)))

    def _explain(self, plan: DevicePlan, given: DeviceRows, values: Any, work: Work) -> None:
        block = self._block_rows(plan, values[:1].size)
        for first in range(0, len(given), block):
            part = given.block(first, min(first + block, len(given)))
            out = values[first : first + len(part)]
            sums = out if out.dtype == np.float64 else work.empty(out.shape, np.float64)
            fill_bias[*_shape(len(part)), work.stream](sums, self._expected)
            self._add(plan, part, sums, work)
            if sums is not out:
                convert[*_shape(len(part)), work.stream](sums, out)

    def _interact(self, given: DeviceRows, values: Any, work: Work) -> None:
        f, used = self.forest, len(self.explainer.features)
        slots = np.full(f.n_features + 1, -1, dtype=np.int64)
        slots[self.explainer.features] = np.arange(used)
        slot, zeros = upload(slots), upload(np.zeros(f.n_outputs))
        assert self._values is not None
        assert self._pairs is not None
        block = self._block_rows(self._pairs, f.n_outputs * max(1, used * used))
        for first in range(0, len(given), block):
            part = given.block(first, min(first + block, len(given)))
            singles = work.empty((len(part), f.n_outputs, f.n_features + 1), np.float64)
            self._explain(self._values, part, singles, work)
            pairs = work.empty((len(part), f.n_outputs, max(1, used * used)), np.float64)
            fill_bias[*_shape(len(part)), work.stream](pairs, zeros)
            self._add(self._pairs, part, pairs, work)
            out = values[first : first + len(part)]
            complete[*_shape(len(part)), work.stream](pairs, singles, slot, used, out)

    def _add(self, plan: DevicePlan, part: DeviceRows, sums: Any, work: Work) -> None:
        if plan.lookup is not None:
            add_lookup(plan.lookup, bin_on_device(plan.lookup.bins, part, work), len(part), plan.features, sums, work)
        if plan.walks is not None:
            add_walks(plan.walks, bin_on_device(plan.walks.bins, part, work), len(part), plan.features, sums, work)

    def _block_rows(self, plan: DevicePlan, numbers: int) -> int:
        """Rows of a block whose bins and `numbers` float64 a row fit into `BLOCK_BYTES`."""
        bins = [part.bins.bins for part in (plan.lookup, plan.walks) if part is not None]
        row = 8 * numbers + sum(b.columns * b.dtype.itemsize for b in bins)
        return int(max(1, BLOCK_BYTES // row))


class _Lane:
    """One of the streams of `stream_values`, with its pinned memory."""

    def __init__(self, explainer: DeviceExplainer, dtype: Any) -> None:
        self.explainer, self.dtype = explainer, dtype
        self.work = Work(cuda.stream())
        self.values: Any = None
        self.out: Any = None

    def start(self, block: NDArray[Any]) -> None:
        given = cuda.pinned_array(block.shape, block.dtype)
        given[:] = block
        rows = cuda.to_device(given, stream=self.work.stream)
        values = self.explainer.shap_values(rows, self.dtype, self.work)
        self.out = cuda.pinned_array(values.shape, values.dtype)
        view = values if hasattr(values, "copy_to_host") else cuda.as_cuda_array(values, sync=False)
        view.copy_to_host(self.out, stream=self.work.stream)
        # Until the stream is done its memory is not anybody else's.
        self.values = (given, rows, values, view)

    def take(self) -> NDArray[Any]:
        self.work.wait()
        self.values = None
        return np.array(self.out)


def _shape(rows: int) -> tuple[int, int]:
    """Blocks and threads for one thread a row."""
    threads = threads_for(rows)
    return blocks_for(rows, threads), threads


def _to_host(given: DeviceRows) -> NDArray[Any]:
    parts = [part.copy_to_host() for part in given.parts]
    return parts[0] if given.is_matrix else np.concatenate(parts, axis=1)


@cuda.jit(cache=True)
def fill_bias(out, bias):  # type: ignore[no-untyped-def]
    """out (rows, outputs, columns): the bias (outputs,) in the last column, zero elsewhere."""
    last = out.shape[2] - 1
    for r in range(cuda.grid(1), out.shape[0], cuda.gridDim.x * cuda.blockDim.x):
        for o in range(out.shape[1]):
            for j in range(last):
                out[r, o, j] = 0.0
            out[r, o, last] = bias[o]


@cuda.jit(cache=True)
def convert(sums, out):  # type: ignore[no-untyped-def]
    """out = sums, of one shape with three axes."""
    for r in range(cuda.grid(1), out.shape[0], cuda.gridDim.x * cuda.blockDim.x):
        for o in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[r, o, j] = sums[r, o, j]


@cuda.jit(cache=True)
def complete(pairs, singles, slot, used, out):  # type: ignore[no-untyped-def]
    """out (rows, outputs, features + 1, features + 1) from the pairs i < j at i * used + j, and their diagonal."""
    size = out.shape[2]
    for r in range(cuda.grid(1), out.shape[0], cuda.gridDim.x * cuda.blockDim.x):
        for o in range(out.shape[1]):
            for i in range(size):
                total = 0.0
                for j in range(size):
                    a, b = slot[i], slot[j]
                    value = 0.0
                    if i != j and a >= 0 and b >= 0:
                        value = pairs[r, o, min(a, b) * used + max(a, b)]
                    out[r, o, i, j] = value
                    total += value
                out[r, o, i, i] = singles[r, o, i] - total
