"""Between a deploy and the first ANALYZE, PostgreSQL knows nothing of the tables, and takes them for almost empty."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import override_settings

from django_steps import RetryPolicy, current_step, workflow
from django_steps.ledger import tables
from django_steps.models import WorkflowRun
from tests.plans import rows_looked_at
from tests.staging import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="the others choose no such plan"),
]

OTHERS, EXECUTED = 4_000, 40


def fails_first() -> None:
    if current_step().attempt == 1:
        raise ConnectionError


@override_settings(DJANGO_STEPS={"INLINE_WAIT": 0})
def test_no_statement_of_a_worker_walks_over_all_rows(work):
    @workflow(name="first_of_a_deploy")
    def body(step):
        step.define("plain", int).run()
        step.define("again", fails_first, retry=RetryPolicy(max_attempts=2, initial_interval=0)).run()
        step.sleep("nap", "1ms")
        step.wait_for_event("go")

    with connection.cursor() as cursor:  # which forgets what was known of them
        cursor.execute(f"TRUNCATE {tables.RUN}, {tables.STEP}, {tables.EVENT} CASCADE")
    with connection.cursor() as cursor:
        others = body.start_many([{}] * OTHERS, delay="1d")
        for run in others[:10]:
            run.send_event("other")
        cursor.execute(
            f"INSERT INTO {tables.STEP} (run_id, name, kind, position, status, started_at, claim_token, write_id)"
            f" SELECT id, 'other', 'step', 0, 'succeeded', now(), 1, row_number() OVER () FROM {tables.RUN}"
        )
        cursor.execute(
            f"INSERT INTO {tables.EVENT} (run_id, workflow, key, name, payload, sent_at, told)"
            f" SELECT id, 'first_of_a_deploy', '', 'other', '1', now(), TRUE FROM {tables.RUN}"
        )
    runs = body.start_many([{}] * EXECUTED)
    with rows_looked_at() as looked_at:
        for run in runs:
            run.send_event("go")
        work(poll_interval=60)
        eventually(other_sessions_have_ended)
    assert {run.status for run in WorkflowRun.objects.exclude(pk__in=[run.pk for run in others])} == {"succeeded"}
    writes = EXECUTED * 12  # records, claims, suspensions, the event, the end
    assert looked_at[0] / writes < 50


def other_sessions_have_ended() -> bool:
    """Each says what it has read when it ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return cursor.fetchone()[0] == 0
