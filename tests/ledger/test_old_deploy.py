"""A process with older code goes on working after a migration has added columns: its INSERTs name only what they set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection, migrations, models
from django.db.migrations.loader import MigrationLoader

from django_steps import RetryPolicy, workflow
from django_steps.models import StepRecord, Worker, WorkflowRun
from tests.staging import claim, status_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def later_columns() -> Iterator[None]:
    """The tables as a later version's migration leaves them: each has a column that is never NULL."""
    before = MigrationLoader(connection).project_state()
    operations = [
        migrations.AddField(model, f"later_{number}", field)
        for model in ("WorkflowRun", "StepRecord", "Worker")
        for number, field in enumerate(
            [models.CharField(max_length=20, db_default="later"), models.TextField(db_default=""), _number()]
        )
    ]
    after = before.clone()
    with connection.schema_editor() as editor:
        for operation in operations:
            earlier = after.clone()
            operation.state_forwards("django_steps", after)
            operation.database_forwards("django_steps", editor, earlier, after)
    yield
    with connection.schema_editor() as editor:
        for operation in reversed(operations):
            operation.database_backwards("django_steps", editor, after, before)


def _number() -> models.Field:
    return models.BigIntegerField(db_default=7)


def define_everything():
    calls = iter([1])

    def flaky():
        for _ in calls:
            raise OSError

    @workflow(name="everything")
    def everything(input, step):
        step.define("plain", lambda: {"is": "plain"}).run()
        step.define("flaky", flaky, retry=RetryPolicy(initial_interval="1ms")).run()
        step.define("atomic", lambda: 1, atomic=True).run()
        step.sleep("short", "1ms")
        step.sleep("nap", "1h")
        return "done"

    return everything


def test_an_old_deploy_starts_claims_records_and_ends_runs(later_columns, work, pass_time):
    everything = define_everything()
    runs = [
        everything.start({}),
        everything.start({}, key="a", priority=3, delay="1s"),
        *everything.start_many([{}, {}]),
        *everything.start_many([{}], delay="1s", queue="bulk"),
    ]
    again = everything.start({}, key="a")
    assert (again.pk, again.created) == (runs[1].pk, False)
    pass_time("1m")
    work()
    assert {status_of(run) for run in runs} == {"sleeping"}
    pass_time("2h")
    work()
    assert {status_of(run) for run in runs} == {"succeeded"}
    assert {run.steps.count() for run in runs} == {5}
    restarted = runs[0].restart(from_step="atomic")
    assert restarted.steps.count() == 2
    claim(restarted)
    restarted.cancel()
    with connection.cursor() as cursor:
        for model in (WorkflowRun, StepRecord, Worker):
            cursor.execute(f"SELECT DISTINCT later_0, later_1, later_2 FROM {model._meta.db_table}")
            assert list(cursor.fetchall()) == [("later", "", 7)]


# What identifies a row, and what every INSERT sets: no default would be right.
ALWAYS_SET = {
    WorkflowRun: {"id", "workflow", "input", "created_at"},
    StepRecord: {"id", "run_id", "name", "kind", "position", "status", "started_at", "claim_token", "write_id"},
    Worker: {"id", "host", "pid", "concurrency", "lease_us", "started_at", "last_seen_us"},
}


@pytest.mark.parametrize("model", list(ALWAYS_SET), ids=lambda model: model.__name__)
def test_whatever_an_insert_may_leave_out_has_a_default_in_the_database(transactional_db, model):
    fields = model._meta.concrete_fields
    assert {f.column for f in fields if not f.null and not f.has_db_default()} == ALWAYS_SET[model]
    for field in fields:
        if field.has_db_default():
            assert field._db_default_expression.value == field.get_default()


def test_a_row_of_what_has_to_be_set_holds_what_a_new_instance_holds(transactional_db):
    run = WorkflowRun(workflow="w", input_text="null", created_at="2026-01-01T00:00Z")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_steps_workflowrun (id, workflow, input, created_at) VALUES (%s, 'w', 'null', %s)",
            [run.pk if connection.vendor == "postgresql" else _text(run.pk), "2026-01-01 00:00:00"],
        )
    found = WorkflowRun.objects.get(pk=run.pk)
    for field in WorkflowRun._meta.concrete_fields:
        if field.attname != "created_at":
            assert getattr(found, field.attname) == getattr(run, field.attname), field.attname


def _text(value) -> str:
    return str(value) if connection.features.has_native_uuid_field else value.hex
