"""Stops a worker process, or the network to it, at a moment when it keeps no lock that would stop everybody else too.

A process that stands still in a transaction keeps the locks of it for as long as its connection is open, on every database:
no other worker can take over those runs then. So does one whose connections are silent without the server being told.
What a run's other owners may do is therefore tested without such locks.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable

from django.db import connection

# Statements that the server is still executing end by themselves, so that a moment later only open transactions are left.
SETTLED = 0.1  # seconds
OPEN_TRANSACTIONS = {
    "postgresql": """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND backend_type = 'client backend' AND xact_start IS NOT NULL
    """,
    "mysql": """
        SELECT count(*) FROM information_schema.innodb_trx AS trx
        JOIN information_schema.processlist AS process ON process.id = trx.trx_mysql_thread_id
        WHERE process.db = DATABASE() AND process.id <> CONNECTION_ID()
    """,
}


def stand_still(process: subprocess.Popen[bytes]) -> None:
    without_locks(lambda: process.send_signal(signal.SIGSTOP), lambda: process.send_signal(signal.SIGCONT))


def without_locks(stop: Callable[[], None], go_on: Callable[[], None]) -> None:
    """Stop it at a moment when no other transaction is open in the test database."""
    stop()
    while keeps_locks():
        go_on()
        time.sleep(0.01)
        stop()


def keeps_locks() -> bool:
    if connection.vendor == "sqlite":
        return _is_file_locked()
    time.sleep(SETTLED)
    with connection.cursor() as cursor:
        cursor.execute(OPEN_TRANSACTIONS[connection.vendor])
        return bool(cursor.fetchone()[0])


def _is_file_locked() -> bool:
    with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=0)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False
