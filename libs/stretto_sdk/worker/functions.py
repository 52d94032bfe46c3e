"""Which function a python task names: registered ones by name, others as `module:name`.

A function takes the context and then its inputs by name; it is `async def`, or plain: then it may
block, and gets a thread.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stretto_core.errors import InvalidArgument, NotFound

from stretto_sdk.arguments.builtin import read_function
from stretto_sdk.fields import Fields, Mistakes
from stretto_sdk.strict_json import parse_json

Function = Callable[..., Any]


class FunctionUnknown(NotFound):
    """This worker has no such function, or it is not one that a task can call."""

    reason = "FUNCTION_UNKNOWN"


@dataclass(frozen=True, slots=True)
class TaskFunction:
    """A function that tasks may call.

    cooperative: it watches `ctx.cancelled` itself; it is not interrupted before the deadline.
    blocking: it runs in a thread and cannot be interrupted.
    """

    function: Function
    signature: inspect.Signature
    cooperative: bool = False
    blocking: bool = False

    def check_inputs(self, inputs: Mapping[str, object]) -> None:
        """Raise InvalidArgument when the inputs do not fit the function's parameters."""
        try:
            self.signature.bind(None, **inputs)
        except TypeError as error:
            raise InvalidArgument(
                f"the inputs do not fit {self.function.__qualname__}{self.signature}: {error}",
                reason="INVALID_INPUTS",
            ) from None


class FunctionTable:
    """The functions of one worker.

    importable: tasks may also name any `module:name` that this process can import.
    """

    def __init__(self, *, importable: bool = False) -> None:
        self._functions: dict[str, TaskFunction] = {}
        self._importable = importable

    def register(self, name: str, function: Function, *, cooperative: bool = False) -> None:
        """Let tasks call `function` by `name`. Raises TypeError or ValueError if they cannot."""
        if name in self._functions:
            raise ValueError(f"two task functions are named {name!r}")
        self._functions[name] = _checked(name, function, cooperative=cooperative)

    def find(self, arguments_json: str) -> TaskFunction:
        """Return what a task's arguments name.

        Raises InvalidArgument for wrong arguments, FunctionUnknown for an unknown function.
        """
        value = parse_json(arguments_json or "{}", source="the arguments")
        mistakes = Mistakes()
        name = read_function(Fields(value, "arguments", mistakes))
        mistakes.raise_if_any("the task")
        found = self._functions.get(name)
        if found is None and self._importable and ":" in name:
            found = self._functions[name] = _imported(name)
        if found is None:
            known = ", ".join(sorted(self._functions)) or "none"
            raise FunctionUnknown(
                f"this worker has no task function {name!r}; it has: {known}", function=name
            )
        return found


def _imported(name: str) -> TaskFunction:
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
        return _checked(name, found, cooperative=False)
    # Importing runs the module: whatever it raises is that module's mistake, not ours.
    except Exception as error:
        raise FunctionUnknown(
            f"cannot load {name!r}: {type(error).__name__}: {error}", function=name
        ) from error


def _checked(name: str, function: Function, *, cooperative: bool) -> TaskFunction:
    signature = inspect.signature(function)
    blocking = not inspect.iscoroutinefunction(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{name} yields: a task returns its result, and reports with ctx.heartbeat")
    if blocking and not inspect.isfunction(function) and not inspect.ismethod(function):
        raise TypeError(f"{name} is no function: wrap it in a `def` or an `async def`")
    try:
        signature.bind_partial(None)
    except TypeError:
        wanted = "a task gets its context first, then its inputs"
        raise TypeError(f"{name}{signature} takes no context: {wanted}") from None
    return TaskFunction(function, signature, cooperative and not blocking, blocking)
