"""Checkpoints: a step says how far it is, and its next attempt goes on from there, also in another process."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.db import connection

from django_steps import RetryAfter, RetryPolicy, StepInterrupted, StepsError, ValueTooLarge, current_step, workflow
from django_steps.engine.host import Limits
from django_steps.errors import UnserializableValue
from django_steps.ledger import claims, leases
from django_steps.ledger.claims import Claim
from django_steps.ledger.leases import Holding
from django_steps.models import WorkflowRun
from django_steps.testing import FakeStep, run_workflow
from django_steps.worker.group_commit import GroupCommit
from django_steps.worker.heartbeat import Heartbeat
from django_steps.worker.host import WorkerHost
from django_steps.worker.task import Task
from tests.app import effects
from tests.app.workflows import imports_pages
from tests.looking import error_of
from tests.staging import claim, eventually, make_terms, recover, status_of
from tests.wire import Wire, counted

AT_ONCE = RetryPolicy(max_attempts=3, initial_interval=0)
LATER = RetryPolicy(max_attempts=3, initial_interval="1h", jitter=False)


class Pages:
    """A step that goes through pages, and raises or does something else at one of them."""

    def __init__(self, *ends: Any) -> None:
        self.ends, self.seen = list(ends), []

    def read(self) -> int:
        last = current_step().last_checkpoint
        self.seen.append(last)
        page = last["page"] if last else 0
        end = self.ends.pop(0) if self.ends else None
        for _ in range(3):
            page += 1
            current_step().checkpoint({"page": page})
        if isinstance(end, BaseException):
            raise end
        return end() if end is not None else page


def importing(pages: Pages, **options: Any) -> Any:
    @workflow(name="importing")
    def body(step):
        return step.define("read", pages.read, **options).run()

    return body


def stored(run: WorkflowRun) -> Any:
    """What the row of the run holds."""
    run.refresh_from_db()
    return json.loads(run.checkpoint) if run.checkpoint else None


# -- The next attempt --------------------------------------------------------------------------------


def test_next_attempt_goes_on_from_the_last_checkpoint(work):
    pages = Pages(OSError("a"), OSError("b"))
    run = importing(pages, retry=AT_ONCE).start()
    work()
    assert run.result(timeout=0) == 9
    assert pages.seen == [None, {"page": 3}, {"page": 6}]


def test_it_is_kept_in_the_record_of_a_failed_attempt_while_the_run_is_suspended(work, pass_time):
    pages = Pages(OSError("a"))
    run = importing(pages, retry=LATER).start()
    work()
    assert (status_of(run), stored(run)) == ("sleeping", None)
    pass_time("61m")
    work()
    assert pages.seen == [None, {"page": 3}]


def test_attempt_that_makes_none_leaves_the_one_before(work, pass_time):
    seen = []

    def read() -> None:
        seen.append(current_step().last_checkpoint)
        if len(seen) == 1:
            current_step().checkpoint("first")
        if len(seen) < 3:
            raise OSError

    @workflow
    def body(step):
        step.define("read", read, retry=LATER).run()

    body.start()
    for _ in range(3):
        work()
        pass_time("2h")
        work()
    assert seen == [None, "first", "first"]


def test_it_is_decoded_as_a_result_is(work):
    seen = []
    value = {"page": (1, {2, 3}), 4: None}

    def read() -> None:
        if current_step().attempt == 1:
            current_step().checkpoint(value)
            value["later"] = True  # it is encoded already
            raise OSError
        seen.append(current_step().last_checkpoint)

    @workflow
    def body(step):
        step.define("read", read, retry=AT_ONCE).run()

    body.start()
    work()
    assert seen == [{"page": (1, {2, 3}), 4: None}]


def test_last_checkpoint_stays_the_same_during_an_attempt(work):
    seen = []

    def read() -> None:
        current_step().checkpoint(1)
        seen.append(current_step().last_checkpoint)

    @workflow
    def body(step):
        step.define("read", read).run()

    body.start()
    work()
    assert seen == [None]


def test_each_step_has_its_own(work):
    seen = []

    def read() -> None:
        seen.append((current_step().name, current_step().last_checkpoint))
        current_step().checkpoint(current_step().name)
        if current_step().attempt == 1:
            raise OSError

    @workflow
    def body(step):
        for name in ("a", "b"):
            step.define(name, read, retry=AT_ONCE).run()

    body.start()
    work()
    assert seen == [("a", None), ("a", "a"), ("b", None), ("b", "b")]


def test_it_outlasts_retry_after(work, pass_time):
    pages = Pages(RetryAfter("1h"), RetryAfter("1h"))
    run = importing(pages).start()
    work()
    for _ in range(2):
        pass_time("2h")
        work()
    assert run.result(timeout=0) == 9
    assert pages.seen == [None, {"page": 3}, {"page": 6}]


def test_it_goes_from_check_to_check_of_a_poll(work, pass_time):
    seen = []

    def look() -> bool:
        seen.append(current_step().last_checkpoint)
        current_step().checkpoint(len(seen))
        return len(seen) == 3

    @workflow
    def body(step):
        step.poll("look", look, every="1h").run()

    body.start()
    for _ in range(3):
        work()
        pass_time("2h")
    assert seen == [None, 1, 2]


def test_record_of_a_success_keeps_none(work):
    pages = Pages(OSError())
    run = importing(pages, retry=AT_ONCE).start()
    work()
    assert run.steps.get().context == {}


# -- Retries of the run ------------------------------------------------------------------------------


def test_retry_of_the_run_goes_on_from_it(work):
    pages = Pages(OSError("a"))
    run = importing(pages).start()
    work()
    assert error_of(run)["message"] == "a"
    run.retry()
    work()
    assert run.result(timeout=0) == 6
    assert pages.seen == [None, {"page": 3}]


def test_automatic_retry_of_the_run_goes_on_from_it(work):
    pages = Pages(OSError("a"))

    @workflow(retry=AT_ONCE)
    def body(step):
        return step.define("read", pages.read).run()

    run = body.start()
    work()
    assert run.result(timeout=0) == 6


def test_retry_from_the_step_begins_anew(work):
    pages = Pages(OSError("a"))
    run = importing(pages).start()
    work()
    run.retry(from_step="read")
    work()
    assert pages.seen == [None, None]


def test_restart_begins_anew(work):
    pages = Pages(OSError("a"))
    run = importing(pages).start()
    work()
    run.restart()
    work()
    assert pages.seen == [None, None]


def test_retry_of_a_canceled_run_goes_on_from_it(work, pass_time):
    pages = Pages(OSError("a"))
    run = importing(pages, retry=LATER).start()
    work()
    run.cancel()
    run.retry()
    pass_time("2h")
    work()
    assert pages.seen == [None, {"page": 3}]


# -- Renewals and crashes ----------------------------------------------------------------------------


class Died(BaseException):
    """The end of the process, as far as a pass can tell."""


def die_in_the_step(run: WorkflowRun, pages: Pages, renewals: int = 1, **options: Any) -> None:
    """A pass of a worker that dies within the step, after its lease was renewed so many times, and the recovery."""
    terms = make_terms(lease=1, **options)
    claimed = claim(run, terms)
    task = Task(claimed, None, WorkerHost(GroupCommit("default"), Limits.from_settings()))
    heartbeat = Heartbeat("default", terms.worker_id, 30, lambda: {run.pk: task})

    def renew_and_die() -> None:
        for _ in range(renewals):
            assert heartbeat._renew(connection)
        raise Died

    pages.ends.insert(0, renew_and_die)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django_steps.engine.drivers.execute.PASS_THROUGH", (Died,))
        patch.setattr(WorkerHost, "lets_through", (Died,))
        with pytest.raises(Died):
            task.run()
    recover(terms)  # which finds the renewed lease
    recover(terms)


def test_it_is_there_after_a_crash_if_the_lease_was_renewed(work):
    pages = Pages()
    run = importing(pages).start()
    die_in_the_step(run, pages)
    assert stored(run) == {"read": [3, '{"page":3}']}
    work()
    assert run.result(timeout=0) == 6
    assert pages.seen == [None, {"page": 3}]


def test_it_is_lost_by_a_crash_before_the_first_renewal(work):
    pages = Pages()
    run = importing(pages).start()
    die_in_the_step(run, pages, renewals=0)
    work()
    assert pages.seen == [None, None]


def test_newer_one_in_the_row_goes_before_the_one_in_the_record(work, pass_time):
    pages = Pages(OSError("a"))
    run = importing(pages, retry=LATER).start()
    work()
    pass_time("2h")
    die_in_the_step(run, pages)
    work()
    assert pages.seen == [None, {"page": 3}, {"page": 6}]


def test_newer_one_in_the_record_goes_before_the_one_in_the_row(work, pass_time):
    pages = Pages()
    run = importing(pages, retry=LATER).start()
    die_in_the_step(run, pages)
    pages.ends = [OSError("a")]
    work()
    stale = json.dumps({"read": [1, '{"page":1}']})
    WorkflowRun.objects.update(checkpoint=stale)
    pass_time("2h")
    work()
    assert pages.seen == [None, {"page": 3}, {"page": 6}]


def test_it_outlasts_several_crashes(work):
    pages = Pages()
    run = importing(pages).start()
    die_in_the_step(run, pages)
    die_in_the_step(run, pages, renewals=0)
    die_in_the_step(run, pages)
    work()
    assert pages.seen == [None, {"page": 3}, {"page": 3}, {"page": 6}]


def test_it_outlasts_the_failure_of_a_run_whose_workers_died(work):
    pages = Pages()
    run = importing(pages).start()
    die_in_the_step(run, pages, max_recoveries=0)
    assert error_of(run)["type"] == "django_steps.errors.WorkerDied"
    run.retry()
    work()
    assert pages.seen == [None, {"page": 3}]


@pytest.mark.counts_passes
def test_retry_from_a_step_forgets_what_the_row_holds(work):
    pages = Pages()

    @workflow
    def body(step):
        step.define("before", lambda: None).run()
        step.define("read", pages.read).run()

    run = body.start()
    die_in_the_step(run, pages, max_recoveries=0)
    run.retry(from_step="before")
    work()
    assert pages.seen == [None, None]


def test_it_is_asked_for_by_whoever_handles_what_may_have_happened(work):
    pages = Pages()
    run = importing(pages, at_most_once=True).start()
    die_in_the_step(run, pages)
    work()
    assert error_of(run)["type"] == f"django_steps.errors.{StepInterrupted.__name__}"
    run.retry()
    work()
    assert pages.seen == [None, {"page": 3}]


def test_row_is_empty_when_the_run_is_suspended_since_the_record_has_it(work):
    pages = Pages()
    run = importing(pages, retry=LATER).start()
    die_in_the_step(run, pages)
    pages.ends = [OSError("a")]
    work()
    assert (status_of(run), stored(run)) == ("sleeping", None)
    assert run.steps.get().context["checkpoint"] == [6, '{"page":6}']


def test_renewal_after_the_record_empties_the_row(transactional_db):
    found = []

    def count() -> None:
        current_step().checkpoint(1)
        assert heartbeat._renew(connection)
        found.append(stored(run))

    def look() -> None:
        assert heartbeat._renew(connection)
        found.append(stored(run))

    @workflow
    def body(step):
        step.define("count", count).run()
        step.define("look", look).run()

    run = body.start()
    terms = make_terms()
    task = Task(claim(run, terms), None, WorkerHost(GroupCommit("default"), Limits.from_settings()))
    heartbeat = Heartbeat("default", terms.worker_id, 30, lambda: {run.pk: task})
    task.run()
    assert found == [{"count": [1, "1"]}, None]


def test_renewal_while_the_next_attempt_has_made_none_leaves_it_to_the_record(transactional_db):
    found = []

    def count() -> None:
        if current_step().attempt == 1:
            current_step().checkpoint(1)
            assert heartbeat._renew(connection)
            raise OSError
        found.append((current_step().last_checkpoint, task.holding().checkpoint))

    @workflow
    def body(step):
        step.define("count", count, retry=AT_ONCE).run()

    run = body.start()
    terms = make_terms()
    task = Task(claim(run, terms), None, WorkerHost(GroupCommit("default"), Limits.from_settings()))
    heartbeat = Heartbeat("default", terms.worker_id, 30, lambda: {run.pk: task})
    task.run()
    assert found == [(1, "")]


def test_row_is_empty_when_the_run_has_ended(work):
    pages = Pages()
    run = importing(pages).start()
    die_in_the_step(run, pages)
    work()
    assert (status_of(run), stored(run)) == ("succeeded", None)


def test_killed_workers_step_goes_on_from_its_last_checkpoint(start_worker):
    run = imports_pages.start({"pages": 400})
    first = start_worker("--lease", "1", "--poll-interval", "0.1")
    eventually(lambda: stored(run))
    first.kill()
    (_, text) = stored(run)["import"]
    start_worker("--lease", "1", "--poll-interval", "0.1")
    eventually(lambda: len(effects.names(run)) == 2, timeout=20)
    assert effects.names(run) == ["from 0", f"from {text}"]
    assert int(text) > 0


def test_renewal_carries_it_without_a_statement_of_its_own(transactional_db):
    pages = Pages()
    run = importing(pages).start()
    wires = []

    def look() -> int:
        for _ in range(2):
            with counted(connection) as wire:
                leases.renew(connection, {run.pk: task.holding()}, 30_000_000)
            wires.append(wire)
        return 0

    pages.ends = [look]
    terms = make_terms()
    task = Task(claim(run, terms), None, WorkerHost(GroupCommit("default"), Limits.from_settings()))
    task.run()
    assert wires == [Wire(statements=2, transactions=1)] * 2


def test_one_that_has_not_changed_is_not_written_again(transactional_db):
    pages = Pages()
    run = importing(pages).start()
    found = []

    def look() -> int:
        for _ in range(3):
            found.append(task.holding().checkpoint)
            assert heartbeat._renew(connection)
            if len(found) == 2:
                current_step().checkpoint("last")
        return 0

    pages.ends = [look]
    terms = make_terms()
    task = Task(claim(run, terms), None, WorkerHost(GroupCommit("default"), Limits.from_settings()))
    heartbeat = Heartbeat("default", terms.worker_id, 30, lambda: {run.pk: task})
    task.run()
    assert found == ['{"read": [3, "{\\"page\\":3}"]}', None, '{"read": [4, "\\"last\\""]}']


class Held:
    """A run in the hands of a worker whose step always has another checkpoint."""

    def __init__(self, claimed: Claim, length: int) -> None:
        self.claim, self.length = claimed, length
        self.checkpoint_written_on = time.monotonic()
        self.written = 0

    def holding(self) -> Holding:
        return Holding(self.claim.token, checkpoint="x" * self.length)

    def checkpoint_written(self, text: str) -> None:
        self.checkpoint_written_on = time.monotonic()
        self.written += 1

    def silent_for(self) -> float:
        return 0.0


def test_many_large_ones_take_turns_in_the_renewals(transactional_db, monkeypatch):
    monkeypatch.setattr("django_steps.worker.heartbeat._MOST_CHECKPOINTS", 250)
    body = importing(Pages())
    runs = [body.start() for _ in range(4)]
    claimed = claims.claim(connection, make_terms(), 10).runs
    jobs = {item.run_id: Held(item, length) for item, length in zip(claimed, (100, 100, 100, 1000), strict=True)}
    heartbeat = Heartbeat("default", 1, 30, lambda: jobs)
    assert heartbeat._renew(connection)
    assert [job.written for job in jobs.values()] == [1, 1, 0, 0]
    for _ in range(11):
        assert heartbeat._renew(connection)
    assert all(job.written > 2 for job in jobs.values())
    assert {len(run.checkpoint) for run in WorkflowRun.objects.all()} == {100, 1000} and len(runs) == 4


def test_renewal_that_is_refused_is_repeated_without_them(transactional_db):
    pages = Pages()
    run = importing(pages).start()
    terms = make_terms()
    task = Task(claim(run, terms), None, WorkerHost(GroupCommit("default"), Limits.from_settings()))
    written = []

    def look() -> int:
        heartbeat.start()
        eventually(lambda: len(written) >= 3)
        heartbeat.stop()
        return 0

    def renew(connection: Any, holdings: Any, lease: int) -> Any:
        written.append(holdings[run.pk].checkpoint is not None)
        if written[-1]:
            raise ValueError("a packet that is too large")
        return real(connection, holdings, lease)

    pages.ends = [look]
    heartbeat = Heartbeat("default", terms.worker_id, 0.3, lambda: {run.pk: task})
    real = leases.renew
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "renew", renew)
        task.run()
    assert written[:3] == [True, False, True]
    assert status_of(run) == "succeeded"


# -- Mistakes ----------------------------------------------------------------------------------------


def raised_by(checkpoint: Any, work: Any, **options: Any) -> StepsError:
    caught = []

    def read() -> None:
        try:
            checkpoint(current_step())
        except StepsError as error:
            caught.append(error)

    @workflow
    def body(step):
        step.define("read", read, **options).run()

    body.start()
    work()
    (error,) = caught
    return error


def test_value_that_can_not_be_recorded_is_an_error_of_the_caller(work):
    assert isinstance(raised_by(lambda step: step.checkpoint([object()]), work), UnserializableValue)


def test_value_that_is_too_large_is_an_error_of_the_caller(work, settings):
    settings.DJANGO_STEPS = {**getattr(settings, "DJANGO_STEPS", {}), "MAX_VALUE_BYTES": 2000}
    assert isinstance(raised_by(lambda step: step.checkpoint("x" * 2000), work), ValueTooLarge)


def test_atomic_step_has_no_checkpoints_since_its_writes_are_rolled_back(work):
    error = raised_by(lambda step: step.checkpoint(1), work, atomic=True)
    assert "Step 'read' is atomic" in str(error)


def test_damaged_checkpoint_is_none(work):
    pages = Pages()
    body = importing(pages)
    for text in ("{", "[1]", '{"read": 1}', '{"read": ["a", 1]}'):
        run = body.start()
        WorkflowRun.objects.filter(pk=run.pk).update(checkpoint=text)
        work()
        assert status_of(run) == "succeeded"
    assert pages.seen == [None] * 4


# -- In tests ----------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("straight_through", [True, False])
def test_kit_keeps_them(straight_through):
    pages = Pages(OSError("a"), OSError("b"))
    run = run_workflow(importing(pages, retry=LATER), straight_through=straight_through)
    assert (run.output, pages.seen) == (9, [None, {"page": 3}, {"page": 6}])


def test_fake_step_takes_them():
    pages = Pages()
    assert importing(pages)(step=FakeStep()) == 3
    with pytest.raises(UnserializableValue):
        FakeStep().define("bad", lambda: current_step().checkpoint(object())).run()
