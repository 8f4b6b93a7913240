"""Where the log goes."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import mpitask

LOG = logging.getLogger("mpitask")


def test_a_stream_gets_the_log_until_it_is_ended() -> None:
    stream, level = io.StringIO(), LOG.level
    end = mpitask.set_stream_logger(stream=stream, level=logging.INFO)
    LOG.info("one")
    LOG.debug("not this")
    end()
    LOG.warning("two")
    assert stream.getvalue().endswith("[INFO] one\n")
    assert stream.getvalue().count("\n") == 1
    assert LOG.level == level
    assert not LOG.handlers


def test_a_file_gets_json_with_what_was_given_as_extra(tmp_path: Path) -> None:
    end = mpitask.set_file_logger(tmp_path / "logs" / "run.jsonl", as_json=True)
    LOG.debug("task %d", 5, extra={"task": 5, "app": "f"})
    try:
        raise ValueError("boom")
    except ValueError:
        LOG.exception("failed")
    end()
    first, second = [json.loads(line) for line in (tmp_path / "logs" / "run.jsonl").read_text().splitlines()]
    assert (first["message"], first["task"], first["app"], first["level"]) == ("task 5", 5, "f", "DEBUG")
    assert first["time"].endswith("Z")
    assert "ValueError: boom" in second["exception"]
