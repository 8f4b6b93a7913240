"""The shape of the tree: every way in which a launcher may deal ranks to nodes."""

from __future__ import annotations

import math
import time
import tracemalloc
from array import array
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mpitask.mpi import _find_leaders
from mpitask.tree import Place, find_place


def first_ranks(nodes: list[int]) -> list[int]:
    """Nodes by any name -> nodes by their first rank."""
    return [nodes.index(node) for node in nodes]


def blocks(n_nodes: int, each: int) -> list[int]:
    return [rank // each * each for rank in range(n_nodes * each)]


def cycle(n_nodes: int, each: int) -> list[int]:
    return [rank % n_nodes for rank in range(n_nodes * each)]


jobs = st.lists(st.integers(0, 40), min_size=1, max_size=120).map(first_ranks)


def depths(places: list[Place]) -> list[int]:
    found: list[int] = []
    for place in places:  # a parent comes before its children
        found.append(0 if place.parent < 0 else found[place.parent] + 1)
    return found


@given(leaders=jobs, fanout=st.integers(1, 70))
@example(leaders=[0], fanout=64)
@example(leaders=list(range(120)), fanout=1)
@example(leaders=cycle(3, 4), fanout=2)
@example(leaders=blocks(1, 120), fanout=2)
def test_every_tree_is_a_tree(leaders: list[int], fanout: int) -> None:
    places = [find_place(rank, leaders, fanout) for rank in range(len(leaders))]
    nodes = sorted(set(leaders))
    assert [rank for rank, place in enumerate(places) if place.parent < 0] == [0]
    above = {child: rank for rank, place in enumerate(places) for child in place.children}
    assert above == {rank: place.parent for rank, place in enumerate(places) if rank > 0}
    assert sum(len(place.children) for place in places) == len(leaders) - 1
    for rank, place in enumerate(places):
        assert place.parent < rank
        assert len(place.remote_children) <= fanout
        assert all(leaders[child] == child for child in place.remote_children)
        if leaders[rank] == rank:
            assert place.local_children == tuple(r for r, leader in enumerate(leaders) if leader == rank and r != rank)
        else:
            assert place == Place(False, leaders[rank], (), ())
    # Leaders in the order of their ranks are nowhere less deep than the one before.
    depth = depths(places)
    assert [depth[leader] for leader in nodes] == sorted(depth[leader] for leader in nodes)
    deepest = len(nodes) - 1 if fanout == 1 else math.ceil(round(math.log(len(nodes), fanout), 9))
    assert max(depth) <= 1 + deepest


@given(leaders=jobs, fanout=st.integers(1, 70))
def test_only_leaders_have_neighbours_on_other_nodes(leaders: list[int], fanout: int) -> None:
    for rank, node in enumerate(leaders):
        place = find_place(rank, leaders, fanout)
        if any(leaders[other] != node for other in (place.parent, *place.children) if other >= 0):
            assert rank == node


@pytest.mark.parametrize(
    ("leaders", "fanout", "rank", "place"),
    [
        (blocks(3, 4), 64, 0, Place(True, -1, (4, 8), (1, 2, 3))),
        (blocks(3, 4), 1, 4, Place(True, 0, (8,), (5, 6, 7))),
        (blocks(3, 4), 1, 8, Place(True, 4, (), (9, 10, 11))),
        (blocks(3, 4), 64, 6, Place(False, 4, (), ())),
        (cycle(3, 4), 64, 0, Place(True, -1, (1, 2), (3, 6, 9))),
        (cycle(3, 4), 1, 1, Place(True, 0, (2,), (4, 7, 10))),
        (cycle(3, 4), 64, 11, Place(False, 2, (), ())),
        ([0], 64, 0, Place(True, -1, (), ())),
    ],
)
def test_known_places(leaders: list[int], fanout: int, rank: int, place: Place) -> None:
    assert find_place(rank, leaders, fanout) == place


def test_a_quarter_of_a_million_ranks() -> None:
    """2048 nodes of 128 ranks: three levels, and a place is found in less than a second."""
    leaders = blocks(2048, 128)
    start = time.process_time()
    root = find_place(0, leaders, 64)
    assert (len(root.local_children), len(root.remote_children)) == (127, 64)
    assert time.process_time() - start < 1
    last = find_place(len(leaders) - 1, leaders, 64)
    steps = 1
    while (last := find_place(last.parent, leaders, 64)).parent >= 0:
        steps += 1
    assert steps == 3


class ManyRanks:
    """A communicator of 256 nodes with 128 ranks each, as rank 0 sees it."""

    def __init__(self) -> None:
        self.nodes = 256

    def Get_size(self) -> int:  # noqa: N802
        return 128 * self.nodes

    def Iallgather(self, mine: array[int], everybody: array[int]) -> SimpleNamespace:  # noqa: N802
        for rank in range(len(everybody)):
            node = rank // 128
            everybody[rank] = (mine[0] + node) % 2**64 if everybody.itemsize == 8 else 128 * node
        return SimpleNamespace(Test=lambda: True)


def test_memory_of_the_root() -> None:
    """At most 16 bytes for each rank of the job while it starts, 4 afterwards."""
    comm = ManyRanks()
    _find_leaders(comm)  # what Python keeps for itself the first time
    tracemalloc.start()
    try:
        leaders = _find_leaders(comm)
        place = find_place(0, leaders, 64)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(place.children) == 127 + 64
    assert most <= 16 * comm.Get_size()
    assert kept <= 4 * comm.Get_size() + 10_000
