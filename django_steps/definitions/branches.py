"""Which functions are branches, and what of a body they want."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .kinds import check_annotation, is_async_inside
from .workflow import Workflow

_INJECTED = ("step", "run", "logger")


def wanted_by(function: Callable[..., Any]) -> tuple[str, ...]:
    """Which of step, run and logger a branch takes by name; nothing for a function that is no branch.

    A branch has a parameter named `step` without a default.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return ()
    step = parameters.get("step")
    if step is None or step.default is not step.empty or step.kind in (step.VAR_POSITIONAL, step.VAR_KEYWORD):
        return ()
    return tuple(
        name
        for name in _INJECTED
        if name in parameters and parameters[name].kind in (step.POSITIONAL_OR_KEYWORD, step.KEYWORD_ONLY)
    )


def check_branch(name: str, function: Any, *, in_async_body: bool) -> tuple[str, ...]:
    """What a branch wants; raises `TypeError` for what is none, or can't be one in this body."""
    refuse_workflow("branch", name, function)
    wanted = wanted_by(function) if callable(function) else ()
    if not wanted:
        raise TypeError(
            f"Branch {name!r} takes a function with a parameter named step, which gets a step of its own, got {function!r}. "
            f"For a function without one write step.define({name!r}, …)."
        )
    check_kind(name, function, in_async_body=in_async_body)
    return wanted


def check_kind(name: str, function: Any, *, in_async_body: bool) -> None:
    """Raise `TypeError` for a branch that is `async def` in a plain body, or plain in an `async def` one."""
    if is_async_inside(function) and not in_async_body:
        raise TypeError(
            f"Branch {name!r} is async def. In a plain body branches are plain functions; the functions of their steps may "
            "be async."
        )
    if in_async_body and not is_async_inside(function):
        raise TypeError(
            f"Branch {name!r} is a plain function. In an async def body branches are async def; the functions of their "
            "steps may be plain."
        )
    check_annotation(f"Branch {name!r}", function)


def refuse_workflow(method: str, name: str, function: Any) -> None:
    """Raise `TypeError` for a workflow where a function is wanted: its steps would be lost."""
    if isinstance(function, Workflow):
        raise TypeError(
            f"step.{method}({name!r}, …) takes a function, got {function!r}. A run of it is a step by "
            f"step.invoke({name!r}, …), or step.start({name!r}, …), which does not wait for its result."
        )
