"""What some worker has to do now and then for all: put runs that nobody knows aside, prune old ones.

Everything in small batches that hold no lock for long.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.db.backends.base.base import BaseDatabaseWrapper

from .conf import conf
from .definitions import registered
from .ledger import claims, pruning, sql, workers

# A worker that has not been heard of for so many of its leases is dead to the others.
_DEAD_AFTER_LEASES = 3


def do(connection: BaseDatabaseWrapper, is_stopping: Callable[[], bool]) -> None:
    """One round of housekeeping."""
    claims.unpark(connection, {(item.name, item.version) for item in registered()})
    claims.park_unknown(connection, workers.known_kinds(connection, _DEAD_AFTER_LEASES))
    retention = conf.retention
    if retention is None:
        return
    before = sql.read_clock(connection) - retention // timedelta(microseconds=1)
    while not is_stopping() and pruning.prune(connection, before):
        pass
