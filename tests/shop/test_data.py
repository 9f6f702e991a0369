"""process_data and sync_data against the partner's API, and the retry loop with a delay."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from testproject.shop.models import MonthlySpending, Purchase
from testproject.shop.workflows import process_data, retry_with_delay, sync_data

from .evidence import executions, recorded, work


def test_what_one_step_returns_goes_into_the_next(api, customer):
    run = process_data.start({"user_id": customer.pk})
    work(run)

    assert run.output == {"count": 2}
    spending = MonthlySpending.objects.order_by("month").values_list("customer", "month", "total")
    assert list(spending) == [
        (customer.pk, date(2026, 1, 1), Decimal("10.50")),
        (customer.pk, date(2026, 2, 1), Decimal("51.00")),
    ]
    assert api.calls(f"/purchases/{customer.pk}") == 1


def test_a_retry_saves_the_recorded_result_of_the_steps_before(api, customer):
    Customer = type(customer)
    pk = customer.pk
    customer.delete()
    run = process_data.start({"user_id": pk})
    work(run)
    assert run.status == "failed"
    assert run.error["step"] == "save"
    assert "IntegrityError" in run.error["type"]

    Customer.objects.create(pk=pk, name="Ada", email="ada@example.com")
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert api.calls(f"/purchases/{pk}") == 1
    assert sum(MonthlySpending.objects.values_list("total", flat=True)) == Decimal("61.50")


def test_the_api_is_called_again_until_it_answers(api, customer):
    api.fail(f"/purchases/{customer.pk}", times=2)
    run = sync_data.start({"user_id": customer.pk})
    work(run)

    assert run.status == "succeeded"
    assert run.output == {"count": 3}
    assert executions(run) == {"fetch_from_api": 3, "normalize_data": 1, "save_to_db": 1}
    assert api.calls(f"/purchases/{customer.pk}") == 3
    assert run.steps.get(name="fetch_from_api").attempts == 3
    assert Purchase.objects.get(reference=f"P-{customer.pk}-1").amount == Decimal("10.50")
    assert Purchase.objects.count() == 3


def test_when_the_api_is_down_for_longer_a_retry_goes_on_from_the_call(api, customer):
    api.fail(f"/purchases/{customer.pk}", times=4, status=500)
    run = sync_data.start({"user_id": customer.pk})
    work(run)

    assert run.status == "failed"
    assert run.error["type"] == "testproject.shop.api.ApiError"
    assert run.error["message"] == f"/purchases/{customer.pk} answered 500"
    assert api.calls(f"/purchases/{customer.pk}") == 3

    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert executions(run) == {"fetch_from_api": 5, "normalize_data": 1, "save_to_db": 1}


def test_when_saving_fails_the_api_is_not_called_again(api, customer):
    customer_pk = customer.pk
    customer.delete()
    run = sync_data.start({"user_id": customer_pk})
    work(run)
    assert run.status == "failed"
    assert run.error["step"] == "save_to_db"

    type(customer).objects.create(pk=customer_pk, name="Ada", email="ada@example.com")
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert api.calls(f"/purchases/{customer_pk}") == 1
    assert executions(run)["normalize_data"] == 1
    assert Purchase.objects.count() == 3


@pytest.mark.parametrize("inline_wait", [0, 1], ids=["put down at each sleep", "waiting in place"])
def test_the_attempts_of_a_retry_loop_are_each_executed_once(api, settings, inline_wait):
    settings.DJANGO_STEPS = {"INLINE_WAIT": inline_wait}
    api.fail("/jobs/stocktaking", times=2)
    run = retry_with_delay.start({"data": "stocktaking", "delay": "200ms"})
    work(run)

    assert run.status == "succeeded"
    assert api.calls("/jobs/stocktaking") == 3
    assert executions(run) == {"attempt_1": 1, "attempt_2": 1, "attempt_3": 1}
    assert recorded(run) == {
        "attempt_1": "failed",
        "retry_delay": "waiting",  # that it is over is not written
        "attempt_2": "failed",
        "retry_delay#2": "waiting",
        "attempt_3": "succeeded",
    }


def test_a_retry_loop_that_is_used_up_fails_and_a_retry_executes_only_the_last_attempt(api, settings):
    settings.DJANGO_STEPS = {"INLINE_WAIT": 0}
    api.fail("/jobs/stocktaking", times=3)
    run = retry_with_delay.start({"data": "stocktaking", "delay": "200ms"})
    work(run)

    assert run.status == "failed"
    assert run.error["step"] == "attempt_3"
    assert api.calls("/jobs/stocktaking") == 3

    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert executions(run) == {"attempt_1": 1, "attempt_2": 1, "attempt_3": 2}
    assert api.effects("/jobs/stocktaking") == 1


def test_a_loop_that_succeeds_at_once_neither_sleeps_nor_tries_again(api):
    run = retry_with_delay.start({"data": "stocktaking"})
    work(run)

    assert recorded(run) == {"attempt_1": "succeeded"}
    assert api.calls("/jobs/stocktaking") == 1


def test_a_delay_of_seconds_leaves_the_run_sleeping(api):
    api.fail("/jobs/stocktaking", times=1)
    run = retry_with_delay.start({"data": "stocktaking"})
    work()

    run.refresh_from_db()
    assert run.status == "sleeping"
    pause = run.steps.get(name="retry_delay")
    assert pause.wakes_at == run.wakes_at
    assert 4 < (pause.wakes_at - run.started_at).total_seconds() < 60
    assert executions(run) == {"attempt_1": 1}
