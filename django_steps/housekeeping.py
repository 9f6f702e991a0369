"""What some worker has to do now and then for all: put runs that nobody knows aside, prune old ones.

Everything in small batches that hold no lock for long.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from django.db.backends.base.base import BaseDatabaseWrapper

from .conf import conf
from .definitions import registered
from .ledger import parking, pruning, sql, workers


def do(connection: BaseDatabaseWrapper, is_stopping: Callable[[], bool]) -> None:
    """One round of housekeeping."""
    known_here = {(item.name, item.version) for item in registered()}
    parking.unpark(connection, known_here)
    parking.park_unknown(connection, known_here | workers.known_kinds(connection))
    retention = conf.retention
    if retention is None:
        return
    before = sql.read_clock(connection) - retention // timedelta(microseconds=1)
    while not is_stopping() and pruning.prune(connection, before):
        pass
