"""The row that says that a worker is there, and what it knows: written when it starts, closed when it stops."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Collection, Sequence
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from ..conf import conf
from ..definitions import scheduling
from ..definitions.limits import known_limits, queue_limit
from ..ledger import database, limits, lines, unknown, workers
from ..ledger.terms import Kind, Terms
from ..models import Worker

logger = logging.getLogger("django_steps")


def register(
    connection: BaseDatabaseWrapper,
    *,
    kinds: Collection[Kind],
    queues: Sequence[str],
    concurrency: int,
    async_concurrency: int,
    lease_us: int,
    executor: str = "threads",
) -> Terms:
    """Write the row of a new worker, and bring back the runs that waited for somebody who knows them.

    Returns the terms on which the worker claims.
    """
    workers.delete_old(connection)
    write_limits(connection)
    while unknown.bring_back(connection, kinds):
        pass
    _sync_schedules(connection)
    return _enter(
        connection,
        kinds,
        lease_us,
        queues=list(queues),
        schedules=sorted(item.name for item in scheduling.defined()),
        concurrency=concurrency,
        async_concurrency=async_concurrency,
        executor=executor,
    )


def register_receiver(
    connection: BaseDatabaseWrapper, *, kinds: Collection[Kind], lease_us: int, executor: str
) -> Terms:
    """Write the row of a process that claims nothing, and executes what dispatchers have claimed for its engine."""
    return _enter(connection, kinds, lease_us, concurrency=1, executor=executor, claims=False)


def _enter(connection: BaseDatabaseWrapper, kinds: Collection[Kind], lease_us: int, **fields: Any) -> Terms:
    row = Worker.objects.using(connection.alias).create(
        host=socket.gethostname(),
        pid=os.getpid(),
        workflows=sorted(kinds),
        lease_us=lease_us,
        started_at=timezone.now(),
        last_seen_us=database.read_clock(connection),
        **fields,
    )
    return Terms(
        worker_id=row.pk, kinds=kinds, queues=row.queues, lease_us=lease_us, max_recoveries=conf.max_recoveries
    )


def _sync_schedules(connection: BaseDatabaseWrapper) -> None:
    """Write the schedules of the code. A mistake in one of them is no reason not to execute runs."""
    synced = scheduling.sync(connection.alias)
    for name, what in synced.invalid.items():
        logger.error("Schedule %r could not be written: %s", name, what)
    if synced.taken:
        logger.warning(
            "The code has schedules whose names are taken by rows of the database: %s", ", ".join(synced.taken)
        )


def write_limits(connection: BaseDatabaseWrapper) -> None:
    """Write the limits that the code of this process has, and let the runs go on for which they make room."""
    known, removed = known_limits()
    has_changed = limits.write(connection, known, removed)
    for queue in conf.queues:
        while limits.take_in(connection, queue, str(queue_limit(queue))):
            has_changed = True
    if has_changed:
        lines.sweep(connection)


def unregister(connection: BaseDatabaseWrapper, worker_id: int) -> None:
    """Say that a worker has stopped; without the database, the others find out by its silence."""
    for _ in range(2):  # the first one may find a connection that was closed long ago
        try:
            workers.say_stopped(connection, worker_id)
            break
        except (DatabaseError, InterfaceError):
            logger.debug("The worker's row could not be brought up to date.", exc_info=True)
            database.drop(connection)


def leave(connection: BaseDatabaseWrapper, worker_id: int) -> None:
    """Delete the row of a receiver that holds nothing; without the database it stays for a week."""
    try:
        workers.forget(connection, worker_id)
    except (DatabaseError, InterfaceError):
        logger.debug("The receiver's row could not be deleted.", exc_info=True)
        database.drop(connection)
