"""The key of a call: the same for calls that give the same function the same arguments, however they are written.

`f(1, y=2)`, `f(1, 2)` and, where 2 is the default of y, `f(1)` are one call: arguments are bound to the parameters
first. That is done here and not by `inspect.Signature.bind`, which alone would take longer than all the rest; the
signature is read once for each function. A call that does not fit the signature gets a key of what was written; it
will fail when it runs. Of a function that hands its arguments on to the one that it wraps, only the names are taken
from that one: what such a function makes of a call that leaves something out, nobody knows.

Thread rule: every function may be called from any thread.
"""

from __future__ import annotations

import inspect
import types
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from mpitask.memo.functions import Definition, name_id, with_values
from mpitask.memo.identity import enter, id_for_memo, item, names_only, seal, sequence, text

__all__ = ["Identity", "id_for_memo", "make_key"]

# They change when keys change, so that old checkpoints are not taken for new ones.
_VERSION = b"mpitask memo 2\0"
_VERSION_BY_NAME = b"mpitask memo 1\0"
_REFERENCES = frozenset({"outputs", "stdout", "stderr"})  # parameters that say where output goes
_BOUND, _WRITTEN = b"=", b"!"

_P = inspect.Parameter


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a function takes its arguments. Valid while `code` and the defaults are those of the function."""

    code: types.CodeType | None
    defaults: tuple[Any, ...] | None
    keyword_defaults: dict[str, Any] | None
    labels: dict[str, bytes]  # of all parameters but *args and **kwargs, in order; the encoded name of each
    positional: tuple[str, ...]
    by_keyword: frozenset[str]
    default_of: dict[str, Any]
    rest: str | None  # the name of *args
    extra: str | None  # the name of **kwargs
    as_written: bool  # the names are those of a wrapped function: how the call is written may mean something

    def bind(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Sequence[Any], dict[str, Any]] | None:
        """(parameters, *args, **kwargs) of a call; None when it does not fit. Arguments may be missing."""
        count = len(self.positional)
        rest = args[count:]
        if rest and self.rest is None:
            return None
        bound = dict(zip(self.positional, args, strict=False))
        extra = {}
        for name, value in kwargs.items():
            if name in self.by_keyword:
                if name in bound:
                    return None
                bound[name] = value
            elif self.extra is None:
                return None
            else:
                extra[name] = value
        for name, value in self.default_of.items():
            if name not in bound:
                bound[name] = value
        return bound, rest, extra


_plans: weakref.WeakKeyDictionary[Any, _Plan | None] = weakref.WeakKeyDictionary()


def _signature_of(fn: Callable[..., Any]) -> tuple[inspect.Signature, bool]:
    """The parameters, and whether they are those of another function."""
    own = vars(fn) if isinstance(fn, types.FunctionType) else {}
    if "__signature__" in own:
        return inspect.signature(fn), True
    signature = inspect.signature(fn, follow_wrapped=False)
    if "__wrapped__" in own and all(
        p.kind in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD) for p in signature.parameters.values()
    ):
        return inspect.signature(fn), True
    return signature, False


def _make_plan(fn: Callable[..., Any]) -> _Plan | None:
    try:
        signature, as_written = _signature_of(fn)
    except (TypeError, ValueError):  # many functions written in C
        return None
    parameters = signature.parameters.values()
    plain = [p for p in parameters if p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)]
    names = {p.kind: p.name for p in parameters}
    return _Plan(
        code=getattr(fn, "__code__", None),
        defaults=getattr(fn, "__defaults__", None),
        keyword_defaults=getattr(fn, "__kwdefaults__", None),
        labels={p.name: text(p.name) for p in plain},
        positional=tuple(p.name for p in plain if p.kind is not _P.KEYWORD_ONLY),
        by_keyword=frozenset(p.name for p in plain if p.kind is not _P.POSITIONAL_ONLY),
        default_of={} if as_written else {p.name: p.default for p in plain if p.default is not _P.empty},
        rest=names.get(_P.VAR_POSITIONAL),
        extra=names.get(_P.VAR_KEYWORD),
        as_written=as_written,
    )


def _plan_of(fn: Callable[..., Any]) -> _Plan | None:
    if type(fn) is not types.FunctionType:
        return _make_plan(fn)  # other callables may be equal to one another, or change
    plan = _plans.get(fn)
    if (
        plan is None
        or plan.code is not fn.__code__
        or plan.defaults is not fn.__defaults__
        or plan.keyword_defaults is not fn.__kwdefaults__
    ):
        plan = _plans[fn] = _make_plan(fn)
    return plan


class Identity:
    """What a function is, asked for again and again. Keeps the function, and what it knows of it.

    Defaults of its parameters do not belong to it where they are put in for arguments that a call leaves out.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._definition: tuple[Definition, bool] | None = None

    def now(self) -> bytes:
        """What the function is at this moment.

        Raises:
            ValueError: it refers to something that cannot be identified; the message says what and where.
        """
        fn = self._fn
        if not isinstance(fn, types.FunctionType):
            return item(fn)
        plan = _plan_of(fn)
        defaults = plan is None or plan.as_written
        known = self._definition
        if known is None or known[1] is not defaults or not known[0].holds():
            known = self._definition = Definition(fn, defaults=defaults), defaults
        definition = known[0]
        return enter(fn, False, lambda *_: with_values(definition)) if definition.values else with_values(definition)


def make_key(  # noqa: PLR0917 - all but the first are named in calls
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    ignore: Iterable[str] | None = (),
    by_name: bool = False,
    outputs: Sequence[Any] = (),
    identity: bytes | None = None,
) -> str:
    """The key of a call.

    Args:
        fn: the function that is called.
        args: its positional arguments.
        kwargs: its keyword arguments. Those named outputs, stdout and stderr say where output goes: of a file there,
            only the name counts.
        ignore: names of parameters that do not count, however their arguments are given; unknown ones are no error.
        by_name: functions and classes are their names, so that an edited function is the same.
        outputs: further places where output goes.
        identity: what `Identity(fn).now()` has given, if that is known.

    Returns:
        64 hexadecimal digits.

    Raises:
        NotIdentified: the function, or one among the arguments, refers to something that cannot be identified.
        ValueError: an argument cannot be identified; the message names its type and says how to register it.
    """
    if by_name:
        with names_only():
            return _digest([_VERSION_BY_NAME, name_id(fn)], fn, args, kwargs, ignore, outputs)
    return _digest([_VERSION, identity or Identity(fn).now()], fn, args, kwargs, ignore, outputs)


def _digest(  # noqa: PLR0917 - as make_key
    parts: list[bytes],
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    ignore: Iterable[str] | None,
    outputs: Sequence[Any],
) -> str:
    ignored = {ignore} if isinstance(ignore, str) else frozenset(ignore or ())
    plan = _plan_of(fn)
    bound = None if plan is None else plan.bind(args, kwargs)
    if plan is None or bound is None:
        parts += [_WRITTEN, sequence(b"*", args, False), _keywords(kwargs, ignored)]
    else:
        parts.append(_BOUND)
        values, rest, extra = bound
        if plan.as_written:
            parts.append(b"%d" % len(args))
        for name, label in plan.labels.items():
            if name in values and name not in ignored:
                parts.append(label)
                parts.append(item(values[name], name in _REFERENCES))
        if plan.rest is not None and plan.rest not in ignored:
            parts.append(sequence(b"*", rest, False))
        if plan.extra is not None and plan.extra not in ignored:
            parts.append(_keywords(extra, ignored))
    if outputs:
        parts.append(sequence(b">", outputs, True))
    return sha256(b"".join(parts)).hexdigest()


def _keywords(kwargs: Mapping[str, Any], ignored: Iterable[str]) -> bytes:
    names = sorted(name for name in kwargs if name not in ignored)
    return seal(b"k", b"".join([text(name) + item(kwargs[name], name in _REFERENCES) for name in names]))
