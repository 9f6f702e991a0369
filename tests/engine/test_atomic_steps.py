"""`atomic=True`: a step's database writes and its record commit together, or neither does."""

from __future__ import annotations

import threading

from django.core.exceptions import ValidationError
from django.db import connection, transaction

from django_steps import RetryPolicy, current_step, workflow
from tests.app.models import Person
from tests.looking import error_of

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
