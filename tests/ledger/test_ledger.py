"""The fence, lost answers and refusals: the writes that carry the promises, called directly."""

import pytest
from django.db import OperationalError, connection, connections, transaction

from django_steps import RetryPolicy, workflow
from django_steps.core import clock
from django_steps.errors import UnserializableValue, ValueTooLarge
from django_steps.ledger import database, dialect, records, tables, timers, transitions
from django_steps.ledger.records import Outcome
from django_steps.ledger.transitions import Finish
from django_steps.ledger.waits import Suspension
from django_steps.models import StepRecord, WorkflowRun
from tests.app import effects
from tests.app.workflows import three_steps
from tests.staging import (
    SECOND,
    Background,
    LostAnswers,
    claim,
    lose_connection,
    make_terms,
    recover,
    second_connection,
    status_of,
    step_write,
)

pytestmark = pytest.mark.django_db(transaction=True)


def finish_of(claimed, status="succeeded"):
    return Finish(run_id=claimed.run_id, token=claimed.token, status=status, output="null", finished_at=claimed.now())


# -- The fence ----------------------------------------------------------------------------------


def steal(claimed, terms):
    """Begin to take a run over on another thread, and hold the transaction open for a while."""
    import threading

    stolen, go_on = threading.Event(), threading.Event()

    def run():
        with database.writing(connection):
            timers.wake(connection, terms)
            stolen.set()
            go_on.wait(10)

    thread = Background(run)
    assert stolen.wait(10)
    return thread, go_on


@pytest.mark.parametrize("write", ["record", "replace", "finish", "put_down", "attempt_again", "shared"])
def test_a_takeover_in_flight_fences_every_write(write):
    from django_steps.ledger import batches

    run = three_steps.start({})
    terms = make_terms()
    claimed = claim(run, terms)
    if write == "replace":
        records.record(connection, step_write(claimed, "first", status="retrying", output=None))
    clock.offset_us += 31 * SECOND
    with database.writing(connection):
        timers.wake(connection, terms)  # the suspicion
    clock.offset_us += 31 * SECOND
    thread, go_on = steal(claimed, terms)
    one = step_write(claimed, "first", replaces=write == "replace")
    sleep = step_write(claimed, "nap", kind="sleep")
    calls = {
        "record": lambda: records.record(connection, one),
        "replace": lambda: records.record(connection, one),
        "finish": lambda: transitions.finish(connection, finish_of(claimed)),
        "put_down": lambda: transitions.suspend(
            connection, run.pk, claimed.token, Suspension(claimed.now() + SECOND), sleep
        ),
        "attempt_again": lambda: transitions.attempt_again(connection, run.pk, claimed.token, claimed.now(), "{}", []),
        "shared": lambda: batches.write_many(connection, [one]) or records.record(connection, one),
    }
    late = Background(calls[write])
    late.join(0.15)  # held up by the lock, or passed over
    go_on.set()
    thread.result()
    assert late.result() is Outcome.LOST
    run.refresh_from_db()
    assert run.status == "pending"
    assert not run.steps.filter(status="succeeded").exists()


def test_a_record_in_flight_keeps_the_run_from_being_taken_over():
    run = three_steps.start({})
    terms = make_terms()
    claimed = claim(run, terms)
    clock.offset_us += 31 * SECOND
    with database.writing(connection):
        timers.wake(connection, terms)
    clock.offset_us += 31 * SECOND
    with transaction.atomic():
        if connection.vendor == "sqlite":
            records.hold(connection, run.pk, claimed.token)
        assert records.record(connection, step_write(claimed, "first")) is Outcome.WRITTEN
        other = Background(lambda: recover(terms))
        other.join(0.15)
        assert WorkflowRun.objects.get(pk=run.pk).status == "running"
    other.result()
    assert run.steps.get().name == "first"


def test_a_stolen_run_is_lost_to_its_first_worker():
    run = three_steps.start({})
    first = claim(run)
    clock.offset_us += 31 * SECOND
    recover()
    second = claim(run)
    assert second.token != first.token
    assert records.record(connection, step_write(first, "first")) is Outcome.LOST
    assert transitions.finish(connection, finish_of(first)) is Outcome.LOST
    transitions.release(connection, run.pk, first.token)
    assert status_of(run) == "running"
    assert records.record(connection, step_write(second, "first")) is Outcome.WRITTEN
    assert transitions.finish(connection, finish_of(second)) is Outcome.WRITTEN


def test_a_name_that_is_taken_is_not_recorded_again():
    claimed = claim(three_steps.start({}))
    assert records.record(connection, step_write(claimed, "first", output="1")) is Outcome.WRITTEN
    assert records.record(connection, step_write(claimed, "first", output="2")) is Outcome.TAKEN
    assert StepRecord.objects.get().output == 1


def test_a_run_that_is_gone_is_lost():
    run = three_steps.start({})
    claimed = claim(run)
    WorkflowRun.objects.filter(pk=run.pk).delete()
    assert records.record(connection, step_write(claimed, "first")) is Outcome.LOST
    assert transitions.finish(connection, finish_of(claimed)) is Outcome.LOST


# -- Lost answers: the second time finds the first -----------------------------------------------


def test_a_record_written_twice_is_written_once():
    claimed = claim(three_steps.start({}))
    write = step_write(claimed, "first")
    assert [records.record(connection, write) for _ in range(2)] == [Outcome.WRITTEN] * 2
    assert StepRecord.objects.count() == 1


def test_an_end_written_twice_is_recognized():
    claimed = claim(three_steps.start({}))
    assert [transitions.finish(connection, finish_of(claimed)) for _ in range(2)] == [Outcome.WRITTEN] * 2


@pytest.mark.parametrize("is_tried", [False, True])
def test_a_put_down_written_twice_is_recognized(is_tried):
    run = three_steps.start({})
    claimed = claim(run)
    if is_tried:
        records.record(connection, step_write(claimed, "nap", status="retrying", output=None))
    write = step_write(claimed, "nap", replaces=is_tried)
    wakes_at_us = claimed.now() + 60 * SECOND
    outcomes = [
        transitions.suspend(connection, run.pk, claimed.token, Suspension(wakes_at_us), write) for _ in range(2)
    ]
    assert outcomes == [Outcome.WRITTEN] * 2
    assert status_of(run) == "sleeping"


def test_a_record_of_a_put_down_run_is_not_taken_for_a_cancel():
    """What the second writing of a put-down finds after another worker has gone on with the run."""
    run = three_steps.start({})
    claimed = claim(run)
    write = step_write(claimed, "nap")
    transitions.suspend(connection, run.pk, claimed.token, Suspension(claimed.now()), write)
    clock.offset_us += SECOND
    claim(run)
    assert records.explain(connection, write) is Outcome.LOST


def test_what_a_lost_connection_was_committing_is_waited_for():
    """The COMMIT is on its way when somebody asks whether it was."""
    claimed = claim(three_steps.start({}))
    write = step_write(claimed, "first")
    with second_connection() as other:
        other.set_autocommit(False)
        if other.vendor == "sqlite":
            with other.cursor() as cursor:
                cursor.execute("BEGIN IMMEDIATE")
        assert records.insert_unlocked(other, write)
        asking = Background(lambda: records.is_recorded(connection, write))
        asking.join(0.15)
        assert asking.is_alive()
        other.commit()
    assert asking.result() is True


# Every write of a run, one after the other: the database carries it out, and its answer is lost.


def _mixed(says):
    @workflow(name="mixed", retry=RetryPolicy(max_attempts=2, initial_interval="1ms"))
    def mixed(input, step, run):
        def say(**details):
            if says:
                run.update_details(**details)

        effects.leave("body")
        say(at="plain")
        step.define("plain", effects.leave).run("plain")
        say(at="atomic", plain="done")
        step.define("atomic", effects.leave, atomic=True).run("atomic")

        def flaky():
            effects.leave("flaky")
            if effects.count("flaky") == 1:
                raise OSError("once")

        say(at="flaky", atomic="done")
        step.define("flaky", flaky, retry=RetryPolicy(max_attempts=2, initial_interval="1ms")).run()

        def caught():
            effects.leave("caught")
            raise LookupError("always")

        try:
            step.define("caught", caught).run()
        except LookupError:
            say(caught="done")
            step.define("instead", effects.leave).run("instead")
        step.sleep("short", "1ms")
        say(at="long")
        step.sleep("long", "1100ms")
        if effects.count("fail the run") == 0:
            step.define("fail the run", effects.leave).run("fail the run")
            say(failed="once")
            raise RuntimeError("the whole run is tried again")
        step.define("last", effects.leave).run("last")
        say(at="end", last="done")
        return "done"

    return mixed


EXECUTED_ONCE = ["plain", "atomic", "caught", "instead", "fail the run", "last"]


SAID = {"at": "end", "plain": "done", "atomic": "done", "caught": "done", "failed": "once", "last": "done"}


@pytest.mark.parametrize("says", [False, True], ids=["says nothing", "says something"])
def test_every_write_may_lose_its_answer(work, settings, says):
    """One write after the other, each in a run of its own; the outcome is that of an undisturbed run."""
    settings.DJANGO_STEPS = {"INLINE_WAIT": "1050ms"}
    mixed = _mixed(says)

    def outcome(nth):
        effects.Effect.objects.all().delete()
        run = mixed.start({})
        with LostAnswers(nth) as answers:
            # A worker of its own for each pass: it does not come back before the run is due.
            while run.status in ("pending", "running", "sleeping"):
                work(concurrency=1)
                clock.offset_us += 2 * SECOND
                run.refresh_from_db()
        steps = list(run.steps.values_list("name", "status", "attempts"))
        times = {name: effects.count(name) for name in [*EXECUTED_ONCE, "flaky"]}
        return (run.status, run.error, run.output, run.details, steps, times), answers

    work()  # the first worker writes the limits and schedules of all workflows that there are
    expected, undisturbed = outcome(None)
    assert expected[0] == "succeeded" and expected[3] == (SAID if says else {})
    assert expected[5] == {**dict.fromkeys(EXECUTED_ONCE, 1), "flaky": 2}
    lost = []
    for nth in range(undisturbed.seen):
        found, answers = outcome(nth)
        assert found == expected, answers.what
        if answers.what:  # how many claims a run takes depends on the moment: the last writes may not come about
            lost.append(answers.what.split()[0])
    assert len(lost) > undisturbed.seen * 2 / 3
    assert {"INSERT", "UPDATE", "COMMIT"} <= set(lost) | {"INSERT" if connection.vendor == "postgresql" else ""}


# -- Refusals that pass, and those that don't ----------------------------------------------------


def test_a_deadlock_is_answered_by_asking_again():
    asked = []

    def statement():
        asked.append(1)
        if len(asked) < 3:
            raise _refusal(connection)
        return "done"

    assert database.retrying(connection, statement) == "done"
    asked.clear()
    with pytest.raises(OperationalError, match="no such thing"):
        database.retrying(connection, lambda: asked.append(1) or _raise(OperationalError("no such thing")))
    assert len(asked) == 1


def _raise(error):
    raise error


def _refusal(connection):
    if connection.vendor == "mysql":
        return OperationalError(1213, "Deadlock found when trying to get lock")
    if connection.vendor == "sqlite":
        return OperationalError("database is locked")
    import psycopg.errors

    error = OperationalError("deadlock detected")
    error.__cause__ = psycopg.errors.DeadlockDetected("deadlock detected")
    return error


def test_two_runs_that_lock_each_other_both_go_on():
    """A real deadlock: two transactions that take two runs in opposite orders."""
    import threading

    runs = [three_steps.start({}) for _ in range(2)]
    terms = make_terms()
    claimed = {found.run_id: found for found in (claim(runs[0], terms),)}
    claimed |= {run.pk: None for run in runs if run.pk not in claimed}
    barrier, is_done = threading.Barrier(2), threading.Event()
    tries = []

    def touch(first, second):
        own = []

        def statements():
            tries.append(1)
            own.append(1)
            if (
                len(own) > 1
            ):  # else it may take its run again before the other one wakes up: the same deadlock once more
                is_done.wait(10)
            with database.writing(connection), connection.cursor() as cursor:
                for run in (first, second):
                    key = dialect.key(connection, run.pk)
                    cursor.execute(f"UPDATE {tables.RUN} SET progress_done = 1 WHERE id = %s", [key])
                    if run is first and len(tries) <= 2 and connection.vendor != "sqlite":
                        barrier.wait(5)

        database.retrying(connection, statements)
        is_done.set()
        return "done"

    threads = [Background(lambda: touch(*runs)), Background(lambda: touch(*reversed(runs)))]
    assert [thread.result() for thread in threads] == ["done", "done"]
    assert len(tries) == (2 if connection.vendor == "sqlite" else 3)


def test_writing_is_a_transaction_on_the_connection_that_is_given():
    run = three_steps.start({})
    own = connections["default"]
    with second_connection() as other:
        key = dialect.key(other, run.pk)
        with pytest.raises(ZeroDivisionError), database.writing(other), other.cursor() as cursor:
            assert (other.in_atomic_block, own.in_atomic_block) == (True, False)
            cursor.execute(f"UPDATE {tables.RUN} SET progress_done = 1 WHERE id = %s", [key])
            raise ZeroDivisionError
        run.refresh_from_db()
        assert run.progress_done is None
        with database.writing(other), other.cursor() as cursor:
            cursor.execute(f"UPDATE {tables.RUN} SET progress_done = 2 WHERE id = %s", [key])
    assert connections["default"] is own
    run.refresh_from_db()
    assert run.progress_done == 2


# -- Values that the database doesn't take -------------------------------------------------------


class Refuses:
    """Breaks the connection on every statement that carries a long text, as MySQL's packet limit does."""

    def __call__(self, execute, statement, parameters, many, context):
        if any(isinstance(value, str) and len(value) > 100_000 for value in parameters or ()):
            lose_connection(context["connection"])
            raise OperationalError("server has gone away")
        return execute(statement, parameters, many, context)


@pytest.mark.parametrize("atomic", [False, True])
def test_a_value_that_kills_the_connection_fails_its_step(work, monkeypatch, atomic):
    if connection.vendor == "sqlite":  # whose connections don't break: the file is what they are
        monkeypatch.setattr(type(connection._connections["default"]), "is_usable", lambda self: False)

    @workflow(name="large_value")
    def large_value(input, step):
        try:
            step.define("large", lambda: "x" * 200_000, atomic=atomic).run()
        except ValueTooLarge as error:
            return str(error)

    run = large_value.start({})
    _on_every_connection(monkeypatch, Refuses())
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "succeeded" and "twice" in run.output, run.error
    step = run.steps.get()
    assert step.status == "failed" and step.attempts == 1


def test_a_result_of_the_run_that_kills_the_connection_fails_the_run(work, monkeypatch):
    if connection.vendor == "sqlite":
        monkeypatch.setattr(type(connection._connections["default"]), "is_usable", lambda self: False)

    @workflow(name="large_result")
    def large_result(input):
        return "x" * 200_000

    run = large_result.start({})
    _on_every_connection(monkeypatch, Refuses())
    work(concurrency=1)
    run.refresh_from_db()
    assert run.status == "failed" and run.error["type"].endswith("ValueTooLarge")


def _on_every_connection(monkeypatch, wrapper):
    """Install an execute wrapper on the connections that threads open from now on, until the test ends."""
    from django.db.backends.base.base import BaseDatabaseWrapper

    original = BaseDatabaseWrapper.connect

    def connect(self):
        original(self)
        if wrapper not in self.execute_wrappers:
            self.execute_wrappers.append(wrapper)

    monkeypatch.setattr(BaseDatabaseWrapper, "connect", connect)


def test_a_value_that_the_database_refuses_fails_its_step(work, monkeypatch):
    from django.db import DataError

    class RefusesData:
        def __call__(self, execute, statement, parameters, many, context):
            if any(isinstance(value, str) and "poison" in value for value in parameters or ()):
                raise DataError("invalid value")
            return execute(statement, parameters, many, context)

    @workflow(name="poisoned")
    def poisoned(input, step):
        try:
            step.define("poisoned", lambda: "poi" + "son").run()
        except UnserializableValue as error:
            return type(error).__name__

    run = poisoned.start({})
    _on_every_connection(monkeypatch, RefusesData())
    work(concurrency=1)
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", "UnserializableResult")
