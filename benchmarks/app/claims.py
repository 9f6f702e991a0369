"""Times the engine's own claim, and shows the database's plans for its statements."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from django.db import connection, transaction

from django_steps.definitions import registered
from django_steps.ledger import claims
from django_steps.ledger.terms import Terms

from .workflows import steps

_TERMS = Terms(
    worker_id=1,
    kinds=frozenset((item.name, item.version) for item in registered()),
    lease=3600 * 1_000_000,  # nothing that is claimed here comes back while it is measured
    max_recoveries=3,
)


def measure(count: int, batch: int, explain: bool) -> dict[str, Any]:
    """Claim `batch` runs `count` times, and as often when nothing is ready; milliseconds of each, and plans if asked."""
    warm_up = 3
    steps.start_many([{"size": 1}] * (batch * (count + warm_up + 1)))
    for _ in range(warm_up):
        _claim(batch)
    answer: dict[str, Any] = {"claims": [_milliseconds(lambda: _claim(batch)) for _ in range(count)]}
    if explain:
        answer["plans"] = _plans(lambda: _claim(batch))
    _claim(batch)
    answer["looks"] = [_milliseconds(lambda: _claim(batch, expected=0)) for _ in range(count)]
    return answer


def _claim(batch: int, expected: int | None = None) -> None:
    taken = len(claims.claim(connection, _TERMS, batch).runs)
    wanted = batch if expected is None else expected
    if taken != wanted:
        raise AssertionError(f"claimed {taken} runs instead of {wanted}")


def _milliseconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def _plans(work: Callable[[], None]) -> list[str]:
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
        with transaction.atomic():
            with connection.execute_wrapper(remember):
                work()
            raise Undo
    except Undo:
        pass
    for statement, parameters in seen:
        if statement.split()[0] not in ("SELECT", "UPDATE", "WITH"):
            continue
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"{prefix} {statement}", parameters)
                plans.append(statement + "\n" + "\n".join(str(row[-1]) for row in cursor.fetchall()))
                raise Undo
        except Undo:
            pass
    return plans
