"""Fills the tables with runs that are finished or asleep: copies of one real run each, made by SQL."""

from __future__ import annotations

from django.db import connection

from django_steps.models import WorkflowRun
from django_steps.worker import Worker

from .workflows import sleeper, steps

_TABLE = WorkflowRun._meta.db_table

# Ids as the engine makes them, in the order of time, one millisecond apart and back from now.
_NEW = {
    "postgresql": {
        "id": (
            "(lpad(to_hex((EXTRACT(EPOCH FROM now()) * 1000)::bigint - n), 12, '0') || '7'"
            " || substr(md5(status || n), 1, 3) || 'a' || substr(md5(status || n), 4, 15))::uuid"
        ),
        "finished_at": "finished_at - n * interval '1 second'",
        "numbers": "SELECT generate_series(1, %s)",
    },
    "sqlite": {
        "id": (
            "printf('%%012x', CAST(strftime('%%s', 'now') AS INTEGER) * 1000 - n) || '7'"
            " || lower(substr(hex(randomblob(2)), 1, 3)) || 'a' || lower(substr(hex(randomblob(8)), 1, 15))"
        ),
        "finished_at": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', finished_at, '-' || n || ' seconds')",
        "numbers": "SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %s",
    },
}


def make(count: int) -> dict[str, int]:
    """Leave `count` succeeded runs in the tables, and as many sleeping ones that are due one after the other, but not
    today."""
    steps.start({"size": 1})
    sleeper.start({"size": 24 * 3600})
    Worker(until_idle=True, concurrency=1, poll_interval=0.05).run()
    new = _NEW[connection.vendor]
    values = {
        "id": new["id"],
        "finished_at": new["finished_at"],
        "available_at_us": "available_at_us + n * CAST(1000000 AS bigint)",
    }
    columns = [str(field.column) for field in WorkflowRun._meta.concrete_fields]
    selected = ", ".join(values.get(column, column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE numbers (n) AS ({new['numbers']})"
            f" INSERT INTO {_TABLE} ({', '.join(columns)}) SELECT {selected} FROM {_TABLE}, numbers",
            [count],
        )
        if connection.vendor == "postgresql":
            cursor.execute(f"VACUUM ANALYZE {_TABLE}")  # what autovacuum would have done by now
    return {status: WorkflowRun.objects.filter(status=status).count() for status in ("succeeded", "sleeping")}
