"""Firing schedules as a worker does, without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from django_steps import workflow
from django_steps.definitions import scheduling
from django_steps.ledger import database
from django_steps.ledger import schedules as ledger
from django_steps.models import WorkflowSchedule


@pytest.fixture
def fire() -> Callable[[], int]:
    """Fire what is due; how many runs that has started."""

    def fire_all() -> int:
        return ledger.fire(connection, scheduling.targets()).runs

    return fire_all


@pytest.fixture
def tidy() -> Any:
    """A workflow without a schedule."""

    @workflow
    def tidy(input, step):
        step.define("tidy", lambda: None).run()

    return tidy


def now() -> int:
    return database.read_clock(connection)


def schedule(name: str) -> WorkflowSchedule:
    return WorkflowSchedule.objects.get(name=name)
