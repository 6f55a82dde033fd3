"""LightGBM's network, over connections of ours.

LightGBM can exchange its histograms over sockets of its own, or by two functions that it is given
(`LGBM_NetworkInitWithFunctions` of its C API): these are such functions. Its own sockets listen at all addresses
of a host and believe whoever connects; a stray connection ends the process (LightGBM 4.7.0: an exception on a
thread of its own), and so does one that does not come in time.

What is summed is summed in the order of the tasks, so that a model repeats to the last bit.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from treadle.engine.mesh import Mesh

_SIZE = ctypes.c_int32
"""`comm_size_t`"""
_SIZES = ctypes.POINTER(_SIZE)
_REDUCE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, _SIZE)
_REDUCE_SCATTER = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,  # input
    _SIZE,
    ctypes.c_int,  # bytes of a value
    _SIZES,  # where the blocks of the input start
    _SIZES,  # and how long they are
    ctypes.c_int,
    ctypes.c_void_p,  # output
    _SIZE,
    ctypes.c_void_p,  # a reference to what adds one block to another
)
_ALLGATHER = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, _SIZE, _SIZES, _SIZES, ctypes.c_int, ctypes.c_void_p, _SIZE
)  # fmt: skip


class Network:
    """What LightGBM calls, on the thread that trains.

    No exception can pass through LightGBM. The first is kept, this and all later exchanges give zeros, of which
    LightGBM makes trees without a split, and `check` raises it when the round has ended.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.error: BaseException | None = None
        self._mesh = mesh
        self._buffer = ctypes.create_string_buffer(0)
        # Kept as long as LightGBM may call them.
        self.reduce_scatter = _REDUCE_SCATTER(self._reduce_scatter)
        self.allgather = _ALLGATHER(self._allgather)

    def check(self) -> None:
        """Raises what went wrong in an exchange, if anything did."""
        if self.error is not None:
            raise self.error

    def _reduce_scatter(
        self,
        source: int,
        _source_size: int,
        value_size: int,
        starts: Any,
        lengths: Any,
        count: int,
        target: int,
        _target_size: int,
        reducer: int,
    ) -> None:
        """Of the blocks, one for each task, the task's own summed over all tasks."""
        mesh, sizes = self._mesh, lengths[:count]
        own = sizes[mesh.rank]
        if len(self._buffer) < own * count:
            self._buffer = ctypes.create_string_buffer(own * count)

        def work() -> None:
            base = ctypes.addressof(self._buffer)
            places = [base + rank * own for rank in range(count)]
            places[mesh.rank] = source + starts[mesh.rank]
            mesh.exchange(
                [_view(source + start, size) for start, size in zip(starts[:count], sizes, strict=True)],
                [_view(place, own) for place in places],
            )
            add = _REDUCE(ctypes.c_void_p.from_address(reducer).value or 0)
            ctypes.memmove(target, places[0], own)
            for place in places[1:]:
                add(place, target, value_size, own)

        self._guarded(work, target, own)

    def _allgather(
        self, source: int, _source_size: int, starts: Any, lengths: Any, count: int, target: int, _target_size: int
    ) -> None:
        """The blocks of all tasks."""
        mesh, sizes = self._mesh, lengths[:count]

        def work() -> None:
            # Source and target may be the same.
            block = ctypes.string_at(source, sizes[mesh.rank])
            ctypes.memmove(target + starts[mesh.rank], block, len(block))
            mesh.exchange(
                [memoryview(block)] * count,
                [_view(target + start, size) for start, size in zip(starts[:count], sizes, strict=True)],
            )

        self._guarded(work, target, max(start + size for start, size in zip(starts[:count], sizes, strict=True)))

    def _guarded(self, work: Callable[[], None], target: int, size: int) -> None:
        if self.error is None:
            try:
                work()
                return
            except BaseException as error:
                self.error = error
        ctypes.memset(target, 0, size)


def _view(address: int, size: int) -> memoryview:
    if not size:
        return memoryview(b"")
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


@contextlib.contextmanager
def connected(mesh: Mesh) -> Iterator[Network]:
    """Lets LightGBM train together with the other tasks, on this thread and in this block only."""
    from lightgbm import basic

    library, safe = basic._LIB, basic._safe_call  # type: ignore[attr-defined]
    network = Network(mesh)
    safe(
        library.LGBM_NetworkInitWithFunctions(
            ctypes.c_int(mesh.size), ctypes.c_int(mesh.rank), network.reduce_scatter, network.allgather
        )
    )
    try:
        yield network
    finally:
        safe(library.LGBM_NetworkFree())
