"""A value whose every operator raises: nothing may be asked of what a user hands over, except to be pickled."""

from __future__ import annotations

import re
from typing import Any, NoReturn

_OPERATORS = re.split(
    r"\s+",
    """
    __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __bool__ __len__ __iter__ __next__ __reversed__
    __contains__ __getitem__ __setitem__ __delitem__ __missing__ __length_hint__ __int__ __float__ __complex__
    __index__ __round__ __trunc__ __floor__ __ceil__ __repr__ __str__ __bytes__ __format__ __add__ __radd__
    __iadd__ __sub__ __rsub__ __mul__ __rmul__ __matmul__ __truediv__ __rtruediv__ __floordiv__ __mod__ __rmod__
    __divmod__ __pow__ __and__ __rand__ __or__ __ror__ __xor__ __lshift__ __rshift__ __neg__ __pos__ __abs__
    __invert__ __enter__ __exit__ __await__ __aiter__ __anext__ __copy__ __deepcopy__ __set_name__ __sizeof__
    __array__ __instancecheck__
""".strip(),
)


def _refuse(name: str) -> Any:
    def operator(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError(f"{name} of a user's value was called")

    operator.__name__ = name
    return operator


class Hostile:
    """Only pickling is allowed."""

    tag = 5

    def __reduce__(self) -> Any:
        return _make, ()


class HostileCallable:
    """A function whose operators raise."""

    __name__ = "hostile_callable"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (args, kwargs) if kwargs else args[0] if len(args) == 1 else args

    def __reduce__(self) -> Any:
        return HostileCallable, ()


class HostileList(list[Any]):
    """A list that cannot be looked at in the usual ways."""

    def __reduce__(self) -> Any:
        return _make, ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _make, ()


class HostileDict(dict[Any, Any]):
    """The same for a dict."""

    def __reduce__(self) -> Any:
        return _make, ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _make, ()


def _make() -> Hostile:
    return Hostile()


for _kind in (Hostile, HostileCallable, HostileList, HostileDict):
    for _name in _OPERATORS:
        setattr(_kind, _name, _refuse(_name))
for _name in ("items", "keys", "values", "get", "copy", "pop", "update", "index", "append", "extend"):
    for _kind in (HostileList, HostileDict):
        if hasattr(_kind, _name):
            setattr(_kind, _name, _refuse(_name))
