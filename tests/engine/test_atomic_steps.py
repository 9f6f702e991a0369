"""`atomic=True`: a step's database writes and its record commit together, or neither does."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction

from django_steps import RetryPolicy, current_step, workflow
from django_steps.models import WorkflowRun
from tests.app.models import Person
from tests.app.workflows import tiny
from tests.looking import error_of
from tests.staging import second_connection

QUICKLY = RetryPolicy(max_attempts=3, initial_interval="10ms")


def test_writes_of_an_atomic_step_and_its_record_commit_together(work):
    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            Person.objects.create(name="booked")
            assert connection.in_atomic_block
            return Person.objects.count()

        return book.run()

    run = booking.start()
    work()
    assert run.result(timeout=0) == 1


def test_failed_atomic_step_leaves_no_writes_and_is_recorded_as_failed(work):
    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            Person.objects.create(name="booked")
            raise ValidationError("full")

        book.run()

    run = booking.start()
    work()
    assert error_of(run)["step"] == "book"
    assert Person.objects.count() == 0
    assert run.steps.get().status == "failed"


def test_atomic_step_whose_result_cannot_be_recorded_leaves_no_writes(work):
    @workflow
    def booking(step):
        step.define("book", lambda: (Person.objects.create(name="booked"), threading.Lock()), atomic=True).run()

    run = booking.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.UnserializableResult"
    assert Person.objects.count() == 0


ENDING = ["ROLLBACK", "commit", "/* why */ COMMIT", "-- why\nROLLBACK", "raises"]
ENDING += {
    "sqlite": ["END", "END TRANSACTION"],
    "postgresql": ["END", "abort", "SELECT 1; ROLLBACK", "SELECT 1; /* why */ COMMIT", "COMMIT AND CHAIN"],
    "mysql": ["BEGIN", "START TRANSACTION", "CREATE TABLE left_over (id int)", "LOCK TABLES app_person WRITE"],
}[connection.vendor]


@pytest.fixture
def _no_table_is_left(transactional_db):
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS left_over")


@pytest.mark.usefixtures("_no_table_is_left")
@pytest.mark.parametrize("statement", ENDING)
def test_atomic_step_that_ends_its_own_transaction_fails(work, statement):

    @workflow
    def ending(step):
        def end():
            with connection.cursor() as cursor:
                cursor.execute("ROLLBACK" if statement == "raises" else statement)
            Person.objects.create(name="after")
            if statement == "raises":
                raise ValueError("too late")

        step.define("end", end, atomic=True, retry=QUICKLY).run()

    run = ending.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.StepInTransaction"
    assert "Step 'end' ended its own transaction, by a COMMIT or ROLLBACK or" in error_of(run)["message"]
    assert run.steps.get().attempts == 1


@pytest.mark.parametrize("name", ["a; ROLLBACK", "b'; commit", 'c"; rollback -- ; COMMIT'])
def test_atomic_step_may_write_of_a_rollback(work, name):
    @workflow
    def writing(step):
        def write():
            Person.objects.create(name="before")
            with connection.cursor() as cursor:
                literal = name.replace("'", "''")
                cursor.execute(f"UPDATE {Person._meta.db_table} SET name = '{literal}' /* ; ROLLBACK */")
            return list(Person.objects.values_list("name", flat=True))

        return step.define("write", write, atomic=True).run()

    run = writing.start()
    work()
    assert run.result(timeout=0) == [name]


@pytest.mark.usefixtures("_no_table_is_left")
def test_atomic_step_may_send_what_ends_no_transaction(work):
    statements = ["SAVEPOINT x", "RELEASE SAVEPOINT x", "SELECT 'END'", "SELECT 1 /* ; COMMIT */"]
    statements += {
        "sqlite": [
            "CREATE TABLE left_over (id int)",
            "CREATE TRIGGER t INSERT ON left_over BEGIN SELECT 1; SELECT 2; END",
        ],
        "postgresql": [
            "CREATE TABLE left_over (id int)",
            "CREATE OR REPLACE PROCEDURE left_over_p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$",
            "DROP PROCEDURE left_over_p",
        ],
        "mysql": ["CREATE TEMPORARY TABLE left_over (id int)", "SET @a = 1"],
    }[connection.vendor]

    @workflow
    def writing(step):
        def write():
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
            return "written"

        return step.define("write", write, atomic=True).run()

    run = writing.start()
    work()
    assert run.result(timeout=0) == "written"


@pytest.mark.skipif(connection.vendor == "mysql", reason="there the transaction that is open stays as it is")
def test_atomic_step_that_makes_its_transaction_read_only_is_not_repeated_without_end(work):
    statement = {"sqlite": "PRAGMA query_only = 1", "postgresql": "SET TRANSACTION READ ONLY"}[connection.vendor]
    executed = []

    @workflow
    def forbidding(step):
        def forbid():
            executed.append(1)
            with connection.cursor() as cursor:
                cursor.execute(statement)

        step.define("forbid", forbid, atomic=True, retry=QUICKLY).run()

    run = forbidding.start()
    work()
    assert error_of(run)["type"] == "django_steps.errors.StepInTransaction"
    assert "Step 'forbid' makes its own transaction read-only" in error_of(run)["message"]
    assert len(executed) == 2


def test_atomic_step_may_roll_back_to_a_savepoint_and_use_other_transactions(work):
    @workflow
    def nested(step):
        def book():
            Person.objects.create(name="kept")
            with contextlib.suppress(ValueError), transaction.atomic():
                Person.objects.create(name="rolled back")
                raise ValueError
            return list(Person.objects.values_list("name", flat=True))

        return step.define("book", book, atomic=True).run()

    run = nested.start()
    work()
    assert run.result(timeout=0) == ["kept"]


def test_atomic_step_that_leaves_a_block_open_fails_instead_of_losing_its_record(work, caplog):
    executed: list[int] = []

    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            executed.append(1)
            transaction.atomic().__enter__()
            Person.objects.create(name="lost")

        book.run()

    run = booking.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.StepInTransaction"
    assert "'book'" in error["message"]
    assert executed == [1]
    assert Person.objects.count() == 0
    assert run.steps.get().status == "failed"


def test_callback_that_raises_after_an_atomic_step_is_reported_and_the_step_is_done(work, caplog):
    executed: list[int] = []

    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            executed.append(1)
            Person.objects.create(name="booked")
            transaction.on_commit(lambda: 1 / 0)
            return "booked"

        return book.run()

    run = booking.start()
    work()
    assert run.result(timeout=0) == "booked"
    assert executed == [1]
    assert Person.objects.count() == 1
    assert run.steps.get().status == "succeeded"
    assert "ZeroDivisionError" in caplog.text


def test_callback_of_an_atomic_step_that_failed_is_not_called(work):
    called: list[int] = []

    @workflow
    def booking(step):
        @step.define("book", atomic=True)
        def book():
            transaction.on_commit(lambda: called.append(1))
            raise ValueError

        book.run()

    run = booking.start()
    work()
    assert error_of(run)["type"] == "ValueError"
    assert called == []


def test_atomic_step_with_attempts_keeps_only_the_writes_of_the_last_one(work):
    attempts: list[int] = []

    @workflow
    def booking(step):
        @step.define("book", atomic=True, retry=QUICKLY)
        def book():
            attempts.append(current_step().attempt)
            Person.objects.create(name=f"attempt {current_step().attempt}")
            if current_step().attempt < 3:
                raise OSError

        book.run()

    run = booking.start()
    work()
    run.result(timeout=0)
    assert attempts == [1, 2, 3]
    assert list(Person.objects.values_list("name", flat=True)) == ["attempt 3"]


# -- What the step does to its own transaction and run -----------------------------------------------


@pytest.mark.counts_passes
@pytest.mark.parametrize("act", ["delete", "reset"])
def test_step_that_takes_its_own_run_away_fails_once_and_says_so(work, act):
    executed: list[int] = []

    @workflow
    def suicidal(step, run):
        @step.define("act", atomic=True, retry=QUICKLY)
        def go():
            executed.append(1)
            if act == "delete":
                WorkflowRun.objects.filter(pk=run.pk).delete()
            else:
                WorkflowRun.objects.filter(pk=run.pk).update(claim_token=None, status="pending")

        go.run()

    run = suicidal.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.OwnRunChanged"
    assert "Step 'act' deleted or changed the run that it belongs to" in error["message"]
    assert executed == [1]


@pytest.mark.counts_passes
def test_step_that_closes_the_connection_of_its_transaction_fails_as_its_policy_says(work):
    executed: list[int] = []

    @workflow
    def closing(step):
        @step.define("close", atomic=True)
        def close():
            executed.append(1)
            Person.objects.create(name="lost")
            connection.close()

        close.run()

    run = closing.start()
    work()
    error = error_of(run)
    assert error["type"] == "django_steps.errors.StepInTransaction"
    assert "closed the connection of its own transaction" in error["message"]
    assert executed == [1]
    assert Person.objects.count() == 0


@pytest.mark.counts_passes
def test_lock_that_the_step_would_not_wait_for_is_its_own_failure(work):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no locks of rows")
    executed: list[int] = []
    person = Person.objects.create(name="locked")

    @workflow
    def impatient(step):
        @step.define("lock", atomic=True)
        def lock():
            executed.append(1)
            return Person.objects.select_for_update(nowait=True).get(pk=person.pk).name

        lock.run()

    run = impatient.start()
    with second_connection() as other:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute(f"SELECT id FROM {Person._meta.db_table} WHERE id = %s FOR UPDATE", [person.pk])
        work()
        other.rollback()
    assert error_of(run)["type"] == "django.db.utils.OperationalError"
    assert executed == [1]


@pytest.mark.counts_passes
def test_transaction_that_the_server_ends_is_no_failure_of_the_step(work):
    if connection.vendor != "postgresql":
        pytest.skip("time limits of idle transactions are PostgreSQL's")
    executed: list[int] = []

    @workflow
    def slow(step):
        @step.define("rest", atomic=True)
        def rest():
            executed.append(1)
            if len(executed) == 1:
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 30")
                time.sleep(0.1)
            return Person.objects.count()

        return rest.run()

    run = slow.start()
    work()
    assert run.result(timeout=0) == 0
    assert executed == [1, 1]


@pytest.mark.counts_passes
def test_server_that_has_become_read_only_is_no_failure_of_the_step(work):
    """As after a failover: a new connection leads to the writer again."""
    if connection.vendor != "postgresql":
        pytest.skip("only PostgreSQL says it by a code of its own")
    executed: list[int] = []

    @workflow
    def writes(step):
        @step.define("write", atomic=True)
        def write():
            executed.append(1)
            if len(executed) == 1:
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION READ ONLY")
            return Person.objects.create(name="written").name

        return write.run()

    run = writes.start()
    work()
    assert run.result(timeout=0) == "written"
    assert executed == [1, 1]


# -- Callbacks of its commit -------------------------------------------------------------------------


@pytest.mark.counts_passes
def test_callbacks_of_the_commit_belong_to_the_step_and_each_is_called(work, caplog):
    called: list[object] = []

    def fail() -> None:
        raise OSError("no mail")

    @workflow
    def books(step):
        @step.define("book", atomic=True)
        def book():
            transaction.on_commit(lambda: called.append(current_step().name))
            transaction.on_commit(fail)
            transaction.on_commit(lambda: called.append(tiny.start().workflow))
            return "booked"

        return book.run()

    run = books.start()
    work()
    assert run.result(timeout=0) == "booked"
    assert called == ["book", "tiny"]
    assert "Step 'book' is done and recorded, but an on_commit() callback raised." in caplog.text
    assert WorkflowRun.objects.get(workflow="tiny").status == "succeeded"
