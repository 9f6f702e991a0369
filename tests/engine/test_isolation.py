"""What a run sets in its thread reaches no other run, and no later step: a replay would not set it either."""

from __future__ import annotations

import decimal
from contextvars import ContextVar
from decimal import Decimal
from typing import Any

import pytest
from django.urls import clear_script_prefix, get_script_prefix
from django.utils import timezone, translation

from django_steps import workflow
from django_steps.core.context import active_step
from tests.app.workflows import tiny

pytestmark = pytest.mark.django_db(transaction=True)

tenant: ContextVar[str] = ContextVar("tenant", default="none")


def disturb() -> None:
    tenant.set("acme")
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    decimal.getcontext().prec = 3


def seen() -> list[Any]:
    return [
        tenant.get(),
        translation.get_language(),
        timezone.get_current_timezone_name(),
        str(Decimal(1) / Decimal(7)),
        get_script_prefix(),
    ]


CLEAN = ["none", "en-us", "UTC", "0.1428571428571428571428571429", "/"]


def test_pass_sees_nothing_that_another_run_has_set_in_its_thread(work):
    @workflow
    def disturbs(step):
        disturb()
        step.define("disturb", disturb).run()

    @workflow
    def looks(step):
        return [seen(), step.define("look", seen).run()]

    for _ in range(2):
        disturbs.start()
    run = looks.start()
    work(concurrency=1)
    assert run.result(timeout=0) == [CLEAN, CLEAN]


@pytest.mark.parametrize("atomic", [False, True])
def test_what_a_step_sets_is_gone_for_the_body_and_later_steps(work, atomic):
    @workflow
    def disturbs(step):
        step.define("disturb", disturb, atomic=atomic).run()
        return [seen(), step.define("look", seen).run()]

    run = disturbs.start()
    work()
    assert run.result(timeout=0) == [CLEAN, CLEAN]


def test_what_the_body_sets_holds_in_its_steps(work):
    @workflow
    def translates(step):
        with translation.override("de"):
            return step.define("look", translation.get_language).run()

    run = translates.start()
    work()
    assert run.result(timeout=0) == "de"


def test_caller_of_a_pass_keeps_what_it_has_set(work):
    tenant.set("mine")
    tiny.start()
    work()
    assert tenant.get() == "mine"


@pytest.mark.parametrize("forced", [None, "/shop/"])
def test_urls_are_those_of_a_command(work, settings, forced):
    settings.FORCE_SCRIPT_NAME = forced
    clear_script_prefix()

    @workflow
    def reverses(step):
        return [get_script_prefix(), step.define("look", get_script_prefix).run()]

    run = reverses.start()
    work()
    assert run.result(timeout=0) == [forced or "/"] * 2


def test_step_is_not_active_after_it(work):
    @workflow
    def looks(step):
        step.define("one", lambda: None).run()
        return active_step.get()

    run = looks.start()
    work()
    assert run.result(timeout=0) is None
