"""Tasks and the graph against a model; how failure spreads, cancellation, deep chains; no memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG

WAITING, READY, ASSIGNED = lib.MT_WAITING, lib.MT_READY, lib.MT_ASSIGNED
DONE, FAILED, CANCELLED = lib.MT_DONE, lib.MT_FAILED, lib.MT_CANCELLED
DEPENDENCY_FAILED = lib.MT_DEPENDENCY_FAILED
SUCCESS, ERROR, LOST = lib.MT_OUTCOME_OK, lib.MT_OUTCOME_ERROR, lib.MT_OUTCOME_LOST
DROPPED = lib.MT_OUTCOME_CANCELLED
# Flags that waiting threads set above the state (task.h; not in lib).
WAITED, NOTIFY = 256, 512
# Arguments beyond this size are kept apart from the task (task.c).
INLINE_ARGS = 1024


def new_task(alloc: Any, number: int, edges: Sequence[Any] = (), *, fn: int = 1, args: bytes = b"") -> Any:
    """NULL when there is no memory."""
    keep = ffi.new("mt_task *[]", list(edges))
    part = ffi.new("mt_part *", {"data": ffi.from_buffer(args), "size": len(args)})
    spec = {"number": number, "fn": fn, "n_edges": len(edges), "edges": keep, "n_args": 1, "args": part}
    return lib.mt_task_new(alloc, ffi.new("mt_task_spec *", spec))


@dataclass(frozen=True)
class Value:
    """What is to be known of how a task ended."""

    data: bytes = b""
    codec: int = 0
    outcome: int = SUCCESS
    cause: int = 0
    via: int = 0


NEVER_RUN = Value(outcome=DROPPED)


def value_of(task: Any) -> Value | None:
    value = lib.mt_task_value(task)
    if value == ffi.NULL:
        return None
    data = ffi.buffer(value.data, value.size)[:] if value.size else b""
    return Value(data, value.codec, value.outcome, value.cause, value.via)


def wait_for(task: Any, flag: int) -> None:
    """What a waiting thread does: the state word is the first of a task."""
    ffi.cast("uint32_t *", task)[0] |= flag


class Graph:
    """The graph, with Python's types."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.handle = memory.attempt(partial(lib.mt_graph_new, memory.alloc))

    def check(self) -> int:
        return int(lib.mt_graph_check(self.handle))

    def counts(self) -> dict[str, int]:
        counts = lib.mt_graph_count(self.handle)
        return {name: getattr(counts, name) for name, _ in ffi.typeof(counts).fields if getattr(counts, name)}

    def add(self, task: Any) -> None:
        """The caller keeps a reference."""
        lib.mt_task_ref(task)
        lib.mt_graph_add(self.handle, task)

    def new(self, number: int, edges: Sequence[Any] = (), *, fn: int = 1, args: bytes = b"") -> Any:
        """A task that is in the graph, with a reference for the caller."""
        task = new_task(self.memory.alloc, number, edges, fn=fn, args=args)
        assert task
        self.add(task)
        return task

    def take(self, n: int = 100) -> list[Any]:
        out = ffi.new("mt_task *[]", n + 1)
        got = lib.mt_graph_take_ready(self.handle, out, n)
        assert got <= n
        assert list(out[got : n + 1]) == [ffi.NULL] * (n + 1 - got)
        return list(out[0:got])

    def take_numbers(self, n: int = 100) -> list[int]:
        return [lib.mt_task_number(task) for task in self.take(n)]

    def assign(self, task: Any) -> bool:
        return bool(lib.mt_graph_assign(self.handle, task))

    def finish(
        self, task: Any, outcome: int = SUCCESS, data: bytes | None = b"", codec: int = 1, offset: int = 0
    ) -> None:
        blob = ffi.NULL
        if data is not None:
            part = ffi.new("mt_part *", {"data": ffi.from_buffer(data), "size": len(data)})
            blob = lib.mt_blob_from_parts(self.memory.alloc, part, 1)
            assert blob
        lib.mt_graph_finish(self.handle, task, outcome, codec, blob, offset)
        lib.mt_blob_unref(blob)

    def run(self, task: Any, outcome: int = SUCCESS, data: bytes = b"") -> None:
        """Takes the only ready task and ends it."""
        assert self.take() == [task]
        assert self.assign(task)
        self.finish(task, outcome, data)

    def cancel(self, task: Any) -> bool:
        if not lib.mt_task_try_cancel(task):
            return False
        lib.mt_graph_cancelled(self.handle, task)
        return True

    def take_ended(self) -> list[tuple[int, int]]:
        """Number and flags of all that ended."""
        flags = ffi.new("uint32_t *")
        ended = []
        while (task := lib.mt_graph_take_ended(self.handle, flags)) != ffi.NULL:
            ended.append((lib.mt_task_number(task), flags[0]))
            lib.mt_task_unref(task)
        return ended

    def destroy(self) -> None:
        lib.mt_graph_abandon(self.handle)
        assert self.check() == OK
        lib.mt_graph_destroy(self.handle)


@dataclass
class Task:
    """What the oracle knows of a task."""

    number: int
    edges: list[int]
    promise: bool
    handle: Any
    state: int = WAITING
    place: str = "new"  # new, waiting, ready, taken, settled
    flags: int = 0
    value: Value | None = None
    hands_on: Value | None = None  # what dependents get to know of it
    mine: bool = True  # the test holds a reference


@dataclass
class Model:
    """No lists of dependents: who may run, and who cannot, follows from the states of all edges."""

    tasks: list[Task] = field(default_factory=list)
    ready: list[set[int]] = field(default_factory=list)  # by event: those of one event are in any order
    ended: list[list[tuple[int, int]]] = field(default_factory=list)

    def at(self, *places: str) -> list[Task]:
        return [task for task in self.tasks if task.place in places]

    def settle(self, first: Sequence[Task], state: int, value: Value | None) -> None:
        """Ends tasks, and all that cannot run because of them."""
        group: list[tuple[int, int]] = []
        todo = [(task, state, value) for task in first]
        while todo:
            task, state, value = todo.pop()
            if task.place == "settled":
                continue
            task.place = "settled"
            task.state = CANCELLED if task.state == CANCELLED else state
            task.value = None if task.state == CANCELLED else value
            task.hands_on = value if task.state == state else NEVER_RUN
            if task.flags:
                group.append((task.number, task.flags))
            if task.state != DONE:
                waiting = [t for t in self.at("waiting") if task.number in t.edges]
                todo += [(t, DEPENDENCY_FAILED, None) for t in waiting]
        self.ended.append(group)
        self.wake()

    def wake(self) -> None:
        waiting = [task for task in self.at("waiting") if not task.promise]
        self.make_ready([t for t in waiting if all(self.tasks[k].state == DONE for k in t.edges)])

    def make_ready(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            task.place = "ready"
            if task.state != CANCELLED:
                task.state = READY
        self.ready.append({task.number for task in tasks})

    def add(self, task: Task) -> None:
        task.place = "waiting"
        if task.state == CANCELLED:
            self.settle([task], CANCELLED, NEVER_RUN)
        elif any(self.tasks[k].place == "settled" and self.tasks[k].state != DONE for k in task.edges):
            self.settle([task], DEPENDENCY_FAILED, None)
        self.wake()

    def take(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            assert self.tasks[number].place == "ready"
            while not any(self.tasks[k].place == "ready" for k in self.ready[0]):
                del self.ready[0]
            assert number in self.ready[0], "one that became ready earlier was passed over"
            self.ready[0].remove(number)
            self.tasks[number].place = "taken"

    def counts(self) -> dict[str, int]:
        names = {DONE: "done", FAILED: "failed", DEPENDENCY_FAILED: "dependency_failed", CANCELLED: "cancelled"}
        counts: dict[str, int] = {}
        for task in self.tasks:
            if task.place != "new":
                name = names[task.state] if task.place == "settled" else task.place
                counts[name] = counts.get(name, 0) + 1
        return counts


randoms = st.integers(0, 2**32 - 1).map(Random)  # quick, and as deterministic as the number


class GraphAgainstModel(RuleBasedStateMachine):
    """Everything that can be asked of every task, after every step."""

    @initialize()
    def start(self) -> None:
        self.memory = Memory()
        self.graph = Graph(self.memory)
        self.model = Model()

    @rule(rng=randoms, times=st.integers(1, 8), large=st.booleans())
    def new(self, rng: Random, times: int, large: bool) -> None:
        for _ in range(times):
            tasks = self.model.tasks
            usable = [t.number for t in tasks if t.place != "new" and t.mine][-12:]
            promise = rng.random() < 0.15
            edges = rng.choices(usable, k=rng.choice([0, 0, 1, 2, 2, 4])) if usable and not promise else []
            handles = [tasks[k].handle for k in edges]
            args = bytes(INLINE_ARGS + 1 if large else 5)
            handle = new_task(self.memory.alloc, len(tasks), handles, fn=0 if promise else 1, args=args)
            tasks.append(Task(len(tasks), edges, promise, handle))
            if rng.random() < 0.8:
                self._add(tasks[-1])

    def _add(self, task: Task) -> None:
        self.graph.add(task.handle)
        self.model.add(task)

    @rule(rng=randoms)
    def add(self, rng: Random) -> None:
        if new := self.model.at("new"):
            self._add(rng.choice(new))

    @rule(n=st.integers(0, 8))
    def take(self, n: int) -> None:
        there = len(self.model.at("ready"))
        numbers = self.graph.take_numbers(n)
        assert len(numbers) == min(n, there)
        self.model.take(numbers)

    @rule(rng=randoms, times=st.integers(1, 6))
    def assign(self, rng: Random, times: int) -> None:
        settled = [t for t in self.model.at("settled") if t.mine]
        for task in rng.choices([None, *self.model.at("taken") * 3, *settled], k=times):
            if task is not None:
                can = task.place == "taken" and task.state != CANCELLED
                assert self.graph.assign(task.handle) == can
                if can:
                    task.state = ASSIGNED

    def _finish(self, rng: Random, task: Task, outcome: int) -> None:
        content = rng.choice([None, b"", b"value", rng.randbytes(rng.randrange(20))])
        offset, codec = rng.randrange(1 + len(content or b"")), rng.randrange(5)
        self.graph.finish(task.handle, outcome, content, codec, offset)
        if task.place != "settled":
            state = {SUCCESS: DONE, DROPPED: CANCELLED}.get(outcome, FAILED)
            self.model.settle([task], state, Value((content or b"")[offset:], codec, outcome))

    @rule(rng=randoms, times=st.integers(1, 4), outcome=st.sampled_from([SUCCESS, ERROR, LOST, DROPPED]))
    def finish(self, rng: Random, times: int, outcome: int) -> None:
        for _ in range(times):
            open_ones = self.model.at("taken") + [t for t in self.model.at("waiting") if t.promise]
            settled = [t for t in self.model.at("settled") if t.mine][:3]
            if open_ones or settled:
                self._finish(rng, rng.choice(open_ones * 3 + settled), outcome)

    @rule(rng=randoms, rounds=st.integers(1, 4))
    def run(self, rng: Random, rounds: int) -> None:
        """What the engine does all day."""
        for _ in range(rounds):
            self.take(100)
            for task in self.model.at("taken"):
                if self.graph.assign(task.handle):
                    task.state = ASSIGNED
                    self._finish(rng, task, rng.choices([SUCCESS, ERROR], [20, 1])[0])
            for task in self.model.at("waiting"):
                if task.promise and rng.random() < 0.5:
                    self._finish(rng, task, SUCCESS)

    @rule(rng=randoms, again=st.booleans())
    def give_back(self, rng: Random, again: bool) -> None:
        if taken := self.model.at("taken"):
            task = rng.choice(taken)
            call = lib.mt_graph_return if again else lib.mt_graph_unassign
            call(self.graph.handle, task.handle)
            if again:
                self.model.make_ready([task])
            elif task.state != CANCELLED:
                task.state = READY

    @rule(rng=randoms, tell=st.booleans())
    def cancel(self, rng: Random, tell: bool) -> None:
        if mine := [task for task in self.model.tasks if task.mine]:
            waited_for = {k for task in self.model.at("waiting") for k in task.edges}
            rewarding = [task for task in mine if task.place != "settled" and task.number in waited_for]
            task = rng.choice(mine + rewarding * 3)
            can = task.state in (WAITING, READY)
            assert lib.mt_task_try_cancel(task.handle) == can
            if can:
                task.state = CANCELLED
                if tell:
                    self._tell(task)

    def _tell(self, task: Task) -> None:
        lib.mt_graph_cancelled(self.graph.handle, task.handle)
        if task.place not in ("new", "settled"):
            self.model.settle([task], CANCELLED, NEVER_RUN)

    @rule(rng=randoms)
    def tell_of_a_cancellation(self, rng: Random) -> None:
        """Early, late, or twice."""
        if cancelled := [t for t in self.model.tasks if t.state == CANCELLED and t.mine]:
            self._tell(rng.choice(cancelled))

    @precondition(lambda self: len(self.model.at("waiting", "ready", "taken")) > 15)
    @rule()
    def cancel_all(self) -> None:
        live = self.model.at("waiting", "ready", "taken")
        doomed = [task for task in live if task.state != ASSIGNED]
        lib.mt_graph_cancel_begin(self.graph.handle)
        given = []
        while (handle := lib.mt_graph_cancel_next(self.graph.handle)) != ffi.NULL:
            given.append(lib.mt_task_number(handle))
            assert lib.mt_task_state(handle) == CANCELLED
            lib.mt_graph_cancelled(self.graph.handle, handle)
            lib.mt_task_unref(handle)
        assert len(given) == len(set(given))
        assert set(given) <= {task.number for task in doomed}
        for task in doomed:
            task.state = CANCELLED
        self.model.settle(doomed, CANCELLED, NEVER_RUN)

    @precondition(lambda self: len(self.model.at("waiting", "ready", "taken")) > 25)
    @rule()
    def abandon(self) -> None:
        lib.mt_graph_abandon(self.graph.handle)
        live = self.model.at("waiting", "ready", "taken")
        for task in live:
            task.state = CANCELLED
        self.model.settle(live, CANCELLED, NEVER_RUN)

    @rule(rng=randoms, flag=st.sampled_from([WAITED, NOTIFY]), times=st.integers(1, 4))
    def wait(self, rng: Random, flag: int, times: int) -> None:
        open_ones = [task for task in self.model.tasks if task.place != "settled" and task.state != CANCELLED]
        for task in rng.choices(open_ones, k=times) if open_ones else []:
            wait_for(task.handle, flag)
            task.flags |= flag

    @rule()
    def take_ended(self) -> None:
        """In the order in which they ended; what one event ended may come in any order."""
        found = self.graph.take_ended()
        for group in self.model.ended:
            assert sorted(found[: len(group)]) == sorted(group)
            del found[: len(group)]
        assert found == []
        self.model.ended.clear()

    @rule(rng=randoms, share=st.sampled_from([0.1, 0.5]))
    def let_go(self, rng: Random, share: float) -> None:
        for task in self.model.at("settled"):
            if task.mine and rng.random() < share:
                lib.mt_task_unref(task.handle)
                task.mine = False

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.graph.check() == OK
        assert self.graph.counts() == self.model.counts()
        for task in self.model.tasks:
            if not task.mine:
                continue
            assert lib.mt_task_number(task.handle) == task.number
            assert lib.mt_task_state(task.handle) == task.state
            value = value_of(task.handle)
            if task.state == DEPENDENCY_FAILED:
                self.check_blame(task, value)
            else:
                assert value == task.value

    def check_blame(self, task: Task, value: Value | None) -> None:
        """It names an argument that failed, and what that one names, or that one itself."""
        assert value is not None
        assert task.value in (None, value), "a value never changes"
        task.value = value
        assert value.via in task.edges
        via = self.model.tasks[value.via]
        known = via.hands_on
        if via.state in (FAILED, CANCELLED):
            assert known is not None
            assert value == Value(known.data, known.codec, known.outcome, via.number, via.number)
        else:
            assert via.state == DEPENDENCY_FAILED
            if via.value is not None:
                assert value == Value(via.value.data, via.value.codec, via.value.outcome, via.value.cause, via.number)

    def teardown(self) -> None:
        if hasattr(self, "graph"):
            for task in self.model.tasks:
                if task.mine:
                    lib.mt_task_unref(task.handle)
            self.graph.destroy()
            assert self.memory.live == 0
            self.memory.close()


TestGraphAgainstModel = GraphAgainstModel.TestCase
TestGraphAgainstModel.settings = same_every_time(60, steps=40)


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
