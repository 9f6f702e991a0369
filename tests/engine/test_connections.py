"""What a step or a body leaves behind on its connections does not reach the next one."""

from __future__ import annotations

import contextlib

import pytest
from django.db import connection, transaction
from django.db.backends.signals import connection_created

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


# -- Sessions -------------------------------------------------------------------------------------

CHANGES = {
    "sqlite": [
        "PRAGMA query_only = 1",
        "CREATE TEMP TABLE left_over (id int)",
        "ATTACH ':memory:' AS left_over",
    ],
    "postgresql": [
        "SET search_path TO pg_catalog",
        "SELECT set_config('search_path', 'pg_catalog', false)",
        "SELECT 1; SET search_path TO pg_catalog",
        "/* why */ set role pg_read_all_data",
        "SET default_transaction_read_only = on",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET statement_timeout = 1",
        "CREATE TEMPORARY TABLE left_over (id int)",
        "SELECT pg_advisory_lock(1)",
        "LISTEN left_over",
    ],
    "mysql": [
        "USE information_schema",
        "SET SESSION TRANSACTION READ ONLY",
        "SET SESSION sql_mode = 'ANSI'",
        "CREATE TEMPORARY TABLE left_over (id int)",
        "SELECT GET_LOCK('left over', 0)",
        "LOCK TABLES app_person READ",
    ],
}[connection.vendor]


def send(*statements):
    """A function for a step that sends these, and where it keeps the session that it had."""

    def step():
        Person.objects.count()
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        seen.append(connection.connection)

    seen = []
    return step, seen


@pytest.mark.parametrize("statement", CHANGES)
def test_session_that_a_step_changes_is_replaced(work, statement):
    step_function, seen = send(statement)

    @workflow
    def changing(step):
        step.define("change", step_function).run()
        step.define("next", lambda: seen.append(Person.objects.create(name="kept") and connection.connection)).run()

    @workflow
    def following(step):
        step.define("write", lambda: Person.objects.create(name="kept, too").name).run()

    first, second = changing.start(), following.start()
    work(concurrency=1)
    first.result(timeout=0)
    assert second.result(timeout=0) is None
    assert seen[-1] is not seen[0]
    assert Person.objects.count() == 2


@pytest.mark.parametrize("statement", CHANGES)
def test_session_that_a_body_changes_is_replaced_at_the_end_of_the_pass(work, statement):
    body_function, _ = send(statement)

    @workflow
    def changing(step):
        body_function()
        return step.define("plain", lambda: 5).run()

    @workflow
    def following(step):
        step.define("write", lambda: Person.objects.create(name="kept").name).run()

    first, second = changing.start(), following.start()
    work(concurrency=1)
    assert first.result(timeout=0) == 5
    second.result(timeout=0)
    assert Person.objects.count() == 1


@pytest.mark.parametrize("statement", CHANGES[:1])
def test_session_that_is_changed_behind_djangos_back_holds_up_no_record(work, statement):
    """The records, which fail on it although it answers, go by another one."""

    @workflow
    def changing(step):
        @step.define("change")
        def change():
            connection.ensure_connection()
            raw = connection.connection.cursor()
            raw.execute(statement)
            raw.close()

        change.run()
        step.define("write", lambda: Person.objects.create(name="kept").name).run()

    run = changing.start()
    work(concurrency=1)
    run.result(timeout=0)
    assert Person.objects.count() == 1


@pytest.mark.parametrize("statement", CHANGES[:1])
def test_session_that_is_changed_behind_djangos_back_is_replaced_by_closing_the_connection(work, statement):
    seen = []

    @workflow
    def changing(step):
        @step.define("change")
        def change():
            connection.ensure_connection()
            raw = connection.connection.cursor()
            raw.execute(statement)
            raw.close()
            seen.append(connection.connection)
            connection.close()

        change.run()

    @workflow
    def following(step):
        step.define("write", lambda: seen.append(Person.objects.create(name="kept") and connection.connection)).run()

    runs = changing.start(), following.start()
    work(concurrency=1)
    for run in runs:
        run.result(timeout=0)
    assert seen[1] is not seen[0]


KEPT = {
    "sqlite": ["PRAGMA table_info(app_person)", "SELECT 'SET x'"],
    "postgresql": [
        "SET LOCAL statement_timeout = 100000",
        "SELECT set_config('search_path', 'public', true)",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "SELECT pg_advisory_xact_lock(1)",
        "LOCK TABLE app_person IN SHARE MODE",
    ],
    "mysql": ["SELECT 'SET x'", "SET TRANSACTION READ WRITE"],
}[connection.vendor]


@pytest.mark.counts_passes
def test_session_is_kept_where_nothing_outlasts_the_transaction(work):
    seen = []

    @workflow
    def careful(step):
        for number, statement in enumerate(KEPT):
            step_function, sent = send(*([statement] if "TRANSACTION" not in statement else [statement, "SELECT 1"]))

            @step.define(f"step {number}", atomic="TRANSACTION" not in statement)
            def execute(function=step_function, sent=sent):
                function()
                seen.extend(sent)

            execute.run()

    run = careful.start()
    work(concurrency=1)
    run.result(timeout=0)
    assert len(seen) == len(KEPT) and len({id(one) for one in seen}) == 1


def test_what_opens_a_session_is_no_change_of_it(work):
    """A receiver of `connection_created` that sets something for every session."""
    seen = []

    statement = {"sqlite": "PRAGMA cache_size = -4000", "postgresql": "SET lock_timeout = 10000", "mysql": "SET @a = 1"}

    def prepare(connection, **details):
        with connection.cursor() as cursor:
            cursor.execute(statement[connection.vendor])

    @workflow
    def plain(step):
        for number in range(2):
            step.define(f"step {number}", lambda: seen.append(Person.objects.count() or connection.connection)).run()

    run = plain.start()
    connection_created.connect(prepare)
    # It is registered before the engine is imported.
    connection_created.receivers.insert(0, connection_created.receivers.pop())
    connection_created.sender_receivers_cache.clear()
    try:
        work(concurrency=1)
    finally:
        connection_created.disconnect(prepare)
    run.result(timeout=0)
    assert seen[0] is seen[1]
