"""What the verbs of an `async def` body return: a coroutine that has no truth value."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, TypeVar

R = TypeVar("R")

# What asyncio, debuggers and tracebacks ask a coroutine for.
_OF_THE_COROUTINE = frozenset(
    {"__name__", "__qualname__", "cr_await", "cr_code", "cr_frame", "cr_origin", "cr_running", "cr_suspended"}
)


class Awaited(Coroutine[Any, Any, R]):
    """A coroutine that is to be awaited, or given to asyncio: `await`, `asyncio.gather()`, `create_task()`, `wait_for()`.

    `bool()` of it is a `TypeError`, so that a forgotten `await` in an `if` is noticed. One that is never awaited gives
    Python's `RuntimeWarning`, which says what it is.
    """

    __slots__ = ("__weakref__", "_coroutine", "_what")

    def __init__(self, coroutine: Coroutine[Any, Any, R], what: str) -> None:
        self._coroutine, self._what = coroutine, what
        with suppress(AttributeError):  # of a coroutine that is no function's, and has no name to change
            coroutine.__qualname__ = what  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<{self._what}, to be awaited>"

    def __bool__(self) -> NoReturn:
        if sys._getframe(1).f_globals.get("__name__") == "asyncio.base_tasks":  # Python 3.13's repr() of a task asks
            return True  # type: ignore[misc]
        raise TypeError(f"{self._what} has a value only when it is awaited: write await before it.")

    def __await__(self) -> Generator[Any, Any, R]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """Continue it, as an event loop does."""
        return self._coroutine.send(value)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Raise an exception where it waits."""
        if value is None and traceback is None:
            return self._coroutine.throw(kind)  # the other form is deprecated
        return self._coroutine.throw(kind, value, traceback)  # type: ignore[arg-type]

    def close(self) -> None:
        """End it where it waits; one that never began then gives no warning."""
        self._coroutine.close()

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_COROUTINE:
            return getattr(self._coroutine, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
