"""Letting steps inside the transaction of a `TestCase` see what they see in a worker: autocommit.

There a statement that fails spoils no transaction, `on_commit` callbacks are called, rows can't be locked, and a deferred
constraint fails with the statement, or at the end of an `atomic()` block of the step. Inside such a block everything else is
left as it is, as it is with tests that need no transaction around them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

from django.db import IntegrityError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.context import active_step
from ..ledger import database

logger = logging.getLogger("django_steps.testing")

_SAVEPOINT = "django_steps_statement"
# What atomic() sends itself, on its way in and out.
_CONTROL = ("SAVEPOINT", "RELEASE", "ROLLBACK")
_WRITE = re.compile(r"\s*(?:INSERT|UPDATE|DELETE|REPLACE|MERGE|WITH|CALL|DO)\b", re.IGNORECASE)


class _Forgiving:
    """A connection that takes no account of a transaction which a worker would not have opened."""

    atomic_blocks: list[Any]
    features: Any
    depth_of_test = -1
    checks_constraints = False

    @property
    def needs_rollback(self) -> bool:
        return bool(self.__dict__["needs_rollback"])

    @needs_rollback.setter
    def needs_rollback(self, value: bool) -> None:
        self.__dict__["needs_rollback"] = value and not self._is_outermost

    @property
    def _is_outermost(self) -> bool:
        return len(self.atomic_blocks) == self.depth_of_test

    def get_autocommit(self) -> bool:
        """Whether rows may not be locked; besides, Django asks this for what follows here."""
        return self._is_outermost or super().get_autocommit()  # type: ignore[misc]

    def _savepoint_allowed(self) -> bool:
        return bool(self.features.uses_savepoints)

    def savepoint_commit(self, sid: str) -> None:
        """End an `atomic()` block; where it is a step's outermost one, by what a worker does there: a commit."""
        if self._is_outermost and self.checks_constraints and active_step.get() is not None:
            database.check_constraints(self)
        super().savepoint_commit(sid)  # type: ignore[misc]


def has_clean_constraints(connection: BaseDatabaseWrapper) -> bool:
    """Whether it can be known what a step violates: its database defers constraints, and the test has violated none."""
    if not connection.in_atomic_block or not connection.features.can_defer_constraint_checks:
        return False
    try:
        database.check_constraints(connection)
    except IntegrityError:
        return False
    return True


class Autocommit:
    """What the connections of this thread pretend during a pass; `clean`: those whose constraints are checked."""

    def __init__(self, clean: Collection[str] = ()) -> None:
        self._clean = clean
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
                if isinstance(connections[alias], _Forgiving):
                    continue  # it does already: another pass waits in memory while this one is executed
                stack.enter_context(connections[alias].execute_wrapper(self._execute))
                stack.enter_context(_forgiving(connections[alias], depth, alias in self._clean))
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
        if is_control or not self._is_outermost(connection):
            return execute(sql, params, many, context)
        checks = self._checks(connection, sql)
        # The other databases go on after an error by themselves, if it is theirs.
        if connection.vendor != "postgresql" and not checks:
            return execute(sql, params, many, context)
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(f"SAVEPOINT {_SAVEPOINT}")
            try:
                result = execute(sql, params, many, context)
                if checks:
                    database.check_constraints(connection)
            except BaseException:
                cursor.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
                raise
            # SQLite refuses this while there is something to fetch; then it goes with the transaction of the test.
            with suppress(*([connection.Database.OperationalError] if connection.vendor == "sqlite" else [])):
                cursor.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
            return result

    def _checks(self, connection: Any, sql: Any) -> bool:
        """Whether a statement of a step, which is a transaction of its own in a worker, may violate a deferred constraint."""
        return (
            connection.alias in self._clean
            and active_step.get() is not None
            and (not isinstance(sql, str) or _WRITE.match(sql) is not None)
        )

    def _is_outermost(self, connection: BaseDatabaseWrapper) -> bool:
        return self._wrapped.get(connection.alias) == len(connection.atomic_blocks)


@contextmanager
def _forgiving(connection: Any, depth: int, checks_constraints: bool) -> Iterator[None]:
    # Only the connection itself knows when a transaction is to be rolled back, and only its class can object.
    own = type(connection)
    members = {"depth_of_test": depth, "checks_constraints": checks_constraints}
    connection.__class__ = type(own.__name__, (_Forgiving, own), members)
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
