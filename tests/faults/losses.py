"""Losing the answer to one commit of the ledger: on the wire where there is one, else around SQLite's cursor.

`lose(number)` begins to count the commits that carry writes of the ledger, from 0, and loses the answer to one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import pytest
from django.conf import settings
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .proxies import LostAnswer, Proxy


class Losses(Protocol):
    """What the tests need of either way."""

    seen: list[str]

    def lose(self, number: int) -> None: ...


@pytest.fixture
def losses(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Losses]:
    """For all connections that other threads of this process open from now on."""
    with ExitStack() as stack:
        if settings.DATABASE == "sqlite":
            yield stack.enter_context(around_cursors(monkeypatch))
        else:
            proxy = stack.enter_context(Proxy())
            stack.enter_context(proxy.used_by_new_connections())
            yield proxy.losses


@contextmanager
def around_cursors(monkeypatch: pytest.MonkeyPatch) -> Iterator[LostAnswer]:
    """SQLite: the statement or COMMIT succeeds, and the caller is told that it didn't."""
    losses, own_thread = LostAnswer(), threading.get_ident()

    def fail(connection: BaseDatabaseWrapper) -> None:
        connection.close()
        raise OperationalError("disk I/O error")

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        connection = context["connection"]
        is_lost = losses.counts(sql.encode(), connection.in_atomic_block)
        result = execute(sql, params, many, context)
        if is_lost:
            fail(connection)
        return result

    def install(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
        if threading.get_ident() != own_thread and wrapper not in connection.execute_wrappers:
            connection.execute_wrappers.append(wrapper)

    original = BaseDatabaseWrapper._commit  # type: ignore[attr-defined]

    def commit(connection: BaseDatabaseWrapper) -> None:
        original(connection)
        if threading.get_ident() != own_thread and losses.counts(b"COMMIT", True):
            fail(connection)

    monkeypatch.setattr(BaseDatabaseWrapper, "_commit", commit)
    connection_created.connect(install)
    try:
        yield losses
    finally:
        connection_created.disconnect(install)
