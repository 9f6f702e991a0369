"""Times the engine's own claim on two databases by turns, and shows the database's plans for its statements."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from django_steps.definitions import registered_kinds
from django_steps.ledger import claims
from django_steps.ledger.terms import Terms

from . import router
from .workflows import steps

_TERMS = Terms(
    worker_id=1,
    kinds=registered_kinds(),
    lease_us=3600 * 1_000_000,  # nothing that is claimed here comes back while it is measured
    max_recoveries=3,
)
_WARM_UP = 5


def measure(count: int, batch: int) -> dict[str, Any]:
    """Claim `batch` runs `count` times from each database, and as often when nothing is ready.

    Medians in milliseconds, those of the second database as `crowded_…`: of a claim, of its statements without the COMMIT
    (whose wait for the disk would cover up everything else), and of a look that finds nothing. And the plans, there.
    """
    usual, crowded = connections["default"], connections["crowded"]
    for connection in (usual, crowded):
        with router.using(connection.alias):
            steps.start_many([{"size": 1}] * (batch * (count + _WARM_UP)))
    for connection in (usual, crowded):
        for _ in range(_WARM_UP - 1):
            _claim(connection, batch, expected=batch)
    found = _by_turns(usual, crowded, count, batch, expected=batch)
    plans = _plans(crowded, lambda: _claim(crowded, batch, expected=batch))
    for connection in (usual, crowded):
        _claim(connection, batch, expected=batch)
    looks = _by_turns(usual, crowded, count, batch, expected=0)
    return {
        "claim_ms": found["default"],
        "crowded_claim_ms": found["crowded"],
        "statements_ms": found["default statements"],
        "crowded_statements_ms": found["crowded statements"],
        "look_ms": looks["default"],
        "crowded_look_ms": looks["crowded"],
        "plans": plans,
    }


def _by_turns(
    usual: BaseDatabaseWrapper, crowded: BaseDatabaseWrapper, count: int, batch: int, expected: int
) -> dict[str, float]:
    """Medians by alias."""
    times: dict[str, list[float]] = {}
    for _ in range(count):
        for connection in (usual, crowded):
            timer = _StatementTimer()
            with connection.execute_wrapper(timer):
                began = time.perf_counter()
                _claim(connection, batch, expected)
                took = time.perf_counter() - began
            times.setdefault(connection.alias, []).append(1000 * took)
            times.setdefault(f"{connection.alias} statements", []).append(1000 * timer.seconds)
    return {name: statistics.median(found) for name, found in times.items()}


def _claim(connection: BaseDatabaseWrapper, batch: int, expected: int) -> None:
    taken = len(claims.claim(connection, _TERMS, batch).runs)
    if taken != expected:
        raise AssertionError(f"claimed {taken} runs instead of {expected}")


class _StatementTimer:
    """Adds up what statements take."""

    seconds = 0.0

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(*arguments)
        finally:
            self.seconds += time.perf_counter() - began


def _plans(connection: BaseDatabaseWrapper, work: Callable[[], None]) -> list[str]:
    """The plans of all the statements of a piece of work that read or write, as they are executed."""
    seen: list[tuple[str, Any]] = []

    def remember(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append((sql, params))
        return execute(sql, params, many, context)

    class Undo(Exception):
        pass

    prefix = "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF)" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    plans = []
    try:
        with transaction.atomic(using=connection.alias):
            with connection.execute_wrapper(remember):
                work()
            raise Undo
    except Undo:
        pass
    for statement, parameters in seen:
        if statement.split()[0] not in ("SELECT", "UPDATE", "WITH"):
            continue
        try:
            with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                cursor.execute(f"{prefix} {statement}", parameters)
                plans.append(statement + "\n" + "\n".join(str(row[-1]) for row in cursor.fetchall()))
                raise Undo
        except Undo:
            pass
    return plans
