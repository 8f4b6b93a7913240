"""Tasks and the graph: how failure spreads, cancellation, deep chains; no memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from graph_handles import (
    ASSIGNED,
    CANCELLED,
    DEPENDENCY_FAILED,
    DONE,
    DROPPED,
    ERROR,
    FAILED,
    INLINE_ARGS,
    LOST,
    NOTIFY,
    READY,
    SUCCESS,
    WAITED,
    WAITING,
    Graph,
    Value,
    new_task,
    value_of,
    wait_for,
)
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG


class Plain:
    """A graph for one directed test; remembers the tasks it made, and lets go of them at the end."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.graph = Graph(memory)
        self.tasks: list[Any] = []

    def new(self, *edges: int, fn: int = 1, args: bytes = b"", add: bool = True) -> Any:
        handles = [self.tasks[k] for k in edges]
        task = new_task(self.memory.alloc, len(self.tasks), handles, fn=fn, args=args)
        assert task
        self.tasks.append(task)
        if add:
            self.graph.add(task)
        return task

    def states(self) -> list[int]:
        return [lib.mt_task_state(task) for task in self.tasks]

    def close(self) -> None:
        assert self.graph.check() == OK
        for task in self.tasks:
            lib.mt_task_unref(task)
        self.graph.destroy()


@pytest.fixture
def plain() -> Iterator[Plain]:
    memory = Memory()
    plain = Plain(memory)
    yield plain
    plain.close()
    assert memory.live == 0
    memory.close()


def test_an_empty_graph_has_nothing_to_give(plain: Plain) -> None:
    graph = plain.graph
    assert graph.take() == graph.take_ended() == []
    assert graph.counts() == {}
    lib.mt_graph_cancel_begin(graph.handle)
    assert lib.mt_graph_cancel_next(graph.handle) == ffi.NULL
    lib.mt_graph_abandon(graph.handle)
    assert graph.check() == OK
    lib.mt_graph_destroy(ffi.NULL)


def test_ready_tasks_come_out_once_and_in_the_order_of_adding(plain: Plain) -> None:
    for _ in range(10):
        plain.new()
    assert plain.graph.take_numbers(0) == []
    assert plain.graph.take_numbers(3) == [0, 1, 2]
    assert plain.graph.take_numbers(3) == [3, 4, 5]
    plain.new()
    assert plain.graph.take_numbers() == [6, 7, 8, 9, 10]
    assert plain.graph.take() == []


def test_a_task_that_comes_back_goes_to_the_end_of_the_list(plain: Plain) -> None:
    for _ in range(4):
        plain.new()
    first, second = plain.graph.take(2)
    assert plain.graph.assign(first)
    for task in (first, second):
        lib.mt_graph_return(plain.graph.handle, task)
        assert lib.mt_task_state(task) == READY
    assert plain.graph.take_numbers() == [2, 3, 0, 1]


def test_an_assigned_task_can_be_tried_again(plain: Plain) -> None:
    task = plain.new()
    assert plain.graph.take() == [task]
    for _ in range(3):
        assert plain.graph.assign(task)
        assert lib.mt_task_state(task) == ASSIGNED
        assert not lib.mt_task_try_cancel(task)
        lib.mt_graph_unassign(plain.graph.handle, task)
        assert lib.mt_task_state(task) == READY
        assert plain.graph.take() == [], "it stays taken"
    assert plain.graph.cancel(task), "between two attempts"
    assert not plain.graph.assign(task)


def test_a_diamond_runs_from_its_top_to_its_bottom(plain: Plain) -> None:
    top, left, right, bottom = plain.new(), plain.new(0), plain.new(0), plain.new(1, 2, 1)
    plain.graph.run(top, data=b"top")
    assert plain.states() == [DONE, READY, READY, WAITING]
    assert set(plain.graph.take()) == {left, right}
    plain.graph.finish(right)
    assert plain.states() == [DONE, READY, DONE, WAITING]
    plain.graph.finish(left)
    plain.graph.run(bottom)
    assert plain.states() == [DONE] * 4
    assert plain.graph.counts() == {"done": 4}


def test_an_argument_that_has_ended_is_not_waited_for(plain: Plain) -> None:
    plain.graph.run(plain.new())
    plain.new(0, 0)
    assert plain.states() == [DONE, READY]
    failed = plain.new()
    assert plain.graph.take_numbers() == [1, 2]
    plain.graph.finish(failed, ERROR, b"why")
    late = plain.new(0, 2)
    assert lib.mt_task_state(late) == DEPENDENCY_FAILED
    assert value_of(late) == Value(b"why", 1, ERROR, 2, 2)


def test_a_value_starts_at_its_offset_in_the_blob_and_lives_as_long_as_the_task(plain: Plain) -> None:
    whole, empty, none = plain.new(), plain.new(), plain.new()
    plain.graph.take()
    plain.graph.finish(whole, SUCCESS, b"headvalue", 3, 4)
    plain.graph.finish(empty, SUCCESS, b"head", 3, 4)
    plain.graph.finish(none, SUCCESS, None, 3)
    assert [value_of(t) for t in plain.tasks] == [Value(b"value", 3), Value(b"", 3), Value(b"", 3)]


def test_the_end_of_a_task_is_final(plain: Plain) -> None:
    task = plain.new()
    plain.graph.run(task, SUCCESS, b"first")
    plain.graph.finish(task, ERROR, b"second")
    assert not plain.graph.cancel(task)
    assert not plain.graph.assign(task)
    lib.mt_graph_cancelled(plain.graph.handle, task)
    lib.mt_graph_return(plain.graph.handle, task)
    lib.mt_graph_unassign(plain.graph.handle, task)
    assert lib.mt_task_state(task) == DONE
    assert value_of(task) == Value(b"first", 1)
    assert plain.graph.counts() == {"done": 1}
    assert plain.graph.take() == []


def test_the_first_failure_is_the_cause_and_each_task_names_the_argument_it_came_through(plain: Plain) -> None:
    first = plain.new()
    for k in range(3):
        plain.new(k)
    plain.new(fn=0)
    plain.new(4, 3)
    plain.graph.run(first, ERROR, b"why")
    assert plain.states() == [FAILED, *[DEPENDENCY_FAILED] * 3, WAITING, DEPENDENCY_FAILED]
    blame = [(v.data, v.outcome, v.cause, v.via) for v in map(value_of, plain.tasks) if v is not None]
    assert blame[1:] == [(b"why", ERROR, 0, via) for via in (0, 1, 2, 3)]
    plain.graph.finish(plain.tasks[4], LOST)
    assert value_of(plain.tasks[5]) == Value(b"why", 1, ERROR, 0, 3), "decided before"


def test_a_task_cancelled_before_it_came_to_the_graph_ends_at_once(plain: Plain) -> None:
    task = plain.new(add=False)
    assert lib.mt_task_try_cancel(task)
    assert not lib.mt_task_try_cancel(task)
    lib.mt_graph_cancelled(plain.graph.handle, task)
    assert plain.graph.counts() == {}, "the graph has not got it yet"
    plain.graph.add(task)
    lib.mt_graph_cancelled(plain.graph.handle, task)
    plain.new(0)
    assert plain.states() == [CANCELLED, DEPENDENCY_FAILED]
    assert (value_of(task), value_of(plain.tasks[1])) == (None, Value(outcome=DROPPED))
    assert plain.graph.counts() == {"cancelled": 1, "dependency_failed": 1}


def test_a_cancelled_task_is_left_out_of_the_ready_list(plain: Plain) -> None:
    for _ in range(5):
        plain.new()
    for k in (0, 2, 4):
        assert plain.graph.cancel(plain.tasks[k])
    assert plain.graph.take_numbers() == [1, 3]
    assert plain.graph.counts() == {"cancelled": 3, "taken": 2}


def test_a_promise_is_never_ready_and_sets_free_who_waits_for_it(plain: Plain) -> None:
    promise, user = plain.new(fn=0), plain.new(0)
    assert plain.graph.take() == []
    plain.graph.finish(promise, SUCCESS, b"kept", 2)
    assert value_of(promise) == Value(b"kept", 2)
    assert plain.graph.take() == [user]


def test_a_promise_cancelled_before_it_is_fulfilled_leaves_no_value_to_those_who_waited(plain: Plain) -> None:
    """Cancelled by another thread, whose message comes to the graph after the fulfilment."""
    promise, user = plain.new(fn=0), plain.new(0)
    assert lib.mt_task_try_cancel(promise)
    plain.graph.finish(promise, SUCCESS, b"too late", 2)
    lib.mt_graph_cancelled(plain.graph.handle, promise)
    assert plain.states() == [CANCELLED, DEPENDENCY_FAILED]
    assert value_of(user) == Value(outcome=DROPPED), "that of the root cause, which was cancelled"


def test_only_those_that_somebody_waits_for_are_given_as_ended(plain: Plain) -> None:
    for _ in range(4):
        plain.new()
    wait_for(plain.tasks[1], WAITED)
    wait_for(plain.tasks[2], WAITED | NOTIFY)
    wait_for(plain.tasks[3], NOTIFY)
    plain.graph.take()
    assert plain.graph.take_ended() == []
    for k in (3, 0, 1):
        plain.graph.finish(plain.tasks[k])
    assert plain.graph.cancel(plain.tasks[2])
    assert plain.graph.take_ended() == [(3, NOTIFY), (1, WAITED), (2, WAITED | NOTIFY)]
    assert plain.graph.take_ended() == []


def test_cancelling_all_spares_what_is_assigned_and_gives_each_other_task_once(plain: Plain) -> None:
    for _ in range(3):
        plain.new()
    plain.new(fn=0)
    assigned, taken = plain.graph.take(2)
    assert plain.graph.assign(assigned)
    for k in range(4):
        plain.new(k)
    lib.mt_graph_cancel_begin(plain.graph.handle)
    assert plain.states() == [ASSIGNED, *[CANCELLED] * 7]
    seen = []
    while (task := lib.mt_graph_cancel_next(plain.graph.handle)) != ffi.NULL:
        seen.append(lib.mt_task_number(task))
        lib.mt_graph_cancelled(plain.graph.handle, task)
        lib.mt_task_unref(task)
    assert {1, 2, 3, 4} <= set(seen) <= set(range(1, 8))
    assert len(seen) == len(set(seen))
    assert plain.graph.counts() == {"taken": 1, "cancelled": 7}
    assert plain.graph.check() == OK
    assert plain.graph.take() == []
    assert not plain.graph.assign(taken)
    plain.graph.finish(assigned)
    assert plain.graph.counts() == {"done": 1, "cancelled": 7}


def test_abandoning_ends_everything_even_what_is_assigned(plain: Plain) -> None:
    for _ in range(3):
        plain.new()
    plain.new(fn=0)
    for k in range(4):
        plain.new(k)
    first, _ = plain.graph.take(2)
    assert plain.graph.assign(first)
    wait_for(first, WAITED)
    lib.mt_graph_abandon(plain.graph.handle)
    assert plain.states() == [CANCELLED] * 8
    assert plain.graph.counts() == {"cancelled": 8}
    assert plain.graph.check() == OK
    assert plain.graph.take_ended() == [(0, WAITED)]
    plain.graph.finish(first, SUCCESS, b"late")
    assert value_of(first) is None


def test_ended_tasks_that_nobody_took_go_with_the_graph() -> None:
    memory = Memory()
    graph = Graph(memory)
    task = graph.new(0)
    wait_for(task, WAITED)
    assert graph.cancel(task)
    lib.mt_task_unref(task)
    assert memory.live == 2
    graph.destroy()
    assert memory.live == 0
    memory.close()


@pytest.mark.parametrize("outcome", [SUCCESS, ERROR])
def test_a_chain_of_many_thousands_needs_no_stack(outcome: int) -> None:
    """Ending, failing and freeing go through it without recursion."""
    length = 30_000
    memory = Memory()
    graph = Graph(memory)
    first = last = graph.new(0)
    lib.mt_task_ref(first)
    for number in range(1, length):
        following = graph.new(number, [last])
        lib.mt_task_unref(last)
        last = following
    graph.run(first, outcome)
    if outcome == ERROR:
        assert graph.counts() == {"failed": 1, "dependency_failed": length - 1}
        assert value_of(last) == Value(b"", 1, ERROR, 0, length - 2)
    else:
        assert graph.counts() == {"done": 1, "ready": 1, "waiting": length - 2}
        assert graph.cancel(graph.take()[0])
        assert graph.counts() == {"done": 1, "cancelled": 1, "dependency_failed": length - 2}
    assert [task for task, _ in graph.take_ended()] == ([0] if outcome == ERROR else [])
    lib.mt_task_unref(first)
    lib.mt_task_unref(last)
    assert memory.live == 1, "the graph"
    graph.destroy()
    memory.close()


def test_a_chain_that_never_came_to_a_graph_goes_with_its_last_task() -> None:
    memory = Memory()
    last = new_task(memory.alloc, 0)
    for number in range(1, 30_000):
        following = new_task(memory.alloc, number, [last, last])
        lib.mt_task_unref(last)
        last = following
    assert memory.live == 30_000
    lib.mt_task_unref(last)
    assert memory.live == 0
    memory.close()


def test_one_task_sets_thousands_free(plain: Plain) -> None:
    first = plain.new()
    for _ in range(5000):
        plain.new(0)
    plain.graph.run(first)
    assert plain.graph.counts() == {"done": 1, "ready": 5000}
    assert sorted(plain.graph.take_numbers(5000)) == list(range(1, 5001))


def test_large_arguments_are_freed_when_the_task_has_ended(plain: Plain) -> None:
    before = plain.memory.live
    small, large = plain.new(args=bytes(INLINE_ARGS)), plain.new(args=bytes(INLINE_ARGS + 1))
    assert plain.memory.live == before + 3
    assert plain.graph.take() == [small, large]
    for task in (small, large):
        plain.graph.finish(task, SUCCESS, None)
    assert plain.memory.live == before + 2


def test_no_call_on_a_graph_needs_memory(plain: Plain) -> None:
    tasks = [plain.new(*([k - 1] if k % 3 else []), fn=k % 7, add=False) for k in range(60)]
    before = plain.memory.requests
    for task in tasks:
        plain.graph.add(task)
    for task in plain.graph.take(9):
        if plain.graph.assign(task):
            lib.mt_graph_unassign(plain.graph.handle, task)
        lib.mt_graph_return(plain.graph.handle, task)
    for task in plain.graph.take(9):
        plain.graph.finish(task, SUCCESS, None)
    assert plain.graph.cancel(tasks[50])
    lib.mt_graph_abandon(plain.graph.handle)
    assert plain.memory.requests == before


def test_without_memory_there_is_no_task_and_no_reference_is_kept() -> None:
    def scenario(memory: Memory) -> None:
        graph = Graph(memory)
        tasks: list[Any] = []
        for number in range(6):
            args = bytes(INLINE_ARGS + number % 2)
            make = partial(new_task, memory.alloc, number, tasks[-3:], args=args)
            live = memory.live
            tasks.append(memory.attempt(make, graph.check))
            assert memory.live == live + 1 + number % 2
            graph.add(tasks[-1])
            assert graph.check() == OK
        for task in tasks:
            assert graph.take() == [task]
            graph.finish(task, SUCCESS, None)
            lib.mt_task_unref(task)
        assert memory.live == 1, "the graph"
        graph.destroy()

    assert each_allocation_failing(scenario) == 1 + 6 + 3
