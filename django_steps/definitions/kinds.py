"""Plain or async: which of the two a body or a branch is, and of which kind its `step` is said to be."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from inspect import CO_COROUTINE
from types import FunctionType
from typing import Any, ClassVar

from asgiref.sync import iscoroutinefunction

_MOST_LAYERS = 50  # an object may say that it wraps itself


class AnyStep:
    """The base of `Step` and of `AsyncStep`, by which annotations are told apart."""

    __slots__ = ()

    _of_async_body: ClassVar[bool]


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine: `async def`, also behind a partial, a bound method, a callable object.

    A decorator is taken as it is: a plain one around `async def` may just as well wait for the coroutine.

    >>> async def fetch(url): ...
    >>> is_async(functools.partial(fetch, "https://example.com/"))
    True
    """
    if type(function) is FunctionType and function.__code__.co_flags & CO_COROUTINE:
        return True  # asked for each step
    return any(map(iscoroutinefunction, _layers(function, behind_decorators=False)))


def is_async_inside(function: Any) -> bool:
    """Whether a body or a branch is `async def`: as `is_async()`, or behind decorators that keep `__wrapped__`."""
    return any(map(iscoroutinefunction, _layers(function)))


def check_annotation(what: str, function: Any) -> None:
    """Raise `TypeError` if the `step` of this body or branch is annotated as that of the other kind.

    An annotation that can't be resolved says nothing, and neither does one that is no class.
    """
    annotated = _annotated(function)
    if annotated is None or annotated._of_async_body is is_async_inside(function):
        return
    if annotated._of_async_body:
        raise TypeError(
            f"{what} is a plain function, and its step is annotated as {annotated.__name__}, which is for async def: its "
            "verbs have to be awaited. Write step: Step, or make it async def."
        )
    raise TypeError(
        f"{what} is async def, and its step is annotated as {annotated.__name__}, which is for plain functions: its verbs "
        "would block the event loop. Write step: AsyncStep, or make it a plain def."
    )


def refuse_async_atomic(what: str, function: Any) -> None:
    """Raise `TypeError` for an `async def` function of an atomic step in an `async def` body."""
    if is_async(function):
        raise TypeError(
            f"{what} is atomic, and its function is async def. In an async def body atomic takes a plain function: it is "
            "executed on one thread, within one transaction."
        )


def _annotated(function: Any) -> type[AnyStep] | None:
    for layer in _layers(function):
        try:
            annotation = inspect.get_annotations(layer).get("step")
            if isinstance(annotation, str):
                first, *rest = annotation.strip("\"' ").split(".")
                annotation = functools.reduce(getattr, rest, layer.__globals__[first])
        except Exception:  # imported for type checkers only, say
            continue
        if isinstance(annotation, type) and issubclass(annotation, AnyStep):
            return annotation
    return None


def _layers(function: Any, *, behind_decorators: bool = True) -> Iterator[Any]:
    """The function, and what is behind it."""
    for _ in range(_MOST_LAYERS):
        yield function
        if isinstance(function, functools.partial):
            function = function.func
        elif behind_decorators and getattr(function, "__wrapped__", None) is not None:
            function = function.__wrapped__
        elif isinstance(function, type) or inspect.isfunction(function) or inspect.isbuiltin(function):
            return
        else:
            function = getattr(function, "__func__", type(function).__call__)
