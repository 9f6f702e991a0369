"""Fills a database with finished runs, quickly and by SQL, to see what pages and claims cost beside them.

    DATABASE=postgresql DATABASE_NAME=shop python benchmarks/fill_runs.py --runs 1000000 --days 30

The runs are spread evenly over the last days; one in a hundred failed, one in five hundred was canceled. Each has one
recorded step if `--steps` is given. Only for databases that can be thrown away.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import django

ROOT = Path(__file__).resolve().parent.parent

_COLUMNS = (
    "id, workflow, version, queue, priority, status, phase, input, input_search, output, error, error_type, failed_step,"
    " attempts, recoveries, recovery_mark, recovery_log, generation, has_history, current_step, available_at_us, created_at,"
    " started_at, finished_at"
)
_STATUS = "CASE WHEN {n} % 100 = 7 THEN 'failed' WHEN {n} % 500 = 3 THEN 'canceled' ELSE 'succeeded' END"
_ERROR = (
    '{"type": "shop.CardDeclined", "message": "card declined", "traceback": "", "nodes": [{}], "step": "charge",'
    ' "steps": ["charge"]}'
)
_VALUES = """'workflow_' || ({n} % 12), '', CASE WHEN {n} % 10 = 1 THEN 'bulk' ELSE 'default' END, 0, {status}, 2,
    '{{"order_id": ' || {n} || ', "email": "ada@example.com"}}', NULL, CASE WHEN {n} % 100 <> 7 THEN '{{"ok": true}}' END,
    CASE WHEN {n} % 100 = 7 THEN '{error}' END, CASE WHEN {n} % 100 = 7 THEN 'shop.CardDeclined' ELSE '' END,
    CASE WHEN {n} % 100 = 7 THEN 'charge' ELSE '' END, 1, 0, 0, '', 0, {true}, '', 0"""


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")
    sys.path.insert(0, str(ROOT))
    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    fill = {"postgresql": _fill_postgresql, "sqlite": _fill_sqlite}.get(connection.vendor)
    if fill is None:
        sys.exit("This fills SQLite and PostgreSQL databases: set DATABASE to one of them.")
    begun = time.monotonic()
    with connection.cursor() as cursor:
        fill(cursor, arguments.runs, int(arguments.days * 86400))
        if arguments.steps:
            _add_steps(cursor, connection.vendor)
        cursor.execute("ANALYZE")
    print(f"{arguments.runs:,} runs in {time.monotonic() - begun:.1f} s")


def _fill_postgresql(cursor: Any, runs: int, seconds: int) -> None:
    # A UUID version 7: milliseconds first, so that the ids are in the order of the times.
    identifier = (
        "(lpad(to_hex((extract(epoch FROM t.created) * 1000)::bigint), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0')"
        " || '8' || substr(md5(n::text), 1, 15))::uuid"
    )
    values = _VALUES.format(n="n", status=_STATUS.format(n="n"), error=_ERROR, true="true").replace("%", "%%")
    cursor.execute(
        f"INSERT INTO django_steps_workflowrun ({_COLUMNS}) SELECT {identifier.replace('%', '%%')}, {values}, t.created,"
        " t.created + interval '50 ms', t.created + interval '1 s' + (n %% 90) * interval '100 ms'"
        " FROM generate_series(1, %s) n, LATERAL (SELECT now() - %s * interval '1 second'"
        " * (1 - n::float / %s) - interval '20 s' AS created) t",
        [runs, seconds, runs],
    )
    cursor.execute("VACUUM ANALYZE django_steps_workflowrun")


def _fill_sqlite(cursor: Any, runs: int, seconds: int) -> None:
    now = "CAST(strftime('%s', 'now') AS INTEGER) * 1000 - 20000"
    milliseconds = f"({now} - CAST({seconds}000 * (1 - n * 1.0 / {runs}) AS INTEGER))"
    values = _VALUES.format(n="n", status=_STATUS.format(n="n"), error=_ERROR, true="1")
    moment = "strftime('%Y-%m-%d %H:%M:%f000', (t + {}) / 1000.0, 'unixepoch')"
    cursor.execute(
        f"""
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {runs}),
        timed AS (SELECT n, {milliseconds} AS t FROM numbers)
        INSERT INTO django_steps_workflowrun ({_COLUMNS})
        SELECT printf('%012x', t) || '7' || printf('%03x', n % 4096) || '8' || printf('%015x', n), {values},
            {moment.format(0)}, {moment.format(50)}, {moment.format("1000 + (n % 90) * 100")} FROM timed
        """
    )


def _add_steps(cursor: Any, vendor: str) -> None:
    generated = {"id": "NULL"} if vendor == "sqlite" else {}
    step = {
        "run_id": "id",
        "name": "'charge'",
        "kind": "'step'",
        "position": "1",
        "status": "'succeeded'",
        "attempts": "1",
    }
    step |= {"output": "'null'", "attempt_log": "''", "started_at": "started_at", "finished_at": "finished_at"}
    columns = {**generated, **step, "claim_token": "1", "write_id": "1"}
    cursor.execute(
        f"INSERT INTO django_steps_steprecord ({', '.join(columns)})"
        f" SELECT {', '.join(columns.values())} FROM django_steps_workflowrun"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--days", type=float, default=30, help="how far back the first of them was started")
    parser.add_argument("--steps", action="store_true", help="one recorded step for each run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
