"""Letting steps inside the transaction of a `TestCase` see what they see in a worker: autocommit.

There a statement that fails spoils no transaction, and `on_commit` callbacks are called. Inside a step's own `atomic()`
blocks everything is left as it is, as it is with tests that need no transaction around them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("django_steps.testing")

_SAVEPOINT = "django_steps_statement"
# What atomic() sends itself, on its way in and out.
_CONTROL = ("SAVEPOINT", "RELEASE", "ROLLBACK")


class _Forgiving:
    """A connection that need not roll back a transaction which a worker would not have opened."""

    atomic_blocks: list[Any]
    depth_of_test = -1

    @property
    def needs_rollback(self) -> bool:
        return bool(self.__dict__["needs_rollback"])

    @needs_rollback.setter
    def needs_rollback(self, value: bool) -> None:
        self.__dict__["needs_rollback"] = value and len(self.atomic_blocks) != self.depth_of_test


class Autocommit:
    """What the connections of this thread pretend during a pass."""

    def __init__(self) -> None:
        self._wrapped = {
            connection.alias: len(connection.atomic_blocks)
            for connection in connections.all(initialized_only=True)
            if connection.in_atomic_block
        }
        self._callbacks = {alias: len(connections[alias].run_on_commit) for alias in self._wrapped}

    @contextmanager
    def pretended(self) -> Iterator[None]:
        """For the time of a pass: a failed statement takes back itself, and nothing else."""
        with ExitStack() as stack:
            for alias, depth in self._wrapped.items():
                stack.enter_context(connections[alias].execute_wrapper(self._execute))
                stack.enter_context(_forgiving(connections[alias], depth))
            yield

    def call_callbacks(self) -> None:
        """Call the `on_commit` callbacks that have come since the last time."""
        for alias, known in self._callbacks.items():
            waiting: list[Any] = connections[alias].run_on_commit
            while len(waiting) > known and self._is_outermost(connections[alias]):
                _, callback, is_robust = waiting.pop(known)
                _call(callback, is_robust)

    def _execute(self, execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        connection = context["connection"]
        is_control = isinstance(sql, str) and sql.startswith(_CONTROL)
        # The other databases go on after an error by themselves.
        if connection.vendor != "postgresql" or is_control or not self._is_outermost(connection):
            return execute(sql, params, many, context)
        with connection.connection.cursor() as cursor:
            cursor.execute(f"SAVEPOINT {_SAVEPOINT}")
            try:
                result = execute(sql, params, many, context)
            except BaseException:
                cursor.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
                raise
            cursor.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
            return result

    def _is_outermost(self, connection: BaseDatabaseWrapper) -> bool:
        return self._wrapped.get(connection.alias) == len(connection.atomic_blocks)


@contextmanager
def _forgiving(connection: Any, depth: int) -> Iterator[None]:
    # Only the connection itself knows when a transaction is to be rolled back, and only its class can object.
    own = type(connection)
    connection.__class__ = type(own.__name__, (_Forgiving, own), {"depth_of_test": depth})
    try:
        yield
    finally:
        connection.__class__ = own


def _call(callback: Callable[[], Any], is_robust: bool) -> None:
    try:
        callback()
    except Exception:
        if not is_robust:
            raise
        logger.exception("An on_commit() callback raised.")
