"""With DEBUG, Django keeps the last 9,000 statements of each connection, values included: a worker would grow and grow."""

from __future__ import annotations

from collections import deque
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

KEPT = 100  # statements of a connection, for whoever looks at `connection.queries` in a step


def keep_few_queries() -> None:
    """From now on, all connections of this process keep only the last few statements. For a process that is a worker's."""
    connection_created.connect(_keep_few)
    for connection in connections.all(initialized_only=True):
        _keep_few(connection)


def _keep_few(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.queries_log.maxlen != KEPT:
        connection.queries_log = deque(connection.queries_log, maxlen=KEPT)
