"""The row that says that a worker is there, and what it knows: written when it starts, closed when it stops."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Collection, Sequence

from django.db import DatabaseError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from ..conf import conf
from ..ledger import database, unknown, workers
from ..ledger.terms import Kind, Terms
from ..models import Worker

logger = logging.getLogger("django_steps")


def register(
    connection: BaseDatabaseWrapper, *, kinds: Collection[Kind], queues: Sequence[str], concurrency: int, lease_us: int
) -> Terms:
    """Write the row of a new worker, and bring back the runs that waited for somebody who knows them.

    Returns the terms on which the worker claims.
    """
    workers.delete_old(connection)
    while unknown.bring_back(connection, kinds):
        pass
    row = Worker.objects.using(connection.alias).create(
        host=socket.gethostname(),
        pid=os.getpid(),
        queues=list(queues),
        workflows=sorted(kinds),
        concurrency=concurrency,
        lease_us=lease_us,
        started_at=timezone.now(),
        last_seen_us=database.read_clock(connection),
    )
    return Terms(worker_id=row.pk, kinds=kinds, queues=queues, lease_us=lease_us, max_recoveries=conf.max_recoveries)


def unregister(connection: BaseDatabaseWrapper, worker_id: int) -> None:
    """Say that a worker has stopped; without the database, the others find out by its silence."""
    for _ in range(2):  # the first one may find a connection that was closed long ago
        try:
            workers.say_stopped(connection, worker_id)
            break
        except (DatabaseError, InterfaceError):
            logger.debug("The worker's row could not be brought up to date.", exc_info=True)
            database.drop(connection)
