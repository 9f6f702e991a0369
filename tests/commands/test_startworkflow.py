"""`startworkflow`: what it starts, what it prints, how it waits."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections
from pydantic import BaseModel

from django_steps import workflow
from django_steps.models import WorkflowRun, diagnosis, results
from django_steps.worker import Worker
from tests.staging import eventually

pytestmark = pytest.mark.django_db


@dataclass
class Order:
    order_id: int
    email: str


class OrderModel(BaseModel):
    order_id: int


def test_it_starts_a_run_and_says_what_to_type_next(run_command):
    printed = run_command("startworkflow", "three_steps", '{"order_id": 7}').out

    run = WorkflowRun.objects.get()
    assert (run.workflow, run.input, run.status) == ("three_steps", {"order_id": 7}, "pending")
    assert f"Started three_steps: run {run.pk}" in printed
    assert f"showworkflows {run.pk}" in printed
    assert "No worker is running. Start one with:" in printed


def test_without_input_the_input_is_none(run_command):
    run_command("startworkflow", "three_steps")
    assert WorkflowRun.objects.get().input is None


def test_quietly_it_prints_the_id_alone(run_command):
    printed = run_command("startworkflow", "three_steps", "{}", "-v", "0").out
    assert printed == f"{WorkflowRun.objects.get().pk}\n"


def test_the_input_can_come_from_stdin(run_command, monkeypatch):
    monkeypatch.setattr("sys.stdin", StringIO('{"from": "stdin"}\n'))
    run_command("startworkflow", "three_steps", "-")
    assert WorkflowRun.objects.get().input == {"from": "stdin"}


def test_key_delay_queue_and_priority_are_the_runs(run_command):
    printed = run_command(
        "startworkflow", "three_steps", "{}", "--key", "k", "--delay", "10m", "--queue", "bulk", "--priority", "-7"
    ).out

    run = WorkflowRun.objects.get()
    assert (run.key, run.queue, run.priority, run.phase) == ("k", "bulk", -7, WorkflowRun.Phase.TIMED)
    assert "It is due at " in printed


def test_time_limits_are_the_runs(run_command):
    run_command("startworkflow", "three_steps", "{}", "--timeout", "2h", "--start-within", "10m")
    run = WorkflowRun.objects.get()
    assert (run.timeout, run.start_within) == (timedelta(hours=2), timedelta(minutes=10))
    shown = run_command("showworkflows", str(run.pk)).out
    assert "timeout" in shown and "2h" in shown and "10m, until" in shown
    (as_json,) = json.loads(run_command("showworkflows", "--json").out)
    assert (as_json["timeout"], as_json["start_within"]) == (7200.0, 600.0) and as_json["expires_at"]


def test_an_overdue_step_is_shown_with_its_stack(run_command, live_worker):
    run_command("startworkflow", "three_steps", "{}")
    said = {"token": 7, "step": "charge", "attempt": 1, "since_us": 1_767_225_600_000_000, "stack": "one\ntwo"}
    runs = WorkflowRun.objects.all()
    runs.update(status="running", phase=1, worker=live_worker(), claim_token=7, overdue_text=json.dumps(said))
    run = WorkflowRun.objects.get()
    shown = run_command("showworkflows", str(run.pk)).out
    assert "Step “charge” is overdue since" in shown and "\n  two\n" in shown
    as_json = json.loads(run_command("showworkflows", str(run.pk), "--json").out)
    assert as_json["overdue"]["step"] == "charge" and as_json["overdue"]["stack"] == "one\ntwo"


def test_a_used_key_starts_nothing_and_says_so(run_command):
    run_command("startworkflow", "three_steps", "{}", "--key", "k")
    printed = run_command("startworkflow", "three_steps", "{}", "--key", "k").out

    run = WorkflowRun.objects.get()
    assert f"The key 'k' was used before, by run {run.pk}, which is pending. Nothing was started." in printed


def test_the_input_of_a_dataclass_is_validated(run_command):
    @workflow
    def typed(input: Order, step): ...

    with pytest.raises(CommandError, match="order_id: expected int, got ") as caught:
        run_command("startworkflow", "typed", '{"order_id": "seven"}')
    assert "email: missing" in str(caught.value)
    assert not WorkflowRun.objects.exists()


def test_what_is_masked_is_not_in_the_error_of_an_input(run_command):
    @workflow(mask=("order_id",))
    def typed(input: Order, step): ...

    with pytest.raises(CommandError, match="order_id: expected int, got str"):
        run_command("startworkflow", "typed", '{"order_id": "top-secret", "email": "a@example.com"}')


def test_the_input_of_a_pydantic_model_is_validated(run_command):
    @workflow
    def typed(input: OrderModel, step): ...

    with pytest.raises(CommandError, match="order_id: Input should be a valid integer"):
        run_command("startworkflow", "typed", '{"order_id": "seven"}')
    assert not WorkflowRun.objects.exists()


@pytest.fixture
def working(transactional_db, shaky):
    """A worker in the background, until the end of the test."""
    worker = Worker(poll_interval=0.02)

    def work():
        worker.run()
        connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    worker.stop()
    thread.join(10)


def test_waiting_prints_the_result_as_json_without_what_is_masked(run_command, working, shaky):
    printed = run_command("startworkflow", "shaky", '{"fails": false}', "--wait")
    assert json.loads(printed.out) == {"token": "********", "sum": 3}
    assert "Started shaky: run " in printed.err


def test_waiting_for_a_run_that_fails_is_an_error_that_says_why(run_command, working, shaky):
    with pytest.raises(CommandError, match="failed in step 'second': ValueError: it fails"):
        run_command("startworkflow", "shaky", '{"fails": true}', "--wait")


def said_while_waiting(monkeypatch, *arguments: str) -> str:
    """What goes to stderr while a run is waited for. A worker is started when it was looked for twice in vain."""
    err, looks = StringIO(), []

    def look(*arguments):
        looks.append(diagnosis.why_unclaimed(*arguments))
        return looks[-1]

    def work():
        eventually(lambda: len(looks) == 2)
        Worker(until_idle=True, poll_interval=0.02).run()
        connections.close_all()

    monkeypatch.setattr(results, "LOOK_FOR_WORKERS", 0)
    monkeypatch.setattr(results, "why_unclaimed", look)
    thread = threading.Thread(target=work)
    thread.start()
    call_command("startworkflow", *arguments, "--wait", "--no-color", stdout=StringIO(), stderr=err, skip_checks=True)
    thread.join(10)
    return err.getvalue()


@pytest.mark.django_db(transaction=True)
def test_waiting_where_no_worker_is_running_says_so_even_quietly(monkeypatch):
    err = said_while_waiting(monkeypatch, "three_steps", "{}", "-v", "0")
    assert err.startswith("No worker is running. Start one with:   ")
    assert err.endswith(" runworkflows\n")
    assert len(err.splitlines()) == 1


@pytest.mark.django_db(transaction=True)
def test_waiting_says_only_once_that_no_worker_is_running(monkeypatch):
    err = said_while_waiting(monkeypatch, "three_steps", "{}")
    assert err.count("No worker is running.") == 1


def test_a_queue_that_no_worker_serves_is_told_at_the_start(run_command, live_worker):
    live_worker(queues=["default"])
    assert "No live worker" not in run_command("startworkflow", "three_steps", "{}").out
    printed = run_command("startworkflow", "three_steps", "{}", "--queue", "bulk").out
    assert (
        "No live worker serves the queue 'bulk'. Add this queue to one with --queue, or start one with:   " in printed
    )
    assert printed.endswith(" runworkflows --queue bulk\n")


def test_waiting_where_no_worker_can_see_the_run_is_refused(run_command):
    with pytest.raises(CommandError, match="workers see the run after the commit"):
        run_command("startworkflow", "three_steps", "{}", "--wait")
