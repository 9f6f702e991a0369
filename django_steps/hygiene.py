"""What a step may leave behind on the database connections of its thread, and cleaning it up.

A transaction left open, autocommit switched off or a broken connection must not reach the next step on that thread.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

logger = logging.getLogger("django_steps")


def atomic_depths() -> dict[str, int]:
    """How many `atomic()` blocks are open on each connection of this thread."""
    return {connection.alias: len(connection.atomic_blocks) for connection in connections.all(initialized_only=True)}


def is_deeper(before: dict[str, int]) -> bool:
    """Whether an `atomic()` block was opened since `before` and is still open."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block and len(connection.atomic_blocks) > before.get(connection.alias, 0):
            return True
    return False


def tidy(before: dict[str, int], step: str) -> None:
    """Close the connections of this thread that a step left in a state the next one can't use."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is None or before.get(connection.alias):
            continue
        trouble = _trouble(connection)
        if trouble:
            logger.error("Step %r left %s on database %r; it is rolled back.", step, trouble, connection.alias)
            _reset(connection)


def _trouble(connection: BaseDatabaseWrapper) -> str:
    if connection.in_atomic_block:
        return "an atomic() block open"
    if not connection.autocommit and connection.settings_dict["AUTOCOMMIT"]:
        return "autocommit switched off"
    if _in_transaction(connection):
        return "a transaction open"
    return ""


def _in_transaction(connection: Any) -> bool:
    raw = connection.connection
    if connection.vendor == "postgresql":
        # Broken connections have no transaction; whoever uses them next is told, and reconnects.
        return not raw.closed and raw.info.transaction_status.name in ("INTRANS", "INERROR")
    if connection.vendor == "sqlite":
        return bool(raw.in_transaction)
    return False


def _reset(connection: BaseDatabaseWrapper) -> None:
    connection.close()
    # After an abandoned atomic() only connecting anew brings the wrapper's own bookkeeping back.
    connection.connect()
