"""Tracing costs no statement and no commit: what a run carries is written with what is written anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from django_steps import RetryPolicy, workflow
from django_steps.core import traces
from django_steps.engine.ending import Ended
from django_steps.engine.interceptors import everywhere
from django_steps.models import WorkflowRun
from tests.ledger.test_budget import start_and_execute
from tests.wire import Wire, counted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def every_notification(monkeypatch):
    monkeypatch.setattr("django_steps.ledger.notify.INTERVAL", 0)


def traced_and_not(tracer: Any, cost: Callable[[], Wire]) -> tuple[Wire, Wire]:
    """What something costs in a span, and while nothing is traced, once what is done once on a connection is done."""
    with tracer.start_as_current_span("traced"):
        traced = _least(cost)
    everywhere.clear()
    traces.carry_by(None)
    return traced, _least(cost)


def _least(cost: Callable[[], Wire]) -> Wire:
    """What it costs: a run that has waited for long on a busy machine is looked at once more."""
    return min((cost() for _ in range(8)), key=lambda wire: (wire.statements, wire.transactions))


def test_start_costs_no_statement_more(tracer):
    @workflow
    def costs(input):
        return input

    def cost() -> Wire:
        with counted(connection) as wire:
            run = costs.start(1)
        assert (run.trace is None) == (not everywhere)
        assert WorkflowRun.objects.get(pk=run.pk).trace == run.trace
        return wire

    traced, untraced = traced_and_not(tracer, cost)
    assert traced == untraced


def sleeping(step):
    step.sleep("pause", "1h")


def failing(step):
    step.define("flaky", lambda: 1 / 0, retry=RetryPolicy(initial_interval="1h")).run()


@pytest.mark.parametrize(
    "body, retry", [(sleeping, None), (failing, None), (lambda step: 1 / 0, RetryPolicy(initial_interval="1h"))]
)
def test_suspension_costs_no_statement_more(tracer, body, retry):
    suspended = workflow(name="suspended", retry=retry)(body)

    def cost() -> Wire:
        WorkflowRun.objects.all().delete()
        ending, wire = start_and_execute(suspended)
        assert ending.how is Ended.SUSPENDED
        assert ('"last"' in (WorkflowRun.objects.get().trace or "")) == bool(everywhere)
        return wire

    traced, untraced = traced_and_not(tracer, cost)
    assert traced == untraced
