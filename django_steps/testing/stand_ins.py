"""What takes the place of a run that a step has invoked: a stub of the step is called instead of the body.

All else is the engine's own: the run is started with its input, it ends, and its parent gets its result or its failure.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from ..definitions import Workflow
from ..errors import ChildTimedOut, RunCanceled, StepsError
from .stubs import Stubs

_VERY_LONG = "18000d"


def stand_in(workflow: Workflow[Any, Any], step: str, stubs: Stubs) -> Workflow[Any, Any]:
    """The workflow of a run that was invoked by a step of this name; with the stub as its body, if there is one."""
    function = stubs.function_for(step, workflow.function)
    if function is workflow.function:
        return workflow
    stood_in = copy.copy(workflow)
    if stubs.is_stubbed_by(step, ChildTimedOut):
        stood_in.parameters = ("step",)
        stood_in.function = _never_ending(step, workflow.is_async)
    elif stubs.is_stubbed_by(step, RunCanceled):  # it is canceled by now
        stood_in.function = _body(lambda *args: None, workflow.is_async)
    else:
        stood_in.function = _body(function, workflow.is_async)
    return stood_in


def _body(function: Callable[..., Any], is_async: bool) -> Callable[..., Any]:
    """A body that calls a function with the input, if the workflow takes any."""

    def call(**arguments: Any) -> Any:
        value = function(*([arguments["input"]] if "input" in arguments else []))
        if inspect.iscoroutine(value) and not is_async:
            value.close()
            raise TypeError("The stub of a run whose body is a plain function is a plain function, too.")
        return value

    async def call_async(**arguments: Any) -> Any:
        value = call(**arguments)
        return await value if inspect.isawaitable(value) else value

    return call_async if is_async else call


def _never_ending(step: str, is_async: bool) -> Callable[..., Any]:
    """A body that takes longer than anybody waits."""

    def fail() -> None:
        raise StepsError(f"The stub of step {step!r} is ChildTimedOut, and the step has no timeout.")

    def sleep(step: Any) -> None:
        step.sleep("longer than anybody waits", _VERY_LONG)
        fail()

    async def sleep_async(step: Any) -> None:
        await step.sleep("longer than anybody waits", _VERY_LONG)
        fail()

    return sleep_async if is_async else sleep
