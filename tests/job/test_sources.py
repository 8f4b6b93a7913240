"""File, line and text in tracebacks of workers, and `inspect.getsource` there, for functions that go by value."""

from __future__ import annotations

import linecache
import types

import cloudpickle
import pytest

from helpers.processes import LOCAL_PYTHON, Launcher, MpiStack
from mpitask import codec

FUNCTIONS = """
def helper(x):
    def inner():
        raise ValueError(f"no {x}")  # text of inner
    return inner()

def fails(x):
    return helper(x)  # text of fails

def source(_):
    import inspect
    return inspect.getsource(helper), helper.__code__.co_filename
"""
USE = """
import traceback, mpitask
with mpitask.load(workers=1):
    for call in (mpitask.python_app(fails), lambda x: mpitask.map(fails, [x]).futures[0]):
        try:
            call(3).result(30)
        except ValueError as error:
            text = str(error.__cause__)
        wanted = [f'File "{NAME}", line {FIRST + n}, in {f}' for n, f in ((3, "inner"), (4, "helper"), (7, "fails"))]
        assert [line.strip() for line in text.splitlines() if line.strip() in wanted][::-1] == wanted, text
        assert ("# text of inner" in text and "# text of fails" in text) == HAS_TEXT, text
    if HAS_TEXT:
        found, name = mpitask.python_app(source)(0).result(30)
        assert name == NAME, name
        assert found.startswith("def helper(x):") and found.rstrip().endswith("return inner()"), found
print("ok")
"""


def test_of_a_script(launcher: Launcher) -> None:
    result = launcher.run(FUNCTIONS + "NAME, FIRST, HAS_TEXT = __file__, 1, True\n" + USE)
    assert (result.rc, result.out) == (0, "ok\n"), result.err


def test_of_a_script_over_mpi(launcher: Launcher, mpi: MpiStack) -> None:
    result = launcher.run(FUNCTIONS + "NAME, FIRST, HAS_TEXT = __file__, 1, True\n" + USE, n=2, mpi=mpi)
    assert (result.rc, result.out) == (0, "ok\n"), result.err


def test_of_a_command(launcher: Launcher) -> None:
    program = "# a comment\n" + FUNCTIONS + "NAME, FIRST, HAS_TEXT = '<string>', 2, True\n" + USE
    result = launcher.run("", command=[str(LOCAL_PYTHON), "-c", program, "-c", "1 +"])
    assert (result.rc, result.out) == (0, "ok\n"), result.err


def test_of_cells(launcher: Launcher) -> None:
    """As IPython makes them: compiled under a name that is no file, with the text in linecache."""
    result = launcher.run(f"""
import linecache
def run(number, text):
    name = f"/tmp/ipykernel_{{number}}/no-such-file.py"
    linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
    exec(compile(text, name, "exec"), globals())
    return name

NAME, FIRST, HAS_TEXT = run(1, {FUNCTIONS!r}), 1, True
run(2, {USE!r})
""")
    assert (result.rc, result.out) == (0, "ok\n"), result.err


def test_text_that_is_nowhere_is_not_made_up(launcher: Launcher) -> None:
    """Neither the command's text nor a file's stands for what was compiled from another string."""
    program = f"exec({FUNCTIONS!r})\nNAME, FIRST, HAS_TEXT = '<string>', 1, False\n" + USE
    result = launcher.run("", command=[str(LOCAL_PYTHON), "-c", program])
    assert (result.rc, result.out) == (0, "ok\n"), result.err


def test_whatever_cloudpickle_does_with_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(code: types.CodeType) -> tuple[object, ...]:
        return types.FunctionType, (code.replace(co_filename="<spoilt>"), {})

    monkeypatch.setitem(cloudpickle.Pickler._dispatch_table, types.CodeType, spoil)
    text = "def outer():\n    def inner(): return 1\n    return inner\n"
    name = "<a cell of this test>"
    monkeypatch.setitem(linecache.cache, name, (len(text), None, text.splitlines(keepends=True), name))
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), space)
    kind, parts = codec.encode(space["outer"])
    monkeypatch.delitem(linecache.cache, name)
    outer = codec.decode(kind, b"".join(bytes(part) for part in parts))
    assert outer.__code__.co_filename == outer().__code__.co_filename == name
    assert linecache.getline(name, 2) == "    def inner(): return 1\n"
