"""The shape of the tree of ranks: who is above whom. Pure arithmetic: no MPI, no clock, no state.

A node is named by its first rank, its *leader*. The ranks of a node are under their leader, so that all but one of them
have neighbours on their own node only and can sleep until a neighbour rings. The leaders, in the order of their
ranks, form a heap: leader i is under leader (i - 1) // fanout. Rank 0 is the first rank of its node and the first
leader, so it is the root, whatever order the launcher has dealt the ranks in.

What holds for every job (the tests say so in code):

- every rank but 0 has one parent, which names it among its children;
- a parent's rank is smaller than its children's, so there is no cycle;
- no rank has more than `fanout` children on other nodes, and only leaders have children at all;
- with n nodes and a fan-out of 2 or more, no rank is deeper than 1 + ceil(log(n, fanout)) (with 1 it is a chain).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The neighbours of a rank."""

    is_leader: bool
    """The first rank of its node."""
    parent: int
    """-1 for the root."""
    remote_children: tuple[int, ...]
    """Leaders of other nodes."""
    local_children: tuple[int, ...]
    """The other ranks of this node; empty for all but its leader."""

    @property
    def children(self) -> tuple[int, ...]:
        """All ranks below, in the order in which the engine gets to know them."""
        return self.local_children + self.remote_children


def find_place(rank: int, leaders: Sequence[int], fanout: int) -> Place:
    """A rank's neighbours.

    Takes time proportional to the number of ranks, and memory proportional to the number of the rank's children.

    Args:
        rank: whose.
        leaders: for each rank of the job the first rank of its node.
        fanout: how many other leaders a leader may have below it; 1 or more.
    """
    if leaders[rank] != rank:
        return Place(False, leaders[rank], (), ())
    own_index = sum(leaders[other] == other for other in range(rank))
    parent_index = (own_index - 1) // fanout
    first_below = own_index * fanout + 1
    parent, below, members = -1, [], []
    index = 0
    for other, leader in enumerate(leaders):
        if leader == other:
            if index == parent_index:
                parent = other
            elif first_below <= index < first_below + fanout:
                below.append(other)
            index += 1
        elif leader == rank:
            members.append(other)
    return Place(True, parent, tuple(below), tuple(members))
