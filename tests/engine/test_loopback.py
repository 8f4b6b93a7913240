"""Whole jobs of real engines in one process, from a seed: random graphs, delays, dying workers.

Every engine checks itself as it goes.

A failing seed replays: `MPITASK_SEED=n pytest tests/engine -k replay`.
"""

from __future__ import annotations

import os
import random
import struct
from typing import Any

import pytest

from mpitask.native import ffi, lib

SHORT_SEEDS, LONG_SEEDS = range(int(os.environ.get("MPITASK_SEEDS", "150"))), range(500, 10_500)
FUNCTIONS = 3
INLINE_LIMIT = 4096
PARTS_HEAD = 24
WORD = 1 << 64
MAX_KILLS = 300


class Job:
    """A world, and what must come out of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        rng = self.rng
        self.alloc = lib.mt_alloc_test_new(0)
        self.kills = rng.choice([0, 0, 2_000, 20_000])
        options = {
            "seed": seed,
            "ranks": rng.choice([1, 1, 2, 3, 5, 9]),
            "workers": rng.choice([1, 2, 3]),
            "fanout": rng.choice([1, 2, 64]),
            "ring_bytes": rng.choice([1024, 4096, 65536]),
            "frame_bytes": rng.choice([256, 1024, 16384]),
            "kills_per_million": self.kills,
            "submits_per_million": rng.choice([0, 0, 100_000, 900_000]),
        }
        self.world = lib.mt_world_new(self.alloc, ffi.new("mt_world_options *", options), FUNCTIONS)
        assert self.world
        self.tasks: list[Any] = []
        self.specs: list[dict[str, Any]] = []
        self.cancelled: set[int] = set()
        self.steps = 0

    def submit(self) -> None:
        rng = self.rng
        n = len(self.tasks)
        able = [i for i in range(n) if not self.is_list(i)]
        edges = [rng.choice(able) for _ in range(rng.choice([0, 0, 1, 2, 5, 30]))] if able else []
        promise = rng.random() < 0.05
        size = rng.choice([8, 8, 8, 24, 200, 4096, 5000, 40_000])
        behaviour = int(not promise and rng.random() < 0.05)
        number = rng.randrange(WORD)
        spec = {
            "edges": [] if promise else edges,
            "promise": promise,
            "size": size,
            "fails": behaviour,
            "number": number,
        }
        args = ffi.from_buffer(b"".join(x.to_bytes(8, "little") for x in (number, size, behaviour)))
        part = ffi.new("mt_part *", {"data": args, "size": 24})
        task = lib.mt_task_new(
            self.alloc,
            ffi.new(
                "mt_task_spec *",
                {
                    "number": n,
                    "fn": 0 if promise else rng.randrange(1, FUNCTIONS + 1),
                    "codec": lib.MT_CODEC_MARSHAL,
                    "priority": rng.choice([0, 0, 0, 1, -3]),
                    "retries": rng.choice([0, 0, 1, 5]),
                    "losses": rng.choice([0, 0, 0, 3]),
                    "n_edges": len(spec["edges"]),
                    "edges": (keep := ffi.new("mt_task *[]", [self.tasks[i] for i in spec["edges"]])),
                    "n_args": 1,
                    "args": part,
                },
            ),
        )
        assert task
        del keep
        assert lib.mt_world_submit(self.world, task) == 0
        self.tasks.append(task)
        self.specs.append(spec)

    def submit_span(self) -> None:
        rng = self.rng
        n = len(self.tasks)
        able = [i for i in range(n) if not self.is_list(i)]
        edges = [rng.choice(able) for _ in range(rng.choice([0, 0, 0, 1, 3]))] if able else []
        first, count = rng.choice([0, 0, 10**15]), rng.choice([1, 2, 40, 400, 3000])
        spec = {
            "edges": edges,
            "promise": False,
            "number": rng.randrange(WORD),
            "first": first,
            "count": count,
            "combine": rng.choice([0, 0, rng.randrange(1, FUNCTIONS + 1)]),
            "chunk": rng.choice([0, 0, 1, 7]),
            "losses": rng.choice([0, 0, 3]),
            "fails": rng.choice([0] * 7 + [first + rng.randrange(count) + 1]),
        }
        behaviour = lib.MT_WORLD_REDUCE if spec["combine"] else 0
        head = struct.pack("<QQQII", *(spec[name] for name in ("first", "count", "combine", "losses", "chunk")))
        args = ffi.from_buffer(head + struct.pack("<QQQ", spec["number"], spec["fails"], behaviour))
        keep = ffi.new("mt_task *[]", [self.tasks[i] for i in edges])
        part = ffi.new("mt_part *", {"data": args, "size": len(args)})
        task = lib.mt_task_new(
            self.alloc,
            ffi.new(
                "mt_task_spec *",
                {
                    "number": n,
                    "fn": rng.randrange(1, FUNCTIONS + 1),
                    "codec": lib.MT_CODEC_SPAN | lib.MT_CODEC_MARSHAL,
                    "priority": rng.choice([0, 0, 0, 1, -3]),
                    "retries": rng.choice([0, 0, 0, 1]),
                    "losses": 1,
                    "n_edges": len(edges),
                    "edges": keep,
                    "n_args": 1,
                    "args": part,
                },
            ),
        )
        assert task
        assert lib.mt_world_submit(self.world, task) == 0
        self.tasks.append(task)
        self.specs.append(spec)

    def is_list(self, i: int) -> bool:
        """Whether the value of task i is one of parts, whose bytes depend on how it was cut."""
        return self.specs[i].get("combine") == 0

    def cancel(self, i: int) -> None:
        if lib.mt_task_try_cancel(self.tasks[i]):
            self.cancelled.add(i)
            lib.mt_world_cancelled(self.world, self.tasks[i])

    def fulfil(self, i: int) -> None:
        assert lib.mt_world_fulfil(self.world, self.tasks[i], self.specs[i]["number"]) == 0

    def step(self) -> bool:
        self.steps += 1
        if self.kills and lib.mt_world_kills(self.world) >= MAX_KILLS:
            lib.mt_world_stop_killing(
                self.world
            )  # a ring so small that no large argument gets through between two deaths
        status = lib.mt_world_step(self.world)
        assert status >= 0, f"step {self.steps}: {ffi.string(lib.mt_status_text(status)).decode()}"
        return bool(status)

    def run_dry(self) -> None:
        while lib.mt_world_outstanding(self.world):
            assert self.step(), "nothing can happen any more, but tasks have not ended"
            assert self.steps < 3_000_000, "no end in sight"
        lib.mt_world_stop_killing(self.world)
        lib.mt_world_stop_submitting(self.world)
        while self.step():
            assert self.steps < 6_000_000, "engines that have nothing to do do not rest"

    def first_word(self, i: int) -> int:
        """What the oracle says the value of task i begins with."""
        spec = self.specs[i]
        if "word" not in spec:
            if spec["promise"]:
                spec["word"] = spec["number"]
            elif "count" in spec:
                spec["word"] = spec["count"]
            elif spec["size"] > INLINE_LIMIT:
                spec["word"] = spec["size"]
            else:
                spec["word"] = (spec["number"] + sum(self.first_word(k) for k in spec["edges"])) % WORD
        return int(spec["word"])

    def check_end(self, i: int) -> None:
        task, spec = self.tasks[i], self.specs[i]
        state = lib.mt_task_state(task)
        inputs = [lib.mt_task_state(self.tasks[k]) for k in spec["edges"]]
        if state == lib.MT_CANCELLED:
            assert i in self.cancelled
            return
        value = lib.mt_task_value(task)
        if state == lib.MT_DONE:
            assert all(s == lib.MT_DONE for s in inputs)
            assert not spec["fails"]
            if "count" in spec:
                self.check_span(spec, value)
                return
            assert value.size == (8 if spec["promise"] else spec["size"])
            assert int.from_bytes(ffi.buffer(value.data, 8)[:], "little") == self.first_word(i)
        elif state == lib.MT_FAILED:
            assert all(s == lib.MT_DONE for s in inputs)
            assert spec["fails"] if value.outcome == lib.MT_OUTCOME_ERROR else self.kills
        else:
            assert state == lib.MT_DEPENDENCY_FAILED
            assert value.via in spec["edges"]
            via = self.tasks[value.via]
            if lib.mt_task_state(via) == lib.MT_DEPENDENCY_FAILED:
                assert value.cause == lib.mt_task_value(via).cause
            else:
                assert lib.mt_task_state(via) in (lib.MT_FAILED, lib.MT_CANCELLED)
                assert value.cause == value.via

    def check_span(self, spec: dict[str, Any], value: Any) -> None:
        """Every item is there, once and in order."""
        data = bytes(ffi.buffer(value.data, value.size))
        base = spec["number"] + spec["first"] + sum(self.first_word(k) for k in spec["edges"])
        words = [(base + i) % WORD for i in range(spec["count"])]
        if spec["combine"]:
            found = 0
            for word in words:
                found = (found * lib.MT_WORLD_BASE + word) % WORD
            assert struct.unpack("<QQ", data) == (spec["count"], found)
            return
        assert value.codec == lib.MT_CODEC_PARTS
        seen: list[int] = []
        while data:
            count, size, kind, zero = struct.unpack_from("<QQII", data)
            assert (size, kind, zero) == (8 * count, lib.MT_CODEC_MARSHAL, 0)
            assert count <= (spec["chunk"] or spec["count"])
            seen += struct.unpack_from(f"<{count}Q", data, PARTS_HEAD)
            data = data[PARTS_HEAD + size :]
        assert seen == words

    def close(self) -> None:
        """Everything that was held is given back: no job, record, object or byte remains."""
        for task in self.tasks:
            lib.mt_task_unref(task)
        lib.mt_world_drop_functions(self.world)
        self.run_dry()
        assert lib.mt_world_residue(self.world) == 0
        self.below = int(lib.mt_world_below(self.world))
        self.recalled = int(lib.mt_world_recalled(self.world))
        lib.mt_world_destroy(self.world)
        assert lib.mt_alloc_test_live(self.alloc) == 0
        lib.mt_alloc_test_destroy(self.alloc)


def play(seed: int) -> Job:
    job = Job(seed)
    rng = job.rng
    spans = rng.choice([0, 0, 0.1, 1])
    for _ in range(rng.choice([5, 30, 120] if spans < 1 else [2, 5])):
        if rng.random() < spans:
            job.submit_span()
        else:
            job.submit()
        for _ in range(rng.choice([0, 0, 3, 40])):
            job.step()
        if rng.random() < 0.05:
            job.cancel(rng.randrange(len(job.tasks)))
    for i, spec in enumerate(job.specs):
        if spec["promise"]:
            job.fulfil(i)
    if rng.random() < 0.1:
        before = [lib.mt_task_state(task) for task in job.tasks]
        lib.mt_world_cancel_all(job.world)
        after = [lib.mt_task_state(task) for task in job.tasks]
        job.cancelled |= {i for i in range(len(before)) if after[i] == lib.MT_CANCELLED}
        assert all(s not in (lib.MT_WAITING, lib.MT_READY) for s in after)
    job.run_dry()
    assert lib.mt_world_outstanding(job.world) == 0
    for i in range(len(job.tasks)):
        job.check_end(i)
    job.close()
    return job


def test_short_seeds() -> None:
    recalled = below = 0
    for seed in SHORT_SEEDS:
        try:
            job = play(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        recalled += job.recalled
        below += job.below
    assert recalled > len(SHORT_SEEDS), "these worlds no longer take jobs back from lanes that are behind"
    assert below > len(SHORT_SEEDS) // 4, "workers of these worlds no longer submit sub-tasks"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_long_seeds() -> None:
    for seed in LONG_SEEDS:
        try:
            play(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_replay_is_exact() -> None:
    seed = int(os.environ.get("MPITASK_SEED", "7"))
    assert play(seed).steps == play(seed).steps
