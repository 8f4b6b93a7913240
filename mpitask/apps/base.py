"""What all kinds of apps share: binding to an engine, and the choice between the engine's own way and the kernel's."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import sys
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from mpitask import running
from mpitask.apps.signature import RESERVED, Taken, check_kind
from mpitask.dataflow import Kernel, kernel_of
from mpitask.engine import Engine
from mpitask.errors import ConfigurationError, SerializationError, check_names
from mpitask.files import File
from mpitask.futures import DataFuture, Future
from mpitask.memo import Identity, NotIdentified, see_through, tell_once
from mpitask.memo.identity import item, register_own
from mpitask.shared import Shared
from mpitask.watch import Check
from mpitask.worker.call import PythonCall

_log = logging.getLogger("mpitask")

P = ParamSpec("P")
R = TypeVar("R")

_ALWAYS = ("stdout", "stderr", "walltime", "parsl_resource_specification", "outputs", "inputs")


class App(Generic[P, R]):
    """A function whose calls are tasks. Any thread may call it. The plain function is `__wrapped__`.

    The function is sent to the workers with what it captures, and anew when that has changed (see `watch`).
    """

    kind = "app"
    _task_kind = "task"
    _before: tuple[Any, ...] = ()
    """Arguments of what workers call that stand before those of the call."""

    def __init__(
        self,
        fn: Callable[P, Any],
        *,
        retries: int | None = None,
        priority: int = 0,
        cache: bool = False,
        ignore_for_cache: Sequence[str] | None = None,
        cache_key: Literal["content", "name"] = "content",
        cache_failures: bool | None = None,
        executors: Sequence[str] | str = "all",
        label: str | None = None,
        walltime: float | None = None,
        resources: dict[str, Any] | None = None,
        data_flow_kernel: Engine | None = None,
    ) -> None:
        if not callable(fn):
            raise ConfigurationError(f"{self.kind} makes apps of functions, not of {fn!r}")
        check_kind(fn, self.kind)
        if retries is not None:
            _check_retries(retries)
        _check_priority(priority)
        if walltime is not None and (isinstance(walltime, bool) or not isinstance(walltime, int | float)):
            raise ConfigurationError(f"walltime={walltime!r}: give seconds")
        if walltime is not None and not walltime > 0:
            raise ConfigurationError(f"walltime={walltime!r}: give seconds, more than 0")
        if isinstance(executors, str) and executors != "all":
            raise ConfigurationError(f"executors={executors!r}: give a list of labels, or 'all'")
        if isinstance(ignore_for_cache, str):
            raise ConfigurationError(f"ignore_for_cache={ignore_for_cache!r}: give a list of argument names")
        if cache_key not in ("content", "name"):
            raise ConfigurationError(f"cache_key={cache_key!r}: give 'content' or 'name'")
        if cache_failures not in (None, True, False):
            raise ConfigurationError(f"cache_failures={cache_failures!r}: give True, False or None")
        functools.update_wrapper(self, fn)
        self._fn = fn
        self._options = {
            "retries": retries,
            "priority": priority,
            "cache": cache,
            "ignore_for_cache": ignore_for_cache,
            "cache_key": cache_key,
            "cache_failures": cache_failures,
            "executors": executors,
            "label": label,
            "walltime": walltime,
            "resources": resources,
            "data_flow_kernel": data_flow_kernel,
        }
        self._retries = retries
        self._priority = priority
        self._cache = cache
        self._ignore = list(ignore_for_cache or ())
        self._cache_key = cache_key
        self._cache_failures = cache_failures
        self._identity = Identity(fn) if cache and cache_key == "content" else None
        self._identified: tuple[bytes | None, Callable[..., Any] | None] = (None, None)
        self._home = data_flow_kernel
        self._label = label
        self._resources = None if resources is None else check_resources(resources)
        if resources:
            _say_once("resources= of apps has no effect yet: every worker runs one task at a time, whatever it needs")
        if not isinstance(executors, str):
            _say_once("executors= of apps has no effect: there is one engine, which runs all of them")
        self._defaults, self._places = self._meant_defaults()
        if walltime is not None:
            self._defaults["walltime"], self._places["walltime"] = walltime, sys.maxsize
        taken = self._taken = Taken(fn, self.name)
        self._fewest, self._most = taken.fewest, taken.most
        self._guarded: Callable[..., Any] | None = None
        self._engine: Engine | None = None
        self._fn_id = 0
        self._has_state = _has_state(fn)
        self._sent: Callable[..., Any] = fn  # what has that id,
        self._check: Check | None = None  # and what says whether it is still as it was sent
        self._engine_retries = 0
        self._goes_to_kernel = True
        self._direct: Engine | None = None  # the same, if calls do not go to its kernel

    def _callee(self) -> Callable[..., Any]:
        """What workers call, if nothing in the call has to be looked after."""
        if not self._has_state:
            return self._fn
        return self._fn.__func__ if isinstance(self._fn, types.MethodType) else apply

    def _state(self) -> tuple[Any, ...]:
        """What `_callee` is called with before the arguments of a call."""
        if not self._has_state:
            return ()
        return (self._fn.__self__ if isinstance(self._fn, types.MethodType) else self._fn,)

    def _guard(self) -> Callable[..., Any]:
        """What workers call, if the call has streams or a walltime. Always the same object: it is sent once."""
        if self._guarded is None:
            self._guarded = self._make_guard()
        return self._guarded

    def _guard_now(self, engine: Engine) -> Callable[..., Any]:
        """As `_guard`, for one call of what has a state: pickled here, as that may change until the call is made."""
        guard = self._make_guard()
        vars(guard)["WRAPS"] = ()  # it stays what it is
        with contextlib.suppress(SerializationError):  # the future tells of it
            engine.function_id(guard)
        return guard

    def _guard_of(self, identity: bytes, engine: Engine) -> Callable[..., Any]:
        """What workers call while the function is what it is now: another one once it has changed.

        It is pickled here: when its arguments are there, what the function refers to may be something else.
        """
        known, guard = self._identified
        if known != identity or guard is None:
            guard = self._make_guard()
            if self._task_kind == "task":
                vars(guard)["WRAPS"] = ()  # it stays what it is
                engine.function_id(guard)
            self._identified = identity, guard
        return guard

    def _make_guard(self) -> Callable[..., Any]:
        return PythonCall(self._fn, self.name, self._taken.hidden)

    @property
    def name(self) -> str:
        """The function's name, as it stands in messages and log files."""
        return str(getattr(self._fn, "__name__", type(self._fn).__name__))

    def _meant_defaults(self) -> tuple[dict[str, Any], dict[str, int]]:
        """Defaults of the function that mean something to the app, and how many positional arguments hide each."""
        try:
            parameters = list(inspect.signature(self._fn).parameters.values())
        except (TypeError, ValueError):
            return {}, {}
        found, places = {}, {}
        for i, parameter in enumerate(parameters):
            default = parameter.default
            if parameter.kind is parameter.POSITIONAL_ONLY or default is parameter.empty or default is None:
                continue
            is_empty = type(default) in (list, tuple) and not default
            if isinstance(default, File) or (parameter.name in _ALWAYS and not is_empty):
                found[parameter.name] = default
                places[parameter.name] = i if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else sys.maxsize
        return found, places

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Submits the call.

        Raises:
            NoEngineError: no engine is running.
            SerializationError: an argument or the function cannot be pickled; where the call is more than one task
                (with files, streams, a walltime, a cache, a retry handler), it is the future that fails.
            TypeError: the function does not take these arguments; or `inputs`, `outputs`, `stdout`, `stderr` or
                `walltime` is not what it should be.
            ValueError: no staging provider is for a file, or the walltime is negative.
        """
        engine = self._direct
        check = self._check
        is_good = check is None or check(self._sent)
        is_right = not kwargs and self._fewest <= len(args) <= self._most
        if engine is not None and is_good and is_right and (engine is running.current_engine or self._home is not None):
            future = engine.call_flat(self._fn_id, args, self._priority, self._engine_retries)
            if future is not None:
                return future
        engine = self._engine
        if engine is None or not is_good or (engine is not running.current_engine and self._home is None):
            engine = self._bind()
        retries, priority = self._retries, self._priority
        if not is_right:
            if not self._taken.of_call.isdisjoint(kwargs):
                if (wanted := kwargs.pop("retries", None)) is not None:
                    retries = _check_retries(wanted)
                if (wanted := kwargs.pop("priority", None)) is not None:
                    priority = _check_priority(wanted)
            self._taken.check(args, kwargs)
        if self._goes_to_kernel or (kwargs and not RESERVED.isdisjoint(kwargs)) or self._has_files(args, kwargs):
            return self._submit(kernel_of(engine), args, kwargs, retries, priority)
        number = self._engine_retries if retries is None or retries == self._retries else retries
        return engine.call(self._fn_id, (*self._before, *args), kwargs, priority, number)

    def _has_files(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return any(isinstance(value, File | DataFuture) for value in (*args, *kwargs.values()))

    def _bind(self) -> Engine:
        engine = self._home or running.current()
        needs = self._cache or self._defaults or self._resources
        self._goes_to_kernel = bool(needs) or self._task_kind != "task" or kernel_of(engine).looks_after_all
        if not self._goes_to_kernel:
            self._sent = self._callee()
            self._fn_id = engine.function_id(self._sent)
            self._check = engine.check_of(self._sent)
            self._before = self._state()
        self._engine_retries = engine.config.retries if self._retries is None else self._retries
        self._engine = engine
        self._direct = None if self._goes_to_kernel or self._before else engine
        engine.bind(self)
        return engine

    def forget_engine(self) -> None:
        """The engine has other options now: the next call looks at them."""
        self._engine = self._direct = None

    def _submit(
        self, kernel: Kernel, args: tuple[Any, ...], kwargs: dict[str, Any], retries: int | None, priority: int
    ) -> Future[R]:
        for name, value in self._defaults.items():
            if name not in kwargs and len(args) <= self._places[name]:
                kwargs[name] = value
        cache, identity, callee = self._cache, None, None
        if self._identity is not None and kernel.config.app_cache:
            try:
                identity = self._identity.now()
            except NotIdentified as error:
                tell_once(self._fn, error)
                cache = False
            else:
                callee = self._guard_of(identity, kernel.engine)
        if callee is None:
            is_sent_now = self._has_state and self._task_kind == "task"
            callee = self._guard_now(kernel.engine) if is_sent_now else self._guard()
        return kernel.submit(
            self._fn,
            args,
            kwargs,
            callee=callee,
            name=self.name,
            kind=self._task_kind,
            retries=retries,
            priority=priority,
            cache=cache,
            ignore_for_cache=self._ignore,
            cache_key=self._cache_key,
            cache_failures=self._cache_failures,
            identity=identity,
            label=self._label,
            resources=self._resources,
        )

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Future[R]]:
        """As a method: the instance becomes the first argument."""
        return self if instance is None else functools.partial(self, instance)  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self._fn, self._options | {"data_flow_kernel": None})

    def __repr__(self) -> str:
        return f"<{self.kind} {getattr(self._fn, '__qualname__', self._fn)!r}>"


see_through(App)


def _has_state(fn: Any) -> bool:
    """Whether a callable is an object that the script may change between calls: each call gets it as it is then."""
    if isinstance(fn, types.MethodType):
        return isinstance(fn.__func__, types.FunctionType) and not isinstance(fn.__self__, type | types.ModuleType)
    if isinstance(fn, type | types.FunctionType | App) or hasattr(type(fn), "WRAPS"):
        return False
    return isinstance(type(fn).__call__, types.FunctionType)


def apply(fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    """The call, for a function that goes with its arguments."""
    return fn(*args, **kwargs)


_shared: weakref.WeakKeyDictionary[Shared[Any], bytes] = weakref.WeakKeyDictionary()  # nobody changes what is shared


def _encode_shared(shared: Shared[Any], output_ref: bool = False) -> bytes:  # noqa: ARG001
    """For memoisation, a shared object is what it stands for."""
    known = _shared.get(shared)
    if known is None:
        known = _shared[shared] = item(shared.result())
    return known


register_own(Shared, _encode_shared)


def _rebuild(kind: type[App[..., Any]], fn: Callable[..., Any], options: dict[str, Any]) -> App[..., Any]:
    return kind(fn, **options)


@functools.cache
def _say_once(text: str) -> None:
    _log.warning("%s", text)


def check_resources(resources: Any) -> dict[str, Any]:
    """A resource specification, if it is one.

    Raises:
        ConfigurationError: a key is unknown or a value is no number.
    """
    if not isinstance(resources, dict):
        raise ConfigurationError(f"resources={resources!r}: give a dict, as in {{'cores': 2, 'memory': 1000}}")
    for key, value in resources.items():
        if not isinstance(key, str):
            raise ConfigurationError(f"resources: {key!r} is no name of a resource")
        if key in ("cores", "memory", "disk", "gpus") and (not isinstance(value, int | float) or value < 0):
            raise ConfigurationError(f"resources: {key}={value!r}: give a number, 0 or more")
    return dict(resources)


def decorator(kind: type[App[..., Any]], function: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
    """The app of `function`, or, without one, what makes it of the function that follows."""
    known = [name for name in inspect.signature(kind.__init__).parameters if name not in ("self", "fn")]
    check_names(f"option of {kind.kind}", options, known)
    if function is None:
        kind(_nothing, **options)  # wrong options are told of here, not at the function
        return functools.partial(kind, **options)
    return kind(function, **options)


def _nothing() -> None:
    pass


def _check_retries(retries: Any) -> int:
    if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= 255:
        raise ConfigurationError(f"retries={retries!r}: give a number from 0 to 255")
    return retries


def _check_priority(priority: Any) -> int:
    if not isinstance(priority, int) or not -(1 << 31) <= priority < 1 << 31:
        raise ConfigurationError(f"priority={priority!r}: give a 32-bit integer; a higher one runs first")
    return priority
