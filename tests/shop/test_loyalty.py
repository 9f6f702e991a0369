"""loyalty_account: one run after the other for a customer, and not a point is lost or counted twice on the way."""

from __future__ import annotations

import pytest

from django_steps.models import WorkflowRun
from testproject.shop import loyalty
from testproject.shop.models import Service
from testproject.shop.samples import switch

from .evidence import executions, work


@pytest.fixture(autouse=True)
def short_runs(monkeypatch) -> None:
    monkeypatch.setattr(loyalty, "EVENTS_OF_A_RUN", 4)


def runs() -> list[WorkflowRun]:
    return list(WorkflowRun.objects.filter(workflow="loyalty_account").order_by("pk"))


def test_first_order_opens_the_account_and_others_add_to_it(customer):
    first = loyalty.add_points(customer.pk, 30, "order-1")
    work()
    again = loyalty.add_points(customer.pk, 20, "order-2")
    work()
    assert (first.created, again.created, first.pk) == (True, False, again.pk)
    again.refresh_from_db()
    assert (again.status, again.details) == ("waiting", {"points": 50})


def test_an_order_that_is_told_twice_counts_once_also_after_another_run_has_taken_over(customer, mailoutbox):
    first = loyalty.add_points(customer.pk, 10, "order-0")
    for number in range(1, 6):
        loyalty.add_points(customer.pk, 10, f"order-{number}")
    work()
    for order in ["order-1", "order-5"]:  # which the first run has taken, and the second one
        loyalty.add_points(customer.pk, 10, order)
    work()
    old, new = runs()
    assert old.pk == first.pk and (old.status, old.key, new.key) == ("succeeded", None, loyalty.key_of(customer.pk))
    assert new.details == {"points": 60}
    assert old.steps.count() == 4


def test_points_of_a_hundred_orders_make_ten_vouchers(customer, mailoutbox):
    first = loyalty.add_points(customer.pk, 10, "order-0")
    for number in range(1, 100):
        loyalty.add_points(customer.pk, 10, f"order-{number}")
    loyalty.close(customer.pk)
    work()
    assert first.result(timeout=0) == 0
    assert len(runs()) == 26
    assert {run.status for run in runs()} == {"succeeded"}
    assert len(mailoutbox) == 10


def test_retry_goes_on_where_the_voucher_could_not_be_sent(customer, mailoutbox):
    switch(Service.Name.MAIL, on=False)
    run = loyalty.add_points(customer.pk, 90, "order-1")
    loyalty.add_points(customer.pk, 20, "order-2")
    work(run)
    assert (run.status, run.failed_step) == ("failed", "voucher_1")
    loyalty.add_points(customer.pk, 5, "order-3")  # while it is failed

    switch(Service.Name.MAIL, on=True)
    run.retry()
    work()
    run.refresh_from_db()
    assert run.details == {"points": 15}
    assert executions(run) == {"voucher_1": 2}
    assert len(mailoutbox) == 1
