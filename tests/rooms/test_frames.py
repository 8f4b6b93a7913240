"""Records: what `mt_record_check` takes and refuses; blobs, which carry their bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import OK, SHRINKING_TAKES_LONG, Memory, each_allocation_failing, exact, same_every_time

from mpitask.native import ffi, lib

pytestmark = SHRINKING_TAKES_LONG

PARENT, CHILD, WORKER, ZYGOTE = lib.MT_ROLE_PARENT, lib.MT_ROLE_CHILD, lib.MT_ROLE_WORKER, lib.MT_ROLE_ZYGOTE
ROLES = [PARENT, CHILD, WORKER, ZYGOTE]
HEAD, TASK_HEAD, RESULT_HEAD, LOST, WHERE, SPAN_HEAD = 24, 48, 32, 16, 40, 32
EDGE = 24


@dataclass(frozen=True)
class Row:
    """What frames.h says about a kind."""

    name: str
    senders: int
    receivers: int
    answer: int
    min_size: int


ALL = PARENT | CHILD | WORKER
KINDS = {
    lib.MT_KIND_TASK: Row("TASK", ALL, ALL, lib.MT_KIND_RESULT, TASK_HEAD),
    lib.MT_KIND_RESULT: Row("RESULT", ALL, ALL, 0, RESULT_HEAD),
    lib.MT_KIND_OBJECT: Row("OBJECT", ALL, ALL, 0, HEAD),
    lib.MT_KIND_DROP: Row("DROP", ALL, ALL, 0, HEAD),
    lib.MT_KIND_HELLO: Row("HELLO", CHILD | WORKER | ZYGOTE, PARENT, 0, HEAD),
    lib.MT_KIND_STOP: Row("STOP", PARENT, CHILD | WORKER | ZYGOTE, lib.MT_KIND_BYE, HEAD),
    lib.MT_KIND_BYE: Row("BYE", CHILD, PARENT, 0, HEAD),
    lib.MT_KIND_SPAWN: Row("SPAWN", PARENT, ZYGOTE, lib.MT_KIND_EXITED, HEAD),
    lib.MT_KIND_KILL: Row("KILL", PARENT, ZYGOTE, lib.MT_KIND_EXITED, HEAD),
    lib.MT_KIND_EXITED: Row("EXITED", ZYGOTE, PARENT, 0, HEAD + LOST),
    lib.MT_KIND_SLOTS: Row("SLOTS", ALL, ALL, 0, HEAD),
    lib.MT_KIND_RESUME: Row("RESUME", PARENT, WORKER, 0, HEAD),
    lib.MT_KIND_RECALL: Row("RECALL", ALL, PARENT | CHILD, lib.MT_KIND_RECALLED, HEAD + 16),
    lib.MT_KIND_RECALLED: Row("RECALLED", PARENT | CHILD, ALL, 0, HEAD),
    lib.MT_KIND_IDLE: Row("IDLE", CHILD, PARENT, 0, HEAD),
}


def pad8(size: int) -> int:
    return (size + 7) // 8 * 8


@dataclass(frozen=True)
class Record:
    """A record whose header may lie: `claimed` is the size in it, None for the true one."""

    kind: int
    n: int = 0
    body: bytes = b""
    claimed: int | None = None
    flags: int = 0

    @property
    def raw(self) -> bytes:
        size = HEAD + len(self.body)
        claimed = size if self.claimed is None else self.claimed
        return struct.pack("<QQHHI", claimed, 7, self.kind, self.flags, self.n) + self.body


def task(edges: list[tuple[int, int]], values: int, args: bytes = b"", n: int | None = None) -> Record:
    """A TASK record with (object, size) edges and `values` bytes of inline values."""
    refs = b"".join(struct.pack("<QQQ", o, size, 1) for o, size in edges)
    body = struct.pack("<QiIq", 1, 0, 0, 1) + refs + bytes(values) + args
    return Record(lib.MT_KIND_TASK, len(edges) if n is None else n, body)


def check(record: Record, sender: int, size: int | None = None) -> int:
    raw = record.raw
    return int(lib.mt_record_check(exact(raw), len(raw) if size is None else size, sender))


def allowed(record: Record, sender: int) -> bool:
    """The oracle: the rules of frames.h, without the arithmetic of the C code (Python's integers do not overflow)."""
    raw = record.raw
    row = KINDS.get(record.kind)
    if row is None or not row.senders & sender:
        return False
    if struct.unpack_from("<Q", raw)[0] != len(raw) or len(raw) < row.min_size:
        return False
    if record.kind == lib.MT_KIND_RESULT and sender != WORKER and record.n == lib.MT_OUTCOME_RETURNED:
        return len(record.body) in (8, 16)  # the duration, and how many items
    if record.kind == lib.MT_KIND_RESULT:
        return record.n <= (lib.MT_OUTCOME_CANCELLED if sender == WORKER else lib.MT_OUTCOME_RETURNED)
    if record.kind == lib.MT_KIND_TASK:
        room = len(raw) - TASK_HEAD - record.n * EDGE
        if room < 0:
            return False
        refs = [struct.unpack_from("<QQQ", raw, TASK_HEAD + i * EDGE) for i in range(record.n)]
        room -= sum(pad8(size) for object_id, size, _ in refs if object_id == 0)
        if room < 0 or not record.flags & lib.MT_CODEC_SPAN:
            return room >= 0
        first, count = struct.unpack_from("<QQ", raw, len(raw) - room) if room >= SPAN_HEAD else (0, 0)
        return count > 0 and first + count < 2**64
    if record.kind == lib.MT_KIND_OBJECT and record.flags & lib.MT_CODEC_MAPPED:
        return len(raw) == HEAD + WHERE
    if record.kind in (lib.MT_KIND_HELLO, lib.MT_KIND_SLOTS, lib.MT_KIND_IDLE):
        return record.n <= lib.MT_MAX_SLOTS
    return True


sizes = st.one_of(st.integers(0, 40), st.sampled_from([2**32, 2**63, 2**64 - 8, 2**64 - 7, 2**64 - 1]))
tasks = st.builds(
    task,
    st.lists(st.tuples(st.sampled_from([0, 0, 5]), sizes), max_size=5),
    st.integers(0, 120),
    st.binary(max_size=9),
    st.one_of(st.none(), st.integers(0, 7), st.sampled_from([2**31, 2**32 - 1])),
)
bodies = st.one_of(st.binary(max_size=40), st.just(bytes(WHERE)))
others = st.builds(
    Record,
    st.integers(0, 15),
    st.one_of(st.integers(0, 5), st.just(2**32 - 1)),
    bodies,
    flags=st.sampled_from([0, 0, 2, lib.MT_CODEC_MAPPED, lib.MT_CODEC_MAPPED | 3, 2**16 - 1]),
)
claims = st.sampled_from([None, None, None, None, 24, 40, 64, 2**64 - 1])
senders = st.sampled_from([*[PARENT] * 6, CHILD, WORKER, ZYGOTE, CHILD | WORKER, PARENT | ZYGOTE, 0])


def test_the_table_of_kinds_says_who_sends_what_to_whom() -> None:
    for kind, expected in KINDS.items():
        row = lib.mt_kind(kind)
        found = Row(ffi.string(row.name).decode(), row.sender, row.receiver, row.answer, row.min_size)
        assert found == expected
    assert [k for k in range(100) if lib.mt_kind(k) != ffi.NULL] == sorted(KINDS)
    assert lib.mt_kind(2**32 - 1) == ffi.NULL


def test_structures_have_the_sizes_that_the_wire_format_states() -> None:
    names = ["mt_rec", "mt_rec_task", "mt_rec_result", "mt_edge_ref", "mt_lost", "mt_where", "mt_frame_head"]
    assert [ffi.sizeof(name) for name in names] == [HEAD, TASK_HEAD, RESULT_HEAD, EDGE, LOST, WHERE, 8]


@same_every_time(200)
@given(tasks, claims, senders)
def test_random_task_records_are_judged_as_the_rules_say(record: Record, claimed: int | None, sender: int) -> None:
    record = replace(record, claimed=claimed)
    assert check(record, sender) == (OK if allowed(record, sender) else lib.MT_E_RECORD)


BIG = st.sampled_from([0, 1, 2, 2**63, 2**64 - 2, 2**64 - 1])


@same_every_time(200)
@given(
    st.lists(st.tuples(st.sampled_from([0, 5]), st.integers(0, 20)), max_size=3),
    st.tuples(BIG, BIG, BIG, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.integers(0, SPAN_HEAD + 9),
)
def test_spans_have_items_whose_numbers_fit(
    edges: list[tuple[int, int]], span: tuple[int, int, int, int, int], length: int
) -> None:
    args = (struct.pack("<QQQII", *span) + bytes(9))[:length]
    inline = sum(pad8(size) for object_id, size in edges if object_id == 0)
    first, count, *_ = span
    makes_sense = length >= SPAN_HEAD and count > 0 and first + count < 2**64
    for flags, is_span in [(0, False), (lib.MT_CODEC_SPAN, True), (lib.MT_CODEC_SPAN | lib.MT_CODEC_MARSHAL, True)]:
        record = replace(task(edges, inline, args), flags=flags)
        assert check(record, CHILD) == (OK if makes_sense or not is_span else lib.MT_E_RECORD)


@same_every_time(200)
@given(others, claims, st.one_of(st.just(PARENT | CHILD | WORKER | ZYGOTE), senders))
def test_random_records_of_all_kinds_are_judged_as_the_rules_say(
    record: Record, claimed: int | None, sender: int
) -> None:
    record = replace(record, claimed=claimed)
    assert check(record, sender) == (OK if allowed(record, sender) else lib.MT_E_RECORD)


@same_every_time(200)
@given(st.binary(max_size=200), st.sampled_from(ROLES))
def test_noise_behind_a_true_size_never_reads_beyond_its_end(noise: bytes, sender: int) -> None:
    noise = struct.pack("<Q", len(noise))[: len(noise)] + noise[8:]
    kind, flags, n = struct.unpack_from("<HHI", noise, 16) if len(noise) >= HEAD else (0, 0, 0)
    good = len(noise) >= HEAD and allowed(Record(kind, n, noise[HEAD:], flags=flags), sender)
    assert lib.mt_record_check(exact(noise), len(noise), sender) == (OK if good else lib.MT_E_RECORD)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_is_taken_from_its_senders_only(kind: int) -> None:
    row = KINDS[kind]
    record = Record(kind, body=bytes(row.min_size - HEAD))
    for sender in ROLES:
        assert check(record, sender) == (OK if row.senders & sender else lib.MT_E_RECORD)
    assert check(record, 0) == lib.MT_E_RECORD


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_record_shorter_than_its_kind_needs_is_refused(kind: int) -> None:
    row = KINDS[kind]
    sender = row.senders & -row.senders
    for size in range(row.min_size):
        raw = struct.pack("<QQHHI", size, 7, kind, 0, 0) + bytes(row.min_size)
        assert lib.mt_record_check(exact(raw[:size]), size, sender) == lib.MT_E_RECORD
    assert check(Record(kind, body=bytes(row.min_size - HEAD)), sender) == OK


def test_a_truncated_task_is_refused_at_every_length() -> None:
    whole = task([(0, 13), (9, 2**40), (0, 8)], 24, b"arguments")
    assert check(whole, PARENT) == OK
    must_be_there = TASK_HEAD + 3 * EDGE + 24
    for length in range(len(whole.raw)):
        cut = whole.raw[:length]
        assert lib.mt_record_check(exact(cut), length, PARENT) == lib.MT_E_RECORD
        honest = Record(whole.kind, whole.n, whole.body[: max(0, length - HEAD)])
        if length >= HEAD:
            assert check(honest, PARENT) == (OK if length >= must_be_there else lib.MT_E_RECORD)


def test_the_size_in_the_header_must_be_the_size_that_arrived() -> None:
    record = Record(lib.MT_KIND_OBJECT, body=bytes(16))
    assert check(record, PARENT, 40) == OK
    assert check(record, PARENT, 39) == lib.MT_E_RECORD
    assert check(record, PARENT, HEAD) == lib.MT_E_RECORD
    assert check(record, PARENT, 0) == lib.MT_E_RECORD
    assert check(replace(record, claimed=41), PARENT) == lib.MT_E_RECORD


def test_more_edges_than_fit_are_refused_even_where_their_bytes_overflow() -> None:
    for n in [3, 2**31, 2**32 - 1, 2**32 // EDGE + 1]:
        assert check(task([(5, 0), (5, 0)], 0, b"x" * 23, n), PARENT) == lib.MT_E_RECORD
    assert check(task([(5, 0), (5, 0)], 0, b"x" * 23), PARENT) == OK


@pytest.mark.parametrize("size", [17, 2**63, 2**64 - 1, 2**64 - 7, 2**64 - 8])
def test_an_inline_value_larger_than_the_record_is_refused(size: int) -> None:
    assert check(task([(0, size)], 16), PARENT) == lib.MT_E_RECORD
    assert check(task([(0, 8), (0, size - 8)], 16), PARENT) == lib.MT_E_RECORD
    assert check(task([(0, 16)], 16), PARENT) == OK
    assert check(task([(1, size)], 0), PARENT) == OK, "an object's size is not in the record"


def test_an_inline_value_needs_its_padding() -> None:
    assert check(task([(0, 9)], 15), PARENT) == lib.MT_E_RECORD
    assert check(task([(0, 9)], 16), PARENT) == OK


def test_a_result_with_an_unknown_outcome_is_refused() -> None:
    for n in range(4):
        assert check(Record(lib.MT_KIND_RESULT, n, bytes(8)), WORKER) == OK
    for n, sender in [(lib.MT_OUTCOME_RETURNED, WORKER), (5, CHILD), (2**32 - 1, WORKER)]:
        assert check(Record(lib.MT_KIND_RESULT, n, bytes(8)), sender) == lib.MT_E_RECORD
    assert check(Record(lib.MT_KIND_RESULT, lib.MT_OUTCOME_RETURNED, bytes(8)), CHILD) == OK


def test_every_status_has_a_sentence_of_its_own() -> None:
    codes = [getattr(lib, name) for name in dir(lib) if name.startswith("MT_E_")]
    texts = {ffi.string(lib.mt_status_text(code)).decode() for code in [OK, *codes]}
    assert len(texts) == len(codes) + 1 == 14
    unknown = ffi.string(lib.mt_status_text(-1000)).decode()
    assert unknown == ffi.string(lib.mt_status_text(7)).decode() == "unknown status"
    assert unknown not in texts


def test_a_blob_costs_one_allocation_and_goes_with_its_last_reference() -> None:
    def scenario(memory: Memory) -> None:
        keep = ffi.new("char[]", b"abc")
        for parts in [[], [("abc", 3)], [("", 0), ("abc", 3), ("", 0), ("abc", 2)]]:
            rows = [(keep if text else ffi.NULL, size) for text, size in parts]
            given_parts = ffi.new("mt_part[]", rows)
            before = memory.live
            blob = memory.attempt(partial(lib.mt_blob_from_parts, memory.alloc, given_parts, len(given_parts)))
            assert memory.live == before + 1
            lib.mt_blob_unref(blob)
            assert memory.live == before
        lib.mt_blob_unref(ffi.NULL)

    assert each_allocation_failing(scenario) == 3
