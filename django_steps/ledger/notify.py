"""Telling workers, after the commit, that there may be something to do. How they hear of it is in `worker/wakeups.py`."""

from __future__ import annotations

import logging
import time

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from ..core.repeated import Repeated

repeated = Repeated(logging.getLogger("django_steps"))

CHANNEL = "django_steps"
# At most one notification in this time and process: many at once would make each COMMIT wait for the others. A worker
# that was woken looks again after a little more than this.
INTERVAL = 0.010

_last_sent: dict[str, float] = {}


def ensure_possible(connection: BaseDatabaseWrapper) -> None:
    """Raise `TransactionManagementError` where nothing can be done after the commit: without autocommit, outside `atomic()`."""
    if not connection.get_autocommit() and not connection.in_atomic_block:
        raise TransactionManagementError(
            "Autocommit is off, so that nothing can be done after the commit, and no worker would hear of it. Use atomic()."
        )


def workers(connection: BaseDatabaseWrapper) -> None:
    """Tell the workers, after the commit, that there may be something to do."""
    if connection.vendor == "postgresql":
        connection.on_commit(lambda: _send(connection), robust=True)


def _send(connection: BaseDatabaseWrapper) -> None:
    now, alias = time.monotonic(), connection.alias
    if now - _last_sent.get(alias, 0.0) < INTERVAL:
        return
    _last_sent[alias] = now
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")
    except Exception as error:  # the run is committed; a worker finds it by looking
        repeated.warning("notify", "The workers could not be notified: %s", error)
    else:
        repeated.over("notify", "The workers can be notified again.")
