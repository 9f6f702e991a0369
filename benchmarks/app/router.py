"""Sends the engine to one of two databases of the same process; used where both are measured by turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_current = "default"


@contextmanager
def using(alias: str) -> Iterator[None]:
    """Read from and write to this database meanwhile."""
    global _current
    before, _current = _current, alias
    try:
        yield
    finally:
        _current = before


class Router:
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return _current

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return _current
