"""What the database did meanwhile: statements, commits and flushes of its log, from PostgreSQL's own statistics."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from .lab import Lab
from .peers import Peer
from .postgres import SUPERUSER

# A backend passes its figures on when it ends, which takes a moment.
_DELAY = 0.4

_STATEMENTS = """
    SELECT COALESCE(SUM(s.calls), 0)
    FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid JOIN pg_database d ON d.oid = s.dbid
    WHERE s.toplevel AND r.rolname = %s AND d.datname = %s
"""
_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
_FLUSHES = "SELECT wal_sync FROM pg_stat_wal"  # until PostgreSQL 17


class Counters:
    """Counts between its making and `per(steps)`; nothing on SQLite."""

    def __init__(self, lab: Lab, peer: Peer) -> None:
        self._lab, self._peer = lab, peer
        if peer.database == "postgresql" and lab.cluster is not None:
            time.sleep(_DELAY)
            with lab.cluster.connect("postgres") as connection:
                if lab.cluster.counts_statements:
                    connection.execute("SELECT pg_stat_statements_reset()")
                self._transactions = self._number(connection, _TRANSACTIONS, peer.key) or 0
                self._flushes = self._number(connection, _FLUSHES)

    def per(self, steps: int, of_ours: int) -> dict[str, float]:
        """What was counted, for each of so many steps; `of_ours`: the transactions of the harness among them.

        Call it after everybody has disconnected.
        """
        if self._peer.database != "postgresql" or self._lab.cluster is None:
            return {}
        time.sleep(_DELAY)
        with self._lab.cluster.connect("postgres") as connection:
            transactions = self._number(connection, _TRANSACTIONS, self._peer.key) or 0
            found = {"transactions": transactions - self._transactions - of_ours}
            flushes = self._number(connection, _FLUSHES)
            if flushes is not None and self._flushes is not None:
                found["flushes"] = flushes - self._flushes
            if self._lab.cluster.counts_statements:
                found["statements"] = self._number(connection, _STATEMENTS, SUPERUSER, self._peer.key) or 0
        return {f"{name}_per_step": count / steps for name, count in found.items()}

    def _number(self, connection: psycopg.Connection[Any], query: str, *parameters: str) -> int | None:
        try:
            row = connection.execute(query, parameters).fetchone()
        except psycopg.errors.UndefinedColumn:
            return None
        return int(row[0]) if row else None
