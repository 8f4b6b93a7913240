"""Tasks and the graph against a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

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
    NEVER_RUN,
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
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from memory import OK, SHRINKING_TAKES_LONG, Memory, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG


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
