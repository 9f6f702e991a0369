"""Runs in every state without a worker, and somebody to look at them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from django_steps import Workflow, failures, values
from django_steps.core import clock
from django_steps.core.ids import random_token
from django_steps.definitions import registry
from django_steps.ledger.moves import listed
from django_steps.ledger.order import Level, context_of
from django_steps.models import StepRecord, WorkflowEvent, WorkflowRun

START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:django_steps_workflowrun_{name}", args=args)


def error_of(error: BaseException, *steps: str) -> str:
    """A failure as the engine records it."""
    try:
        raise error
    except type(error) as raised:
        return failures.with_steps(failures.record(raised), list(steps))


def make_run(
    status: str = "succeeded", *, workflow: str = "three_steps", input: Any = None, **columns: Any
) -> WorkflowRun:
    """A run in this state, as if a worker had brought it there."""
    is_finished = status in WorkflowRun.FINISHED
    phase = WorkflowRun.Phase.ENDED if is_finished else WorkflowRun.Phase.READY
    if status == "paused":
        phase = WorkflowRun.Phase.PARKED
        columns = {"paused_at": START, **columns}
    if status in ("running", "sleeping", "waiting", "canceling"):
        phase = WorkflowRun.Phase.TIMED
    defaults: dict[str, Any] = {
        "status": status,
        "phase": phase,
        "input_text": values.encode(input),
        "created_at": START,
        "started_at": None if status == "pending" else START + timedelta(seconds=1),
        "finished_at": START + timedelta(minutes=1) if is_finished else None,
        "has_history": True,
    }
    return WorkflowRun.objects.create(workflow=workflow, **{**defaults, **columns})


def add_step(
    run: WorkflowRun, name: str, status: str = "succeeded", *, result: Any = None, **columns: Any
) -> StepRecord:
    """One more recorded step. `inside`: the branches that it is in, each with its group; `group`: its own."""
    position = columns.pop("position", run.steps.count())
    inside, group = columns.pop("inside", ()), columns.pop("group", "")
    levels = [Level(branch, of, -1) for branch, of in inside]
    columns = {"context_text": context_of(levels, group), "branch": levels[-1].branch if levels else "", **columns}
    started = START + timedelta(seconds=position)
    if columns.get("kind") == "sleep" and status != "canceled":
        columns = {"status": "waiting", "finished_at": None, **columns}
    defaults: dict[str, Any] = {
        "kind": "step",
        "position": position,
        "after": position - 1,
        "status": status,
        "output_text": values.encode(result) if status == "succeeded" else None,
        "started_at": started,
        "finished_at": started + timedelta(milliseconds=300),
        "claim_token": 1,
        "write_id": random_token(),
    }
    return StepRecord.objects.create(run=run, name=name, **{**defaults, **columns})


def add_poll(
    run: WorkflowRun, name: str, *, checks: int, value: Any, status: str = "waiting", **columns: Any
) -> StepRecord:
    """A poll after so many checks, the last of which has returned `value`; the next one is due after an hour."""
    defaults: dict[str, Any] = {
        "kind": "poll",
        "attempts": checks,
        "output_text": values.encode(value),
        "context_text": json.dumps({"checks": checks}),
    }
    if status == "waiting":
        due = clock.to_microseconds(START + timedelta(hours=1))
        defaults |= {"finished_at": None, "wakes_at_us": due}
    return add_step(run, name, status, **{**defaults, **columns})


NEVER = 253402214400000000  # when a run that waits without an end is due


def waiting_run(*events: str, until: timedelta | None = None, **columns: Any) -> WorkflowRun:
    """A run that waits for these events, for children (`"#receipt"`), or both; `until` is counted from `START`."""
    due = None if until is None else clock.to_microseconds(START + until)
    defaults = {"waits_for": listed(events or ["#page"]), "waits_until_us": due, "available_at_us": due or NEVER}
    return make_run("waiting", **{**defaults, **columns})


def add_wait(run: WorkflowRun, name: str, status: str = "waiting", **columns: Any) -> StepRecord:
    """A wait for an event. `events`: their names, if not that of the record; `until`: counted from `START`."""
    events, until = columns.pop("events", [name]), columns.pop("until", None)
    due = None if until is None else clock.to_microseconds(START + until)
    said = {"events": events, "deadline_us": due, **columns.pop("context", {})}
    columns = {"context_text": json.dumps(said), "wakes_at_us": due, **columns}
    if status == "waiting":
        columns = {"finished_at": None, **columns}
    return add_step(run, name, status, kind="event", **columns)


def add_event(run: WorkflowRun | None, name: str, payload: Any = None, **columns: Any) -> WorkflowEvent:
    """An event that was sent to a run."""
    defaults = {
        "event_id": None,
        "payload_text": values.encode(payload),
        "sent_at": START + timedelta(seconds=30),
        "told": True,
    }
    return WorkflowEvent.objects.create(run=run, name=name, **{**defaults, **columns})


def make_child(parent: WorkflowRun, status: str = "succeeded", step: str = "receipt", **columns: Any) -> WorkflowRun:
    """A child that a step of this run has invoked. `item`: which item of a map it is; None: it was replaced."""
    is_open = status not in WorkflowRun.FINISHED
    defaults = {
        "workflow": "make_receipt",
        "parent": parent,
        "parent_step": step,
        "parent_item": columns.pop("item", ""),
        "open_parent_id": parent.pk if is_open else None,
        "depth": parent.depth + 1,
    }
    return make_run(status, **{**defaults, **columns})


def failed_run(step: str = "charge", error: BaseException | None = None, **columns: Any) -> WorkflowRun:
    """A run of two steps, the second of which failed it."""
    text = error_of(error or ValueError("card declined"), step)
    run = make_run("failed", error_text=text, **columns)
    add_step(run, "reserve", result={"seats": 2})
    add_step(run, step, "failed", error_text=text)
    return run


def handled_run() -> WorkflowRun:
    """Charge, ship fails, refund, raise: a failure that the body had handled."""
    text = error_of(RuntimeError("carrier down"), "ship")
    run = make_run("failed", error_text=text)
    add_step(run, "charge")
    add_step(run, "ship", "failed", error_text=text)
    add_step(run, "refund")
    return run


def attempt_log(*errors: BaseException) -> str:
    """Failed attempts, a second each."""
    begun = int(START.timestamp() * 1_000_000)
    return json.dumps(
        [
            {
                "attempt": number,
                "started_at": begun + number * 2_000_000,
                "finished_at": begun + number * 2_000_000 + 1_000_000,
                "error": failures.record(error),
            }
            for number, error in enumerate(errors, 1)
        ]
    )


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """A client logged in as staff with these permissions: `staff("view", "retry")`."""

    def login(*verbs: str) -> Client:
        user = User.objects.create_user(f"staff-{'-'.join(verbs)}", password="x", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=[f"{verb}_workflowrun" for verb in verbs]))
        client = Client()
        client.force_login(user)
        return client

    return login


@pytest.fixture
def root(db: None) -> Client:
    """A client logged in as somebody who may do everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Register a workflow for this test only: `define(function, mask=("token",))`."""
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    return lambda function, **options: registry.register(Workflow(function, **options))


def run_of_orders(status: str = "failed", orders: int = 17, **columns: Any) -> WorkflowRun:
    """A run with a step, a map over orders (two of which failed, and three of which are unfinished), and a branch."""
    error = error_of(ValueError("card declined"), "order#3/charge")
    run = make_run(status, error_text=error if status == "failed" else None, **columns)
    add_step(run, "fetch", result={"orders": orders})
    for number in range(orders):
        path = f"order#{number}"
        inside = [(path, "order")]
        has_failed, is_unfinished = number in (3, 8), number in (5, 6, 7)
        add_step(run, f"{path}/reserve", inside=inside)
        if is_unfinished:
            continue
        failed = {"error_text": error} if has_failed else {}
        add_step(run, f"{path}/charge", "failed" if has_failed else "succeeded", inside=inside, **failed)
        if not has_failed:
            add_step(run, f"{path}/ship", inside=inside, result={"parcel": number})
        add_step(run, path, "failed" if has_failed else "succeeded", kind="branch", group="order", **failed)
    return run
