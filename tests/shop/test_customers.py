"""Methods of models as steps, the optional step, and the notifications with a pause between them."""

from __future__ import annotations

import itertools

import pytest

from testproject.shop.models import Customer, Notification, Service
from testproject.shop.samples import switch
from testproject.shop.workflows import (
    look_up_user,
    onboard_user,
    send_notifications,
    welcome_by_address,
    welcome_with_gift,
)

from .evidence import executions, recorded, work


@pytest.fixture
def customers(customer):
    others = [Customer.objects.create(name=name, device_token=f"phone-of-{name}") for name in ("grace", "edsger")]
    return [customer, *others]


def test_an_instance_method_is_executed_for_the_primary_key(customer, mailoutbox):
    run = onboard_user.start({"user_id": customer.pk})
    work(run)

    assert run.status == "succeeded"
    assert recorded(run) == {"Customer.send_welcome_email": "succeeded"}
    assert [mail.to for mail in mailoutbox] == [["ada@example.com"]]
    customer.refresh_from_db()
    assert customer.welcomed_at is not None


def test_a_missing_row_fails_the_step_and_a_retry_finds_the_row_that_is_there_by_then(mailoutbox):
    run = onboard_user.start({"user_id": 4711})
    work(run)

    assert run.status == "failed"
    assert run.error["step"] == "Customer.send_welcome_email"
    assert "DoesNotExist" in run.error["type"]

    Customer.objects.create(pk=4711, name="Late", email="late@example.com")
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert [mail.to for mail in mailoutbox] == [["late@example.com"]]


def test_the_result_of_one_method_is_used_by_the_next_under_custom_names(customer, mailoutbox):
    switch(Service.Name.MAIL, on=False)
    run = welcome_by_address.start({"email": "ada@example.com"})
    work(run)
    assert recorded(run) == {"find_customer": "succeeded", "send_email": "failed"}

    switch(Service.Name.MAIL, on=True)
    run.retry()
    work(run)

    assert run.output == {"sent_to": "ada@example.com"}
    assert recorded(run) == {"find_customer": "succeeded", "send_email": "succeeded"}
    assert len(mailoutbox) == 1


def test_a_manager_method_returns_the_instance(customer):
    run = look_up_user.start({"user_id": customer.pk})
    work(run)

    assert run.output == {"email": "ada@example.com"}
    assert recorded(run) == {"Customer.objects.get": "succeeded"}


@pytest.mark.parametrize("inline_wait", [0, 1])
def test_an_optional_step_that_failed_is_not_executed_again_after_the_sleep(
    customer, mug, mailoutbox, settings, inline_wait
):
    settings.DJANGO_STEPS = {"INLINE_WAIT": inline_wait}
    type(mug).objects.update(stock=0)
    run = welcome_with_gift.start({"user_id": customer.pk, "gift": "mug", "pause": "200ms"})
    work(run)

    assert run.status == "succeeded"
    assert run.output == {"gift": False}
    assert executions(run) == {"reserve_gift": 1, "Customer.send_welcome_email": 1}
    assert recorded(run)["reserve_gift"] == "failed"
    assert len(mailoutbox) == 1


def test_an_optional_step_that_succeeds_is_executed_once(customer, mug, mailoutbox, settings):
    settings.DJANGO_STEPS = {"INLINE_WAIT": 0}
    run = welcome_with_gift.start({"user_id": customer.pk, "gift": "mug", "pause": "200ms"})
    work(run)

    assert run.output == {"gift": True}
    mug.refresh_from_db()
    assert mug.stock == 9


def test_every_customer_is_notified_once_with_a_pause_between(api, customers):
    run = send_notifications.start({"user_ids": [customer.pk for customer in customers], "message": "New tea"})
    work(run)

    assert run.status == "succeeded"
    assert run.output == {"sent": 3}
    assert Notification.objects.count() == 3
    kinds = [(step.name, step.kind) for step in run.steps.all()]
    ada, grace, edsger = (f"notify_user_{customer.pk}" for customer in customers)
    assert kinds == [
        (ada, "step"),
        ("rate_limit_delay", "sleep"),
        (grace, "step"),
        ("rate_limit_delay#2", "sleep"),
        (edsger, "step"),
    ]
    sent = list(Notification.objects.order_by("pk").values_list("sent_at", flat=True))
    assert all((later - earlier).total_seconds() >= 0.1 for earlier, later in itertools.pairwise(sent))


def test_a_retry_skips_the_customers_who_were_notified_and_the_pauses(api, customers):
    path = f"/push/{customers[2].device_token}"
    api.fail(path, times=1, status=500)
    run = send_notifications.start({"user_ids": [customer.pk for customer in customers], "message": "New tea"})
    work(run)
    assert run.status == "failed"
    pauses = {step.name: (step.started_at, step.finished_at) for step in run.steps.filter(kind="sleep")}
    assert len(pauses) == 2

    run.retry()
    work(run)

    assert run.status == "succeeded"
    ada, grace, edsger = (f"notify_user_{customer.pk}" for customer in customers)
    assert executions(run) == {ada: 1, grace: 1, edsger: 2}
    assert {step.name: (step.started_at, step.finished_at) for step in run.steps.filter(kind="sleep")} == pauses
    assert [api.effects(f"/push/{customer.device_token}") for customer in customers] == [1, 1, 1]
