"""The log: what is flushed is there, what is torn or damaged never is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpitask.errors import ConfigurationError, MpitaskError
from mpitask.memo import BadCheckpoint, Store, read_store, store

NEVER_S = 3600.0  # so that only flush and close make the thread sync

Records = list[tuple[str, bytes]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint" / "tasks.memo"


def write(path: Path, records: Records) -> list[int]:
    """Writes a store; the offsets at which it begins, and at which each record ends."""
    with Store.open(path, sync_s=NEVER_S) as log:
        offsets = [path.stat().st_size]
        for key, payload in records:
            log.append(key, payload)
            log.flush()
            offsets.append(path.stat().st_size)
    return offsets


@contextlib.contextmanager
def without_sync() -> Iterator[None]:
    """For tests that write often and do not crash."""
    with mock.patch.object(os, "fsync"), mock.patch.object(os, "fdatasync"):
        yield


RECORDS: Records = [("a", b"one"), ("", b""), ("key", bytes(range(20))), ("a", b"two")]

# -- round trips --


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=5000)), max_size=20))
def test_what_is_appended_is_read(tmp_path_factory: pytest.TempPathFactory, records: Records) -> None:
    path = tmp_path_factory.mktemp("store") / "log"
    half = len(records) // 2
    with without_sync():
        for part in (records[:half], records[half:]):
            with Store.open(path) as log:
                for key, payload in part:
                    log.append(key, payload)
    assert list(read_store(path)) == records


def test_large_records(path: Path) -> None:
    records = [(str(i), bytes([i]) * size) for i, size in enumerate([1 << 20, 1, (1 << 20) - 1, 3 << 20, 0])]
    with Store.open(path) as log:
        for record in records:
            log.append(*record)
    assert list(read_store(path)) == records


def test_a_store_can_be_read_while_it_is_written(path: Path) -> None:
    with Store.open(path, sync_s=NEVER_S) as log:
        assert list(read_store(path)) == []
        log.append("a", b"1")
        log.flush()
        assert list(read_store(path)) == [("a", b"1")]


def test_records_that_nobody_flushes_are_written_too(path: Path) -> None:
    with Store.open(path, sync_s=0.01) as log:
        for number in range(3):
            log.append(str(number), b"")
            deadline_s = time.monotonic() + 60
            while len(list(read_store(path))) <= number:
                assert time.monotonic() < deadline_s
                time.sleep(0.001)


def test_syncs_are_shared(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(fd), real(fd)))
    with Store.open(path, sync_s=NEVER_S) as log:
        for number in range(1000):
            log.append(str(number), b"")
        log.flush()
        log.flush()
    assert 1 <= len(syncs) <= 3  # one at once, one for the flush
    assert len(list(read_store(path))) == 1000


def test_many_threads_append_and_flush(path: Path) -> None:
    seen: list[set[str]] = []

    def run(name: int) -> None:
        for number in range(50):
            log.append(f"{name}.{number}", b"x" * number)
            if number % 10 == name:
                log.flush()
                mine = {key for key, _ in read_store(path) if key.startswith(f"{name}.")}
                seen.append({f"{name}.{i}" for i in range(number + 1)} - mine)

    with Store.open(path, sync_s=0) as log:
        threads = [threading.Thread(target=run, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == [set()] * 40
    records = list(read_store(path))
    assert len(records) == 400
    for name in range(8):
        mine = [key for key, _ in records if key.startswith(f"{name}.")]
        assert mine == [f"{name}.{number}" for number in range(50)]


# -- damage --


def test_cut_at_every_byte(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ends = write(path, RECORDS)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        caplog.clear()
        records = list(read_store(path))
        count = sum(end <= size for end in ends[1:])
        assert records == RECORDS[:count]
        torn = size not in (0, *ends)
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * torn

        with Store.open(path, sync_s=NEVER_S) as log:  # and such a store can be continued
            log.append("more", b"!")
        assert list(read_store(path)) == [*RECORDS[:count], ("more", b"!")]


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    ends = write(path, RECORDS)
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            before = max((end for end in ends if end <= position), default=0)
            if position < ends[-2]:
                got = []
                with pytest.raises(BadCheckpoint) as caught:
                    got += read_store(path)
                assert caught.value.offset == before
                assert caught.value.path == path
                if bit == position % 8:
                    with pytest.raises(BadCheckpoint):
                        Store.open(path)
                    assert path.read_bytes() == damaged
            else:  # the last record: cannot be told from one that was not written to its end
                assert list(read_store(path)) == RECORDS[:-1]


def test_damage_names_the_remedy(path: Path) -> None:
    ends = write(path, RECORDS)
    data = bytearray(path.read_bytes())
    data[ends[1] + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadCheckpoint, match=f"at byte {ends[1]}: damaged up to byte {ends[2]}.*truncate -s {ends[1]} "):
        list(read_store(path))
    os.truncate(path, ends[1])
    assert list(read_store(path)) == RECORDS[:1]


@given(st.data())
def test_damage_of_any_kind_gives_no_wrong_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("store") / "log"
    with without_sync():
        write(path, RECORDS)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 100)))
        content[start:end] = data.draw(st.binary(max_size=100) | st.just(bytes(end - start)) | st.just(content[:end]))
    path.write_bytes(content)
    got: Records = []
    try:
        for record in read_store(path):
            got.append(record)
    except BadCheckpoint:
        pass
    assert got == RECORDS[: len(got)]


def test_records_inside_a_payload_are_not_records(path: Path) -> None:
    ends = write(path, RECORDS)
    inner = path.read_bytes()
    other = path.with_name("other")
    first = write(other, [("outer", inner)])
    data = bytearray(other.read_bytes())
    data[-1] ^= 1  # inner records are valid, in their own file and place
    other.write_bytes(data)
    assert list(read_store(other)) == []
    os.truncate(other, first[-1] - 1)
    assert list(read_store(other)) == []
    path.write_bytes(inner[: ends[0]] + inner[ends[1] :])  # a valid record of this file, but not in its place
    assert list(read_store(path)) == []


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        (b"x", "does not begin as a checkpoint does"),
        (b"some text that is long enough for a header", "does not begin as a checkpoint does"),
        (store._make_header(b"12345678")[:-1] + b"!", "its header is damaged"),
    ]
    newer = store._HEADER.pack(store._MAGIC, 2, b"12345678")
    cases.append((newer + store._CRC.pack(store.crc32(newer)), "it has version 2, and this mpitask reads version 1"))
    for content, text in cases:
        other = tmp_path / "other"
        other.write_bytes(content)
        with pytest.raises(BadCheckpoint, match=text):
            list(read_store(other))
        with pytest.raises(BadCheckpoint, match=text):
            Store.open(other)
        assert other.read_bytes() == content
    with pytest.raises(BadCheckpoint, match=r"missing: it cannot be read: No such file"):
        list(read_store(tmp_path / "missing"))
    with pytest.raises(BadCheckpoint, match="Is a directory"):
        list(read_store(tmp_path))
    assert issubclass(BadCheckpoint, MpitaskError)
    assert str(BadCheckpoint("file", 7)) == "checkpoint file, at byte 7: it is damaged"


# -- wrong uses --


def test_wrong_uses(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="sync_s=-1: give a number of seconds"):
        Store.open(path, sync_s=-1)
    with Store.open(path) as log:
        for key, payload in ((1, b""), ("a", "b"), ("a", bytearray())):
            with pytest.raises(TypeError, match="a record is a str and bytes"):
                log.append(key, payload)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="surrogates"):
            log.append("\ud800", b"")
        with pytest.raises(ConfigurationError, match="is being written by another process"):
            Store.open(path)
        log.append("a", b"")
    log.close()
    log.flush()
    with pytest.raises(ValueError, match="is closed"):
        log.append("a", b"")
    assert list(read_store(path)) == [("a", b"")]


def test_a_full_disk_loses_nothing_once_there_is_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    room_bytes = 100

    def pwrite(fd: int, data: Any, offset: int) -> int:
        if offset + len(data) <= room_bytes:
            return real(fd, data, offset)
        if offset < room_bytes:
            return real(fd, data[: room_bytes - offset], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    records = [(str(number), b"x" * 50) for number in range(10)]
    log = Store.open(path, sync_s=NEVER_S)
    monkeypatch.setattr(os, "pwrite", pwrite)
    for record in records[:5]:
        log.append(*record)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            log.flush()
    assert len(list(read_store(path))) <= 1
    room_bytes = 1 << 20
    for record in records[5:]:
        log.append(*record)
    log.flush()
    assert list(read_store(path)) == records
    room_bytes = 0
    log.append("lost", b"")
    with pytest.raises(OSError, match="No space left"):
        log.close()
    assert list(read_store(path)) == records


def test_a_failed_sync_is_no_success(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdatasync
    failures = 3

    def fdatasync(fd: int) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise OSError(errno.EIO, "no luck")
        real(fd)

    with Store.open(path, sync_s=NEVER_S) as log:
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        log.append("a", b"1")
        with pytest.raises(OSError, match="no luck"):
            log.flush()
        while failures > 0:
            with pytest.raises(OSError, match="no luck"):
                log.flush()
        log.flush()
        assert list(read_store(path)) == [("a", b"1")]


AT_EXIT = """
import sys
from mpitask.memo.store import Store
log = Store.open(sys.argv[1], sync_s=3600)
log.append("a", b"1")
log.flush()
log.append("b", b"2")
"""


def test_the_end_of_the_program_flushes(path: Path) -> None:
    subprocess.run([sys.executable, "-c", AT_EXIT, path], check=True, timeout=60)
    assert list(read_store(path)) == [("a", b"1"), ("b", b"2")]


# -- killed --

# Forks a writer for each line "path first-number"; the writer tells what is flushed, until it is killed.
WRITERS = """
import os, random, sys
from mpitask.memo.store import Store
from test_store import payload

for line in sys.stdin:
    path, first = line.split()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        os.write(1, b"dead\\n")
        continue
    number = int(first)
    rng = random.Random(number)
    log = Store.open(path, sync_s=0)
    os.write(1, b"pid %d\\n" % os.getpid())
    while True:
        for _ in range(rng.randrange(1, 20)):
            log.append(str(number), payload(number))
            number += 1
        log.flush()
        os.write(1, b"%d\\n" % number)
"""


def payload(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (number * 7919 % 1024)


def kills(path: Path, count: int) -> Iterator[tuple[int, int]]:
    """Kills a writer so many times. Gives (records that were flushed, records that are there) of each."""
    rng = random.Random(count)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    first = 0
    with process:
        for _ in range(count):
            print(path, first, file=process.stdin, flush=True)
            pid = int(process.stdout.readline().removeprefix("pid "))
            lines = [process.stdout.readline() for _ in range(rng.randrange(3))]
            time.sleep(rng.random() * 0.01)
            os.kill(pid, signal.SIGKILL)
            lines += iter(process.stdout.readline, "dead\n")
            flushed = int(lines[-1]) if lines else first
            records = list(read_store(path))
            assert records == [(str(number), payload(number)) for number in range(len(records))]
            yield flushed, len(records)
            first = len(records)
            if first > 300:  # keep the files small
                path.unlink()
                first = 0
        process.stdin.close()


def check_kills(path: Path, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    beyond = 0
    for flushed, there in kills(path, count):
        assert there >= flushed
        beyond += there > flushed
    with capsys.disabled():
        print(f"\n  {count} kills, {beyond} of them with more on disk than was flushed")


def test_killed_writers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_kills(path, 20, capsys)


@pytest.mark.long
def test_writers_killed_often(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_kills(path, 200, capsys)


def test_a_forked_process_does_not_write(path: Path) -> None:
    code = """
import os, sys
from mpitask.memo.store import Store
log = Store.open(sys.argv[1], sync_s=3600)
log.append("a", b"1")
if os.fork() == 0:
    log.append("b", b"2")
    try:
        log.flush()
    except ValueError:
        log.close()
        os._exit(7)
    os._exit(0)
assert os.wait()[1] == 7 << 8
log.close()
"""
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=60)
    assert list(read_store(path)) == [("a", b"1")]


def test_throughput(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = 20_000
    key, value = "k" * 64, b"v" * 100
    with Store.open(path) as log:
        start_s = time.perf_counter()
        for _ in range(count):
            log.append(key, value)
        appended_s = time.perf_counter() - start_s
        log.flush()
        flushed_s = time.perf_counter() - start_s
    start_s = time.perf_counter()
    assert sum(1 for _ in read_store(path)) == count
    read_s = time.perf_counter() - start_s
    with capsys.disabled():
        print(
            f"\n  append {appended_s / count * 1e6:.2f} µs; {count / flushed_s:,.0f} records/s durable, "
            f"{count / read_s:,.0f} records/s read"
        )
