"""Frames over a library of our own making, which completes requests in any order that MPI allows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpitask.native import ffi, lib

NULL_REQUEST = 7
STATUS_BYTES = 24
ERROR, ERROR_IN_STATUS, ERROR_AT = 15, 17, 8
PEERS = [3, 5, 11]


class Library:
    """One rank's MPI. Messages match the receives of their sender in order; completions are shown when told to."""

    def __init__(self, handle_size: int) -> None:
        self.word = {4: "int32_t", 8: "uint64_t"}[handle_size]
        self.last = 100
        self.receives: dict[int, tuple[int, Any]] = {}  # request -> sender, buffer
        self.unmatched: dict[int, list[bytes]] = {peer: [] for peer in PEERS}
        self.matched: dict[int, bytes] = {}  # request -> message that is still under way
        self.shown: dict[int, int] = {}  # request -> size
        self.sends: dict[int, tuple[int, bytes]] = {}
        self.peers_of_sends: dict[int, int] = {}
        self.left: dict[int, list[bytes]] = {peer: [] for peer in PEERS}
        void = "void *" if handle_size == 8 else "int"
        kinds = {
            "isend": f"int(void *, int, {void}, int, int, {void}, void *)",
            "irecv": f"int(void *, int, {void}, int, int, {void}, void *)",
            "test": "int(void *, int *, void *)",
            "testsome": "int(int, void *, int *, int *, void *)",
            "cancel": "int(void *)",
            "get_count": f"int(void *, {void}, int *)",
        }
        self.calls = {name: ffi.callback(kind, getattr(self, name)) for name, kind in kinds.items()}
        self.table = ffi.new(
            "mt_mpi_table *",
            {
                "handle_size": handle_size,
                "status_size": STATUS_BYTES,
                "looks": 1,
                "tag": 2,
                "comm": 1,
                "byte": 2,
                "request_null": NULL_REQUEST,
                "error_in_status": ERROR_IN_STATUS,
                "error_at": ERROR_AT,
                **{name: int(ffi.cast("uintptr_t", call)) for name, call in self.calls.items()},
            },
        )

        self.broken: set[int] = set()  # peers; what is under way to or from them fails
        self.tells = True  # in statuses
        self.refuses = 0  # a peer
        self.asked_one_by_one = False  # else a test follows a cancel

    def peer_of(self, request: int) -> int:
        if request in self.sends:
            return self.peers_of_sends[request]
        return self.receives[request][0] if request in self.receives else 0

    def new_request(self, where: Any) -> int:
        self.last += 1
        ffi.cast(self.word + " *", where)[0] = self.last
        return self.last

    def isend(self, data: Any, size: int, _type: Any, peer: int, _tag: int, _comm: Any, where: Any) -> int:
        if peer == self.refuses:
            return ERROR
        request = self.new_request(where)
        self.sends[request] = (peer, bytes(ffi.buffer(data, size)))
        self.peers_of_sends[request] = peer
        return 0

    def irecv(self, data: Any, _size: int, _type: Any, peer: int, _tag: int, _comm: Any, where: Any) -> int:
        self.receives[self.new_request(where)] = (peer, data)
        self.match(peer)
        return 0

    def match(self, peer: int) -> None:
        for request, (sender, _) in sorted(self.receives.items()):
            if sender == peer and request not in self.matched and request not in self.shown and self.unmatched[peer]:
                self.matched[request] = self.unmatched[peer].pop(0)

    def arrive(self, peer: int, message: bytes) -> None:
        self.unmatched[peer].append(message)
        self.match(peer)

    def complete(self, which: int) -> None:
        """One of the messages that are under way is there."""
        if self.matched:
            request = sorted(self.matched)[which % len(self.matched)]
            message = self.matched.pop(request)
            ffi.memmove(self.receives[request][1], message, len(message))
            self.shown[request] = len(message)

    def let_go(self, which: int) -> None:
        """One of the frames sent has left."""
        staying = sorted(request for request, (peer, _) in self.sends.items() if peer >= 0)
        if staying:
            request = staying[which % len(staying)]
            peer, message = self.sends[request]
            self.left[peer].append(message)
            self.sends[request] = (-1, b"")

    def testsome(self, n: int, handles: Any, out_n: Any, indices: Any, statuses: Any) -> int:
        words = ffi.cast(self.word + " *", handles)
        active = [i for i in range(n) if words[i] != NULL_REQUEST]
        found, errors = 0, 0
        for i in active:
            request = words[i]
            code = ERROR if self.peer_of(request) in self.broken else 0
            if code and not self.tells:
                out_n[0] = 0
                return ERROR
            errors += code
            if code:
                size = 0
                self.sends.pop(request, None)
                self.receives.pop(request, None)
            elif request in self.shown:
                size = self.shown.pop(request)
                del self.receives[request]
            elif self.sends.get(request, (0, b""))[0] == -1:
                size = 0
                del self.sends[request]
            else:
                continue
            ffi.cast("int *", statuses + STATUS_BYTES * found)[0] = size
            ffi.cast("int *", statuses + STATUS_BYTES * found)[ERROR_AT // 4] = code
            indices[found] = i
            words[i] = NULL_REQUEST
            found += 1
        out_n[0] = found if active else -32766  # MPI_UNDEFINED
        return ERROR_IN_STATUS if errors else 0

    def test(self, where: Any, flag: Any, status: Any) -> int:
        request = ffi.cast(self.word + " *", where)[0]
        if self.peer_of(request) in self.broken:
            return ERROR
        if self.asked_one_by_one and request not in self.shown and self.sends.get(request, (0, b""))[0] != -1:
            flag[0] = 0
            return 0
        ffi.cast("int *", status)[0] = self.shown.pop(request, 0)
        self.sends.pop(request, None)
        self.receives.pop(request, None)
        ffi.cast(self.word + " *", where)[0] = NULL_REQUEST
        flag[0] = 1
        return 0

    def cancel(self, _where: Any) -> int:
        return 0

    def get_count(self, status: Any, _type: Any, out: Any) -> int:
        out[0] = ffi.cast("int *", status)[0]
        return 0


STEPS = st.lists(
    st.tuples(st.sampled_from(["arrive", "complete", "receive", "release", "send", "leave"]), st.integers(0, 50)),
    max_size=150,
)


@pytest.mark.parametrize("handle_size", [4, 8])
@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_frames_of_a_neighbour_stay_in_order(handle_size: int, steps: list[tuple[str, int]]) -> None:
    library = Library(handle_size)
    transport = lib.mt_transport_mpi_new(library.table, PEERS, len(PEERS))
    assert transport
    sent: dict[int, list[bytes]] = {peer: [] for peer in PEERS}  # to us
    got: dict[int, list[bytes]] = {peer: [] for peer in PEERS}
    ours: dict[int, list[bytes]] = {peer: [] for peer in PEERS}
    held: list[Any] = []
    frame = ffi.new("mt_frame **")

    def receive() -> bool:
        arrival = ffi.new("mt_arrival *")
        if transport.receive(transport, arrival) != lib.MT_OK:
            return False
        got[arrival.peer].append(bytes(ffi.buffer(arrival.data, arrival.size)))
        held.append(arrival)
        return True

    def release() -> None:
        if held:
            transport.release(transport, held.pop(0))

    for number, (step, n) in enumerate(steps):
        peer = PEERS[n % len(PEERS)]
        if step == "arrive":
            message = b"%d:" % number * (n + 1)
            sent[peer].append(message)
            library.arrive(peer, message)
        elif step == "complete":
            library.complete(n)
        elif step == "receive":
            receive()
        elif step == "release":
            release()
        elif step == "send":
            status = transport.get(transport, peer, frame)
            assert (status == lib.MT_E_AGAIN) == (len(ours[peer]) - len(library.left[peer]) >= 10)
            if status == lib.MT_OK:
                message = b"to %d" % number
                ffi.memmove(frame[0].data, message, len(message))
                frame[0].used = len(message)
                ours[peer].append(message)
                assert transport.send(transport, peer, frame[0]) == lib.MT_OK
        else:
            library.let_go(n)
        for rank in PEERS:
            assert got[rank] == sent[rank][: len(got[rank])]
    # all that is under way comes through
    while any(got[rank] != sent[rank] for rank in PEERS):
        while held:
            release()
        library.complete(0)
        receive()
    while library.sends:
        library.let_go(0)
        transport.in_flight(transport)
    assert all(sorted(library.left[rank]) == sorted(ours[rank]) for rank in PEERS)
    while held:
        release()
    transport.destroy(transport)
    assert not library.receives


def test_a_table_that_does_not_fit_is_refused() -> None:
    library = Library(4)
    library.table.handle_size = 16
    assert not lib.mt_transport_mpi_new(library.table, PEERS, len(PEERS))
    library.table.handle_size = 4
    assert not lib.mt_transport_mpi_new(library.table, PEERS, 0)


def send_one(transport: Any, peer: int) -> int:
    frame = ffi.new("mt_frame **")
    status = transport.get(transport, peer, frame)
    if status == lib.MT_OK:
        frame[0].used = 8
        status = transport.send(transport, peer, frame[0])
    return int(status)


def lost_peers(transport: Any) -> list[int]:
    out, found = ffi.new("uint32_t *"), []
    while transport.next_lost(transport, out):
        found.append(int(out[0]))
    return found


@pytest.mark.parametrize("handle_size", [4, 8])
@pytest.mark.parametrize("how", ["statuses tell", "each is asked", "a send is refused"])
def test_one_neighbour_is_lost(handle_size: int, how: str) -> None:
    library = Library(handle_size)
    library.tells, library.asked_one_by_one = how == "statuses tell", how == "each is asked"
    transport = lib.mt_transport_mpi_new(library.table, PEERS, len(PEERS))
    arrival = ffi.new("mt_arrival *")
    well, broken, other = PEERS
    for peer in [*PEERS, *PEERS, broken]:
        assert send_one(transport, peer) == lib.MT_OK
    library.arrive(well, b"before")
    library.complete(0)
    assert lost_peers(transport) == []
    if how == "a send is refused":
        library.refuses = broken
        assert send_one(transport, broken) == lib.MT_E_PEER
    else:
        library.broken = {broken}
    assert transport.in_flight(transport) == 4, "those to the others"
    assert lost_peers(transport) == [broken]
    assert lost_peers(transport) == [], "it is told once"
    assert send_one(transport, broken) == lib.MT_E_PEER
    for _ in range(len(library.sends)):
        library.let_go(0)
    transport.in_flight(transport)
    assert transport.in_flight(transport) == 0, "nobody polls for ever"
    assert transport.receive(transport, arrival) == lib.MT_OK
    assert bytes(ffi.buffer(arrival.data, arrival.size)) == b"before"
    transport.release(transport, arrival)
    library.arrive(other, b"after")
    library.complete(0)
    assert transport.receive(transport, arrival) == lib.MT_OK
    assert (arrival.peer, bytes(ffi.buffer(arrival.data, arrival.size))) == (other, b"after")
    transport.release(transport, arrival)
    for _ in range(20):  # more than its share
        assert send_one(transport, well) == lib.MT_OK
        while library.sends:
            library.let_go(0)
            if transport.in_flight(transport) == 0:
                break
    assert lost_peers(transport) == []
    library.asked_one_by_one = False
    transport.destroy(transport)


@pytest.mark.parametrize("handle_size", [4, 8])
def test_an_error_that_is_no_neighbours(handle_size: int) -> None:
    library = Library(handle_size)
    transport = lib.mt_transport_mpi_new(library.table, PEERS, len(PEERS))
    library.tells, library.asked_one_by_one = False, True
    real = library.peer_of
    assert send_one(transport, PEERS[0]) == lib.MT_OK
    calls = iter([PEERS[0]])
    library.broken = {PEERS[0]}
    library.peer_of = lambda request: next(calls, 0)  # type: ignore[method-assign]  # the test of each finds nothing
    assert transport.in_flight(transport) == 0, "a rank that waits for it would poll for ever"
    library.peer_of, library.broken = real, set()  # type: ignore[method-assign]
    assert lost_peers(transport) == []
    assert transport.receive(transport, ffi.new("mt_arrival *")) == lib.MT_E_PEER
    library.asked_one_by_one = False
    transport.destroy(transport)
