"""What a step or a body leaves behind on its connections does not reach the next one."""

from __future__ import annotations

import contextlib

import pytest
from django.db import connection, transaction

from django_steps import workflow
from tests.app.models import Person
from tests.looking import names_of


def raw_begin():
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    Person.objects.create(name="lost")


def atomic_left_open():
    transaction.atomic().__enter__()
    Person.objects.create(name="lost")


def autocommit_off():
    transaction.set_autocommit(False)
    Person.objects.create(name="lost")


def failing_in_an_open_transaction():
    raw_begin()
    raise ValueError("in the middle")


def raw_begin_and_rollback_to_savepoint():
    with connection.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("SAVEPOINT a")
        cursor.execute("ROLLBACK TO SAVEPOINT a")
    Person.objects.create(name="lost")


@pytest.mark.parametrize(
    "leave",
    [raw_begin, raw_begin_and_rollback_to_savepoint, atomic_left_open, autocommit_off, failing_in_an_open_transaction],
)
def test_transaction_that_a_step_leaves_open_is_rolled_back_and_logged(work, caplog, leave):
    @workflow
    def careless(step):
        with contextlib.suppress(ValueError):
            step.define("careless", leave).run()
        step.define("next", lambda: Person.objects.create(name="kept").name).run()
        return connection.get_autocommit()

    run = careless.start()
    work(concurrency=1)
    assert run.result(timeout=0) is True
    assert list(Person.objects.values_list("name", flat=True)) == ["kept"]
    assert "Step 'careless' left" in caplog.text
    assert "Step 'next' left" not in caplog.text
    assert names_of(run) == ["careless", "next"]


def test_transaction_that_a_step_ends_itself_is_nothing_to_tell(work, caplog):
    @workflow
    def careful(step):
        @step.define("by_hand")
        def by_hand():
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("INSERT INTO app_person (name, greeted) VALUES ('kept', 0)")
                cursor.execute("COMMIT")
            with transaction.atomic(), transaction.atomic():
                Person.objects.create(name="kept, too")
            with contextlib.suppress(ZeroDivisionError), transaction.atomic():
                Person.objects.create(name="undone")
                1 / 0  # noqa: B018

        by_hand.run()

    run = careful.start()
    work()
    run.result(timeout=0)
    assert Person.objects.count() == 2
    assert "left" not in caplog.text


def break_connection():
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        connection.connection.close()
        Person.objects.count()
        return
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        else:
            cursor.execute("SELECT CONNECTION_ID()")
            cursor.execute(f"KILL {cursor.fetchone()[0]}")


def test_broken_connection_is_replaced_for_the_next_step(work, caplog):
    @workflow
    def breaking(step):
        with contextlib.suppress(Exception):
            step.define("break", break_connection).run()
        return step.define("next", Person.objects.count).run()

    run = breaking.start()
    work(concurrency=1)
    assert run.result(timeout=0) == 0
    assert "Step 'break' left a broken connection" in caplog.text
    assert [(record.name, record.status) for record in run.steps.all()] == [("break", "failed"), ("next", "succeeded")]


def test_what_a_body_leaves_open_does_not_reach_the_next_run_on_its_thread(work, caplog):
    @workflow
    def careless():
        transaction.set_autocommit(False)
        Person.objects.create(name="lost")

    @workflow
    def following(step):
        return step.define("count", Person.objects.count).run()

    first, second = careless.start(), following.start()
    work(concurrency=1)
    assert first.result(timeout=0) is None
    assert second.result(timeout=0) == 0
    assert f"The body of run {first.pk} left autocommit switched off" in caplog.text
