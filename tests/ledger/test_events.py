"""Sending, looking and taking, each against what others do at the same time, and with answers that get lost."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from django_steps import workflow
from django_steps.core import clock
from django_steps.ledger import database, dialect, events, taking
from django_steps.ledger.claims import Claim
from django_steps.ledger.events import To
from django_steps.ledger.records import Outcome
from django_steps.models import StepRecord, WorkflowEvent, WorkflowRun
from tests.app.workflows import sleeper
from tests.staging import (
    SECOND,
    Background,
    LostAnswers,
    at_once,
    claim,
    make_terms,
    second_connection,
    status_of,
    step_write,
)

pytestmark = pytest.mark.django_db(transaction=True)


def held(*names: str, key: str | None = None) -> tuple[WorkflowRun, Claim]:
    """A run that is claimed, and to which these events were sent."""
    run = sleeper.start({}, key=key)
    for name in names:
        run.send_event(name, name)
    return run, claim(run, make_terms())


def take(claimed: Claim, wait: str, event: str = "paid", **fields: Any) -> Outcome | None:
    """What a wait of a pass does: look, and take what is there."""
    found = taking.look(connection, claimed.run_id, [event])
    assert found is not None
    return taking.take(connection, step_write(claimed, wait, kind="event", output=found.payload, **fields), found)


def taken() -> list[tuple[str, str | None]]:
    """Which wait has which event."""
    return list(WorkflowEvent.objects.values_list("name", "consumed_by"))


# -- Taking ------------------------------------------------------------------------------------------


def test_event_is_taken_with_the_record():
    run, claimed = held("paid", "paid")
    assert take(claimed, "first") is Outcome.WRITTEN
    assert take(claimed, "second", position=1) is Outcome.WRITTEN
    assert taken() == [("paid", "first"), ("paid", "second")]
    assert taking.look(connection, run.pk, ["paid"]) is None
    assert dict(run.steps.values_list("name", "output_text")) == {"first": '"paid"', "second": '"paid"'}


@pytest.mark.parametrize("waits", [False, True], ids=["new", "waiting"])
def test_two_waits_never_take_one_event(waits):
    for number in range(10):
        run, claimed = held("paid")
        if waits:
            for position, wait in enumerate("ab"):
                write = step_write(claimed, wait, position, kind="event", status="waiting", output=None)
                StepRecord.objects.bulk_create([_row(write)])
        found = taking.look(connection, run.pk, ["paid"])
        assert found is not None

        def one(wait: str, found: Any = found, claimed: Claim = claimed) -> Any:
            write = step_write(claimed, wait, "ab".index(wait), kind="event", replaces=waits)
            return taking.take(connection, write, found)

        outcomes = at_once([lambda: one("a"), lambda: one("b")])
        assert sorted(map(str, outcomes)) == ["None", str(Outcome.WRITTEN)], (number, outcomes)
        winner = "ab"[outcomes.index(Outcome.WRITTEN)]
        assert WorkflowEvent.objects.get(run=run).consumed_by == winner
        assert list(run.steps.filter(status="succeeded").values_list("name", flat=True)) == [winner]


def _row(write: Any) -> StepRecord:
    return StepRecord(
        run_id=write.run_id,
        name=write.name,
        kind=write.kind,
        position=write.position,
        status=write.status,
        started_at=clock.to_datetime(write.started_at),
        claim_token=write.token,
        write_id=write.write_id,
    )


@pytest.mark.parametrize("happens", ["canceled", "lost", "taken name"])
def test_run_that_is_not_this_pass_s_any_more_takes_no_event(happens):
    run, claimed = held("paid")
    expected = {"canceled": Outcome.NOT_RUNNING, "lost": Outcome.LOST, "taken name": Outcome.TAKEN}[happens]
    if happens == "canceled":
        run.cancel()
    elif happens == "lost":
        WorkflowRun.objects.filter(pk=run.pk).update(claim_token=7)
    else:
        StepRecord.objects.bulk_create([_row(step_write(claimed, "first", kind="event"))])
    assert take(claimed, "first") is expected
    assert taken() == [("paid", None)]
    assert run.steps.count() == (happens == "taken name")


def test_event_that_is_being_told_can_be_taken_meanwhile():
    """The sender notes that the run was told, in a transaction that is open while the wait takes the event."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer")
    _, claimed = held("paid")
    number = WorkflowEvent.objects.get().pk
    with second_connection() as other:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("UPDATE django_steps_workflowevent SET told = TRUE WHERE id = %s", [number])
        taking = Background(lambda: take(claimed, "first"))
        taking.join(0.2)
        assert taking.is_alive()
        other.commit()
    assert taking.result() is Outcome.WRITTEN
    assert taken() == [("paid", "first")]


def test_answer_that_got_lost_is_found_by_asking_again():
    for replaces in (False, True):
        run, claimed = held("paid")
        write = step_write(claimed, "first", kind="event")
        if replaces:
            waiting = step_write(claimed, "first", kind="event", status="waiting", output=None)
            StepRecord.objects.bulk_create([_row(waiting)])
            write.replaces = True
        found = taking.look(connection, run.pk, ["paid"])
        assert found is not None
        assert [taking.take(connection, write, found) for _ in range(2)] == [Outcome.WRITTEN] * 2
        other = step_write(claimed, "second", 1, kind="event")
        assert taking.take(connection, other, found) is None
        assert list(run.steps.values_list("name", flat=True)) == ["first"]


def test_every_write_of_a_run_that_waits_may_lose_its_answer(work):
    """One write after the other, each in a run of its own; the outcome is that of an undisturbed run."""

    @workflow
    def waiting(step):
        first = step.wait_for_event("paid")
        late = step.wait_for_event("sent", timeout="10s", default="none")
        second = step.wait_for_event("paid")
        return [first, late, second]

    keys = itertools.count()

    def outcome(nth: int | None) -> tuple[Any, LostAnswers]:
        key = f"order-{next(keys)}"
        run = waiting.start(key=key)
        sent = [lambda: waiting.send_event("paid", 1, key=key, id="1"), lambda: run.send_event("paid", 2, id="2")]
        with LostAnswers(nth) as answers:
            while sent or not run.is_finished:
                if sent:
                    _again_if_lost(sent.pop(0))
                work(concurrency=1)
                clock.offset_us += 61 * SECOND
                run.refresh_from_db()
        events.tell_untold(connection)
        events_ = list(WorkflowEvent.objects.filter(key=key).values_list("name", "event_id", "consumed_by", "told"))
        return (run.status, run.output, list(run.steps.values_list("name", "status")), events_), answers

    work()  # the first worker writes the limits and schedules of all workflows that there are
    expected, undisturbed = outcome(None)
    assert expected[:2] == ("succeeded", [1, "none", 2])
    assert expected[3] == [("paid", "1", "paid", True), ("paid", "2", "paid#2", True)]
    lost = 0
    for nth in range(undisturbed.seen):
        found, answers = outcome(nth)
        assert found == expected, answers.what
        lost += bool(answers.what)
    assert lost > undisturbed.seen * 2 / 3


def _again_if_lost(send: Any) -> None:
    """A sender that hears of no answer sends again, with the same id."""
    try:
        send()
    except OperationalError:
        connection.close()
        send()
    finally:
        connection.close()  # the answer to the wake-up may be lost as well, and is not waited for


# -- Sending -----------------------------------------------------------------------------------------


def test_events_with_one_id_that_are_sent_at_once_are_one():
    for number in range(5):
        key = f"order-{number}"
        run = sleeper.start({}, key=key)

        def by_run(run: Any = run) -> Any:
            return run.send_event("paid", 1, id="evt_1")

        def by_key(key: str = key) -> Any:
            return sleeper.send_event("paid", 1, key=key, id="evt_1")

        sent = at_once([by_run, by_key] * 2)
        assert sorted(event.created for event in sent) == [False, False, False, True]
        assert WorkflowEvent.objects.filter(run=run).count() == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer")
@pytest.mark.parametrize("by", ["run", "key"])
def test_second_sender_in_a_transaction_that_has_a_snapshot_is_told_the_first_or_refused(by):
    """As documented: PostgreSQL refuses such a transaction; elsewhere the first event is returned."""
    run = sleeper.start({}, key="order-7")

    def send() -> Any:
        if by == "run":
            return run.send_event("paid", 1, id="evt_1")
        return sleeper.send_event("paid", 1, key="order-7", id="evt_1")

    def second() -> Any:
        level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        with connection.cursor() as cursor:
            if connection.vendor == "mysql":
                cursor.execute(level)
            with transaction.atomic():
                if connection.vendor == "postgresql":
                    cursor.execute(level)
                assert WorkflowEvent.objects.count() == 0
                Background(send).result()
                assert WorkflowEvent.objects.count() == 0  # it has a snapshot
                return send()

    if connection.vendor == "postgresql":
        with pytest.raises(OperationalError) as refused:
            second()
        assert database.is_transient(refused.value)
    else:
        assert not second().created
    assert WorkflowEvent.objects.count() == 1


def test_open_transaction_that_sends_keeps_nobody_from_the_run():
    """Its lease can be renewed, and it can record: no lock is held on its row."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite locks the whole file")
    for to in ("run", "key"):
        run, _ = held(key=f"order-{to}")
        with transaction.atomic():
            if to == "run":
                run.send_event("paid")
            else:
                sleeper.send_event("paid", key=run.key)
            with second_connection() as other, other.cursor() as cursor:
                cursor.execute(
                    f"SELECT id FROM django_steps_workflowrun WHERE id = %s{dialect.locking(other)}",
                    [dialect.key(other, run.pk)],
                )
                assert cursor.fetchone() is not None


def test_run_that_is_started_while_an_event_for_its_key_is_on_its_way_gets_it(work):
    """The sender has not seen the run, nor the run the event; whoever commits last sees the other."""

    @workflow
    def waiting(step):
        return step.wait_for_event("paid")

    for first in ("event", "run"):
        if connection.vendor == "sqlite":
            waiting.send_event("paid", 5, key=first)
            run = waiting.start(key=first)
        else:
            with second_connection() as other:
                other.set_autocommit(False)
                with other.cursor() as cursor:
                    cursor.execute(
                        f"INSERT INTO django_steps_workflowevent (workflow, {other.ops.quote_name('key')}, name, payload,"
                        " sent_at) VALUES ('waiting', %s, 'paid', '5', %s)",
                        [first, dialect.date_value(other, clock.host_time())],
                    )
                run = waiting.start(key=first)
                if first == "run":
                    work()
                    assert status_of(run) == "waiting"
                other.commit()
            event = WorkflowEvent.objects.get(key=first)
            events.tell(connection, event.pk, To(workflow="waiting", key=first), "paid")
        work()
        assert run.result(timeout=0) == 5
