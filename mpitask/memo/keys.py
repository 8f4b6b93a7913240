"""The key of a call: the same for calls that give the same function the same arguments, however they are written.

`f(1, y=2)`, `f(1, 2)` and, where 2 is the default of y, `f(1)` are one call: arguments are bound to the parameters
first. That is done here and not by `inspect.Signature.bind`, which alone would take longer than all the rest; the
signature is read once for each function. A call that does not fit the signature gets a key of what was written; it
will fail when it runs.

Thread rule: every function may be called from any thread.
"""

from __future__ import annotations

import inspect
import types
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from mpitask.memo.identity import function_id, id_for_memo, item, seal, sequence, text

__all__ = ["function_id", "id_for_memo", "make_key"]

_VERSION = b"mpitask memo 1\0"  # changes when keys change, so that old checkpoints are not taken for new ones
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
    identities: dict[bool, bytes] = field(default_factory=dict)

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


def _make_plan(fn: Callable[..., Any]) -> _Plan | None:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # many functions written in C
        return None
    plain = [p for p in parameters if p.kind not in (_P.VAR_POSITIONAL, _P.VAR_KEYWORD)]
    names = {p.kind: p.name for p in parameters}
    return _Plan(
        code=getattr(fn, "__code__", None),
        defaults=getattr(fn, "__defaults__", None),
        keyword_defaults=getattr(fn, "__kwdefaults__", None),
        labels={p.name: text(p.name) for p in plain},
        positional=tuple(p.name for p in plain if p.kind is not _P.KEYWORD_ONLY),
        by_keyword=frozenset(p.name for p in plain if p.kind is not _P.POSITIONAL_ONLY),
        default_of={p.name: p.default for p in plain if p.default is not _P.empty},
        rest=names.get(_P.VAR_POSITIONAL),
        extra=names.get(_P.VAR_KEYWORD),
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


def _identity(fn: Callable[..., Any], plan: _Plan | None, source: bool) -> bytes:
    if plan is None or plan.code is None or (source and getattr(fn, "__closure__", None)):
        return function_id(fn, source)  # what it holds may have changed
    known = plan.identities.get(source)
    if known is None:
        known = plan.identities[source] = function_id(fn, source)
    return known


def make_key(  # noqa: PLR0917 - all but the first are named in calls
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    ignore: Iterable[str] | None = (),
    source: bool = False,
    outputs: Sequence[Any] = (),
) -> str:
    """The key of a call.

    Args:
        fn: the function that is called.
        args: its positional arguments.
        kwargs: its keyword arguments. Those named outputs, stdout and stderr say where output goes: of a file there,
            only the name counts.
        ignore: names of parameters that do not count, however their arguments are given; unknown ones are no error.
        source: the function's code counts, not only its name.
        outputs: further places where output goes.

    Returns:
        64 hexadecimal digits.

    Raises:
        ValueError: an argument cannot be identified; the message names its type and says how to register it.
    """
    ignored = {ignore} if isinstance(ignore, str) else frozenset(ignore or ())
    plan = _plan_of(fn)
    bound = None if plan is None else plan.bind(args, kwargs)
    parts = [_VERSION, _identity(fn, plan, source)]
    if plan is None or bound is None:
        parts += [_WRITTEN, sequence(b"*", args, False), _keywords(kwargs, ignored)]
    else:
        parts.append(_BOUND)
        values, rest, extra = bound
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
