"""Tasks of a training that hold connections to each other, one from each to each, and exchange bytes over them.

A task listens at its worker's own address, loopback on a local cluster, on a port that the system finds free.
Who connects must know the training's secret. The loss of a task is an error in all others at once.
"""

from __future__ import annotations

import contextlib
import hmac
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LOOK_SECONDS = 1.0
"""Between looks whether the task was cancelled."""
MEET_SECONDS = 120.0
"""For all tasks to begin: workers may have others to end before. As long a listener waits for its task."""
HELLO_SECONDS = 5.0
"""For whoever connects to say who it is."""
SILENT_SECONDS, PROBE_SECONDS, PROBES = 20, 10, 4
"""A host that is gone without a word is noticed after a minute, by probes of the connection."""
RANK = struct.Struct("!I")
Address = tuple[str, int]
"""Host and port."""
_listeners: dict[Address, socket.socket] = {}
"""In a worker's process: those that wait for their tasks."""


@dataclass(frozen=True)
class Meeting:
    """How the tasks of a training find each other: the secret, and where each listens, by rank."""

    secret: bytes
    addresses: tuple[Address, ...]


class Mesh:
    """The connections of one task, to be used by one thread.

    Parameters
    ----------
    peers : connections by rank.
    look : called now and then while the task waits; ends the exchange by raising.
    """

    def __init__(self, rank: int, peers: dict[int, socket.socket], look: Callable[[], None]) -> None:
        self.rank = rank
        self.size = len(peers) + 1
        self._peers = peers
        self._look = look
        self._looked = time.monotonic()

    def exchange(self, outgoing: Sequence[memoryview], incoming: Sequence[memoryview]) -> None:
        """Sends a buffer to every other task while it fills one from each; by rank, the task's own are left alone.

        Buffers are of bytes; each is as long as the one that it is sent from or received into over there.

        Raises
        ------
        ConnectionError
            Another task is gone.
        """
        left = {rank: (outgoing[rank], incoming[rank]) for rank in self._peers}
        with selectors.DefaultSelector() as selector:
            for rank, peer in self._peers.items():
                if events := _events(*left[rank]):
                    selector.register(peer, events, rank)
            while selector.get_map():
                for key, ready in selector.select(LOOK_SECONDS):
                    rank, peer = key.data, self._peers[key.data]
                    left[rank] = self._moved(rank, peer, ready, *left[rank])
                    if not (events := _events(*left[rank])):
                        selector.unregister(peer)
                    elif events != key.events:
                        selector.modify(peer, events, rank)
                self._look_again()

    def gather(self, block: bytes) -> list[bytes]:
        """The blocks of all tasks, by rank, which are equally long."""
        found = [bytearray(len(block)) for _ in range(self.size)]
        found[self.rank][:] = block
        self.exchange([memoryview(block)] * self.size, [memoryview(one) for one in found])
        return [bytes(one) for one in found]

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()

    @staticmethod
    def _moved(
        rank: int, peer: socket.socket, ready: int, out: memoryview, into: memoryview
    ) -> tuple[memoryview, memoryview]:
        """What is left to send and to receive."""
        with contextlib.suppress(BlockingIOError):
            if ready & selectors.EVENT_READ:
                count = peer.recv_into(into)
                if not count:
                    raise ConnectionResetError(f"task {rank} of the training closed its connection")
                into = into[count:]
            if ready & selectors.EVENT_WRITE:
                out = out[peer.send(out) :]
        return out, into

    def _look_again(self) -> None:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
            self._looked = time.monotonic()


def _events(out: memoryview, into: memoryview) -> int:
    return (selectors.EVENT_WRITE if len(out) else 0) | (selectors.EVENT_READ if len(into) else 0)


def listen(tasks: int) -> Address:
    """On a worker: opens a port for a task of a training of so many, which is to come soon; where it is."""
    from distributed import get_worker
    from distributed.comm.addressing import get_address_host

    host = get_address_host(get_worker().address)
    listener = socket.create_server(
        (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=max(tasks, 8)
    )
    address: Address = (host, listener.getsockname()[1])
    _listeners[address] = listener
    # A training that is broken off before its task begins leaves no port open.
    timer = threading.Timer(MEET_SECONDS, _forget, [address])
    timer.daemon = True
    timer.start()
    return address


def _forget(address: Address) -> None:
    if listener := _listeners.pop(address, None):
        listener.close()


def meet(meeting: Meeting, rank: int, look: Callable[[], None]) -> Mesh:
    """Of a task on the worker where `listen` was called: its connections to all others.

    Raises
    ------
    ConnectionError
        Another task, or this one's port, is gone, or some did not come in time.
    """
    listener = _listeners.pop(meeting.addresses[rank], None)
    if listener is None:
        raise ConnectionAbortedError("the port of this task is gone; its worker was started again, or it came too late")
    peers: dict[int, socket.socket] = {}
    try:
        with listener:
            for other, address in enumerate(meeting.addresses[:rank]):
                # The system accepts for a task that has not begun.
                peers[other] = socket.create_connection(address, MEET_SECONDS)
                peers[other].sendall(meeting.secret + RANK.pack(rank))
            _accept(listener, meeting, rank, peers, look)
        for peer in peers.values():
            _prepare(peer)
    except BaseException:
        for peer in peers.values():
            peer.close()
        raise
    return Mesh(rank, peers, look)


def _accept(
    listener: socket.socket, meeting: Meeting, rank: int, peers: dict[int, socket.socket], look: Callable[[], None]
) -> None:
    """Takes in the tasks of higher ranks; whoever does not know the secret is turned away."""
    end = time.monotonic() + MEET_SECONDS
    listener.settimeout(LOOK_SECONDS)
    while len(peers) < len(meeting.addresses) - 1:
        look()
        if time.monotonic() > end:
            raise ConnectionError(
                f"no connection from {len(meeting.addresses) - 1 - len(peers)} tasks of the training after "
                f"{MEET_SECONDS:.0f} s"
            )
        try:
            peer, _ = listener.accept()
        except TimeoutError:
            continue
        other = _rank_of(peer, meeting.secret)
        if other is not None and rank < other < len(meeting.addresses) and other not in peers:
            peers[other] = peer
        else:
            peer.close()


def _rank_of(peer: socket.socket, secret: bytes) -> int | None:
    """The rank that a connection tells, with the secret; None where it does not."""
    peer.settimeout(HELLO_SECONDS)
    told = b""
    with contextlib.suppress(OSError):
        while len(told) < len(secret) + RANK.size:
            more = peer.recv(len(secret) + RANK.size - len(told))
            if not more:
                return None
            told += more
        if hmac.compare_digest(told[: len(secret)], secret):
            rank: int = RANK.unpack(told[len(secret) :])[0]
            return rank
    return None


def _prepare(peer: socket.socket) -> None:
    peer.setblocking(False)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", SILENT_SECONDS), ("TCP_KEEPINTVL", PROBE_SECONDS), ("TCP_KEEPCNT", PROBES)):
        option: Any = getattr(socket, name, None)  # not on every system
        if option is not None:
            peer.setsockopt(socket.IPPROTO_TCP, option, value)
