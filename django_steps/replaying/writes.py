"""Refuses what a body writes outside of its steps while it is replayed, whatever it writes by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections

from ..errors import StepsError

# What reads, and what begins and ends transactions.
_HARMLESS = re.compile(
    r"[\s(]*(SELECT|WITH|EXPLAIN|SHOW|VALUES|BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET)\b", re.IGNORECASE
)
_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|INTO)\b|\b(NEXTVAL|SETVAL)\s*\(|;\s*\S", re.IGNORECASE)
# What may say anything: comments, texts and quoted names; and the clause that only locks.
_NOTHING = re.compile(
    r"/\*.*?\*/|--[^\n]*|'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b",
    re.IGNORECASE | re.DOTALL,
)
_SHOWN = 100  # characters of a statement


class WriteRefused(StepsError):
    """A body that is replayed writes outside of its steps. A worker would do so on every pass."""

    def __init__(self, statement: str) -> None:
        text = " ".join(statement.split())
        super().__init__(f"The body writes outside of its steps: {text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}")


@contextmanager
def refused() -> Iterator[list[WriteRefused]]:
    """In here the calling thread's connections only read; what is refused is noted in the list."""
    found: list[WriteRefused] = []

    def look(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not _is_harmless(sql):
            found.append(WriteRefused(sql))
            raise found[-1]
        return execute(sql, params, many, context)

    with ExitStack() as stack:
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(look))
        yield found


def _is_harmless(sql: str) -> bool:
    text = _NOTHING.sub(" ", sql)
    return _HARMLESS.match(text) is not None and _WRITES.search(text) is None
