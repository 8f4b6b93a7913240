"""What a later run gets back."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from mpitask.memo import BadCheckpoint, Store, get_all_checkpoints, get_last_checkpoint, load_checkpoints
from mpitask.memo.checkpoints import STORE_NAME, STREAM_NAME


class Gone:
    """A class that a later run does not have."""


class Explosive:
    """Unpickling raises what also ends a file."""

    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> None:
    raise EOFError("deliberate")


def store(path: Path, records: dict[str, Any]) -> Path:
    with Store.open(path) as log:
        for key, value in records.items():
            log.append(key, pickle.dumps(value))
    return path


def stream(path: Path, records: dict[str, Any], protocol: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for key, value in records.items():
            pickle.dump({"hash": key, "exception": None, "result": value}, file, protocol)
    return path


def test_stores_streams_and_directories(tmp_path: Path) -> None:
    one = store(tmp_path / "one", {"a": 1, "b": [2]})
    two = stream(tmp_path / "two", {"b": "two", "c": None})
    both = tmp_path / "both"
    stream(both / STREAM_NAME, {"d": 1, "e": 1})
    store(both / STORE_NAME, {"e": 2})
    assert load_checkpoints([]) == {}
    assert load_checkpoints(one) == load_checkpoints(str(one)) == {"a": 1, "b": [2]}
    assert load_checkpoints([one, str(two)]) == {"a": 1, "b": "two", "c": None}
    assert load_checkpoints([two, one]) == {"a": 1, "b": [2], "c": None}
    assert load_checkpoints(both) == {"d": 1, "e": 2}


def test_of_several_results_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with Store.open(path) as log:
        for number in range(3):
            log.append("a", pickle.dumps(number))
    assert load_checkpoints(path) == {"a": 2}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_streams_of_other_engines(tmp_path: Path, protocol: int, caplog: pytest.LogCaptureFixture) -> None:
    results = {str(number): list(range(number)) for number in range(50)}
    path = stream(tmp_path / STREAM_NAME, results, protocol)
    with path.open("ab") as file:
        pickle.dump({"hash": "failed", "exception": ValueError("no"), "result": None}, file, protocol)
    assert load_checkpoints(path) == results
    assert not caplog.records


def test_a_stream_cut_at_every_byte(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / STREAM_NAME
    results = {"a": "one", "b": b"x" * 300, "c": 3}
    ends = []
    for key, value in results.items():
        stream(path, {key: value})
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        caplog.clear()
        count = sum(end <= size for end in ends)
        assert list(load_checkpoints(path)) == list(results)[:count]
        assert len(caplog.records) == (size not in (0, *ends))


def test_damaged_streams(tmp_path: Path) -> None:
    path = stream(tmp_path / STREAM_NAME, {"a": 1})
    first = path.stat().st_size
    stream(path, {"b": 2})
    data = path.read_bytes()
    path.write_bytes(data[:first] + b"\xff" + data[first + 1 :])
    with pytest.raises(BadCheckpoint, match=f"at byte {first}: no pickle") as caught:
        load_checkpoints(path)
    assert caught.value.offset == first
    path.write_bytes(pickle.dumps({"hash": "a", "exception": None, "result": 1}) + pickle.dumps([1]))
    with pytest.raises(BadCheckpoint, match="not one of a task"):
        load_checkpoints(path)


def test_results_that_cannot_be_unpickled_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    results = {"a": 1, "gone": Gone(), "explosive": Explosive(), "b": 2}
    paths = [stream(tmp_path / STREAM_NAME, results), store(tmp_path / STORE_NAME, results)]
    monkeypatch.delattr(f"{__name__}.Gone")
    for path in paths:
        caplog.clear()
        assert load_checkpoints(path) == {"a": 1, "b": 2}
        assert len(caplog.records) == 2


def test_what_is_missing_or_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("what a nice text this is, and long enough")
    (tmp_path / "000" / "checkpoint").mkdir(parents=True)
    for name, reason in [
        ("text", "does not begin as a checkpoint does"),
        ("missing", "No such file"),
        ("000/checkpoint", "there is neither tasks.memo nor tasks.pkl in it"),
        ("000", "in it; do you mean .*/000/checkpoint"),
    ]:
        with pytest.raises(BadCheckpoint, match=reason) as caught:
            load_checkpoints([tmp_path / name])
        assert (caught.value.path, caught.value.offset) == (tmp_path / name, 0)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)


def test_empty_files_hold_nothing(tmp_path: Path) -> None:
    for name in (STORE_NAME, STREAM_NAME):
        (tmp_path / name).touch()
        assert load_checkpoints(tmp_path / name) == {}
    assert load_checkpoints(tmp_path) == {}


def test_the_checkpoints_of_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_all_checkpoints(tmp_path / "missing") == get_last_checkpoint(str(tmp_path / "missing")) == []
    runinfo = tmp_path / "runinfo"
    for run in ("000", "002", "999", "1000"):
        store(runinfo / run / "checkpoint" / STORE_NAME, {run: 1})
    stream(runinfo / "001" / "checkpoint" / STREAM_NAME, {"001": 1})
    (runinfo / "1001").mkdir()  # a run without a checkpoint
    (runinfo / "1002" / "checkpoint").mkdir(parents=True)  # one that ended before its first
    (runinfo / "monitoring.db").touch()
    (runinfo / "1003").touch()
    expected = [str(runinfo / run / "checkpoint") for run in ("000", "001", "002", "999", "1000")]
    assert get_all_checkpoints(runinfo) == expected
    assert get_last_checkpoint(runinfo) == expected[-1:]
    assert list(load_checkpoints(get_all_checkpoints(str(runinfo)))) == ["000", "001", "002", "999", "1000"]
    monkeypatch.chdir(tmp_path)
    assert get_all_checkpoints() == expected
    assert get_last_checkpoint() == expected[-1:]


calls: list[str] = []


class Counted:
    def __reduce__(self) -> Any:
        return calls.append, ("unpickled",)


def test_the_end_of_a_damaged_stream_is_found_without_running_it(tmp_path: Path) -> None:
    path = stream(tmp_path / STREAM_NAME, {"a": 1})
    path.write_bytes(path.read_bytes() + pickle.dumps({"hash": "b", "exception": None, "result": Counted()})[:-1])
    assert load_checkpoints(path) == {"a": 1}
    assert len(calls) <= 1  # by the attempt to load it


# -- who wrote it --


@pytest.mark.parametrize("name", [STORE_NAME, STREAM_NAME])
def test_what_others_may_write_is_refused(tmp_path: Path, name: str) -> None:
    path = (store if name == STORE_NAME else stream)(tmp_path / name, {"a": 1})
    for mode, who in ((0o660, "its group"), (0o602, "everybody")):
        path.chmod(mode)
        with pytest.raises(BadCheckpoint, match=f"{who} may write it.*run `chmod go-w {path}`"):
            load_checkpoints(tmp_path)
    for mode in (0o600, 0o644):
        path.chmod(mode)
        assert load_checkpoints(tmp_path) == {"a": 1}


def test_what_belongs_to_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path / STORE_NAME, {"a": 1})
    path.chmod(0o644)
    owner = path.stat().st_uid
    monkeypatch.setattr("mpitask.private.os.geteuid", lambda: owner + 1)
    monkeypatch.setattr("mpitask.private._ROOT", owner + 2)
    with pytest.raises(BadCheckpoint, match=r"it belongs to the user .*: if you trust what is in it, copy it"):
        load_checkpoints(path)
    monkeypatch.setattr("mpitask.private._ROOT", owner)
    assert load_checkpoints(path) == {"a": 1}
