"""`parsl.app.app`: decorators that make apps."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mpitask.compat.parsl._options import check_type, parameters_of, wrong_type
from mpitask.compat.parsl.dataflow._plain import Binding
from mpitask.compat.parsl.dataflow.dflow import DataFlowKernel, DataFlowKernelLoader
from mpitask.dataflow import AppFuture
from mpitask.errors import shown

_COPIED_DEFAULTS = ("stdout", "stderr", "walltime", "parsl_resource_specification", "outputs", "inputs")
_EMPTY = (list, tuple, dict)


class AppBase:
    """A function whose calls are tasks. Any thread may call it."""

    join = False

    def __init__(
        self,
        func: Callable[..., Any],
        data_flow_kernel: DataFlowKernel | None = None,
        executors: Sequence[str] | str = "all",
        cache: bool = False,
        ignore_for_cache: Sequence[str] | None = None,
    ) -> None:
        check_type("function", func, callable)
        _check_options(data_flow_kernel, executors, cache, ignore_for_cache)
        functools.update_wrapper(self, func)
        self.func = func
        self.data_flow_kernel = data_flow_kernel
        self.executors = executors
        self.cache = cache
        self.ignore_for_cache = ignore_for_cache
        self._defaults = _copied_defaults(func)
        self._binding: Binding | None = None

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.func, "__name__", type(self.func).__name__))

    def plain_function(self) -> Callable[..., Any] | None:
        """What a worker calls if nothing in the call has to be looked after; None: something always has."""
        return None

    def callee(self, in_worker: bool) -> Callable[..., Any]:  # noqa: ARG002
        """What is run: in a worker process, or in a thread of this one."""
        return self.func

    def __call__(self, *args: Any, **kwargs: Any) -> AppFuture:
        """Submits a call.

        Raises:
            NoDataFlowKernelError: no kernel is loaded, or it has ended.
        """
        kernel = DataFlowKernelLoader.dfk() if self.data_flow_kernel is None else self.data_flow_kernel
        plain = kernel.plain
        if plain is not None:
            binding = self._binding
            if binding is None or binding.epoch is not plain.epoch:
                binding = self._binding = kernel.bind_plain(self)
            if binding.labels:
                future = plain.call(binding, args, kwargs)
                if future is not None:
                    return future
        given = kwargs
        if self._defaults:
            given = {name: value for name, (value, place) in self._defaults.items() if len(args) <= place} | kwargs
        return kernel.submit(
            self.func,
            args,
            executors=self.executors,
            cache=self.cache,
            ignore_for_cache=self.ignore_for_cache,
            app_kwargs=given,
            join=self.join,
            callee=lambda in_worker: self._callee_for(given, in_worker),
            name=self.name,
        )

    def _callee_for(self, kwargs: dict[str, Any], in_worker: bool) -> Callable[..., Any]:  # noqa: ARG002
        return self.callee(in_worker)

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        """As a method: the instance becomes the first argument."""
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), self.func, self.executors, self.cache, self.ignore_for_cache, self.join)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def _rebuild(  # noqa: PLR0917 - as Parsl has it
    kind: type[AppBase], func: Callable[..., Any], executors: Any, cache: bool, ignore: Any, join: bool
) -> AppBase:
    app = kind(func, executors=executors, cache=cache, ignore_for_cache=ignore)
    app.join = join
    return app


def _check_options(dfk: Any, executors: Any, cache: Any, ignore_for_cache: Any) -> None:
    check_type("data_flow_kernel", dfk, DataFlowKernel, None)
    check_type("cache", cache, bool)
    check_type("ignore_for_cache", ignore_for_cache, list, tuple, set, frozenset, None)
    if not (isinstance(executors, str) and executors == "all"):
        check_type("executors", executors, list, tuple)
        if not all(isinstance(label, str) for label in executors):
            raise wrong_type(f"executors={shown(executors)}: give labels, or 'all'")


def _copied_defaults(func: Callable[..., Any]) -> dict[str, tuple[Any, int]]:
    """Defaults of the function that mean something to the app, each with the number of arguments that hide it."""
    found = {}
    for i, parameter in enumerate(parameters_of(func)):
        default = parameter.default
        nothing = default is parameter.empty or default is None
        if parameter.name in _COPIED_DEFAULTS and not nothing and not (type(default) in _EMPTY and not default):
            found[parameter.name] = default, sys.maxsize if parameter.kind is parameter.KEYWORD_ONLY else i
    return found


def _decorate(kind: str, function: Callable[..., Any] | None, **options: Any) -> Any:
    from mpitask.compat.parsl.app.bash import BashApp
    from mpitask.compat.parsl.app.python import PythonApp

    makers: dict[str, Callable[..., AppBase]] = {
        "python": PythonApp,
        "bash": BashApp,
        "join": functools.partial(PythonApp, join=True),
    }
    if function is not None:
        return makers[kind](function, **options)
    _check_options(
        options["data_flow_kernel"],
        options.get("executors", "all"),
        options["cache"],
        options["ignore_for_cache"],
    )
    return functools.partial(makers[kind], **options)


def python_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: Sequence[str] | str = "all",
    ignore_for_cache: Sequence[str] | None = None,
) -> Any:
    """Makes an app of a Python function; with or without arguments.

    Args:
        function: the function.
        data_flow_kernel: the kernel of its calls; None: the one that is loaded when it is called.
        cache: a call with the same arguments as an earlier one gives that one's result.
        executors: labels of the executors to choose from, or "all".
        ignore_for_cache: names of arguments that do not count for `cache`.
    """
    return _decorate(
        "python",
        function,
        data_flow_kernel=data_flow_kernel,
        cache=cache,
        executors=executors,
        ignore_for_cache=ignore_for_cache,
    )


def join_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    ignore_for_cache: Sequence[str] | None = None,
) -> Any:
    """Makes an app of a function that returns futures, for whose results its calls stand; see `python_app`."""
    return _decorate(
        "join", function, data_flow_kernel=data_flow_kernel, cache=cache, ignore_for_cache=ignore_for_cache
    )


def bash_app(
    function: Callable[..., Any] | None = None,
    data_flow_kernel: DataFlowKernel | None = None,
    cache: bool = False,
    executors: Sequence[str] | str = "all",
    ignore_for_cache: Sequence[str] | None = None,
) -> Any:
    """Makes an app of a function that returns a command line for bash; see `python_app`."""
    return _decorate(
        "bash",
        function,
        data_flow_kernel=data_flow_kernel,
        cache=cache,
        executors=executors,
        ignore_for_cache=ignore_for_cache,
    )
