"""Which functions are branches, and what of a body they want."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

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


def check_branch(name: str, function: Any) -> tuple[str, ...]:
    """What a branch wants; raises `TypeError` for what is none, or can't be one in this body."""
    refuse_workflow("branch", name, function)
    wanted = wanted_by(function) if callable(function) else ()
    if not wanted:
        raise TypeError(
            f"Branch {name!r} takes a function with a parameter named step, which gets a step of its own, got {function!r}. "
            f"For a function without one write step.define({name!r}, …)."
        )
    check_plain(name, function)
    return wanted


def check_plain(name: str, function: Any) -> None:
    """Raise `TypeError` for a branch that is `async def`: bodies are plain functions, and so are their branches."""
    if inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(
        getattr(function, "func", None)
    ):
        raise TypeError(
            f"Branch {name!r} is async def. In a plain body branches are plain functions; the functions of their steps may "
            "be async."
        )


def refuse_workflow(method: str, name: str, function: Any) -> None:
    """Raise `TypeError` for a workflow where a function is wanted: its steps would be lost."""
    if isinstance(function, Workflow):
        raise TypeError(
            f"step.{method}({name!r}, …) takes a function, got {function!r}. Let a step start a run of it: "
            f'step.define("start_other", lambda: str(other.start(…).pk)).run()'
        )
