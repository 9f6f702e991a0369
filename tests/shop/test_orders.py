"""process_order with and without steps, and send_email."""

from __future__ import annotations

import pytest

from testproject.shop.models import Order, Product, Service
from testproject.shop.samples import switch
from testproject.shop.workflows import process_order, process_order_without_steps, send_email

from .evidence import executions, recorded, work


@pytest.fixture
def order_input(order, mug):
    return {"order_id": order.pk, "items": [{"sku": "mug", "quantity": 2}], "email": "ada@example.com"}


def stock() -> int:
    return Product.objects.get(sku="mug").stock


def test_an_order_is_charged_reserved_and_confirmed_once(api, order, order_input, mailoutbox):
    run = process_order.start(order_input)
    work(run)

    assert run.status == "succeeded"
    assert run.output == {"ok": True}
    assert executions(run) == {"validate_payment": 1, "update_inventory": 1, "send_email": 1}
    assert list(recorded(run)) == ["validate_payment", "update_inventory", "send_email"]
    assert api.effects(f"/charges/{order.pk}") == 1
    assert stock() == 8
    assert [mail.to for mail in mailoutbox] == [["ada@example.com"]]
    assert Order.objects.get().status == Order.Status.CONFIRMED


def test_when_the_third_step_fails_a_retry_executes_only_the_third(api, order, order_input, mailoutbox):
    switch(Service.Name.MAIL, on=False)
    run = process_order.start(order_input)
    work(run)

    assert run.status == "failed"
    assert run.error["type"] == "testproject.shop.models.ServiceDown"
    assert run.error["step"] == "send_email"
    assert "switched off" in run.error["message"]
    assert stock() == 8
    assert mailoutbox == []

    switch(Service.Name.MAIL, on=True)
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert executions(run) == {"validate_payment": 1, "update_inventory": 1, "send_email": 2}
    assert api.calls(f"/charges/{order.pk}") == 1
    assert stock() == 8
    assert len(mailoutbox) == 1


def test_an_order_goes_on_once_the_product_is_restocked(api, order, order_input, mailoutbox):
    Product.objects.update(stock=1)
    run = process_order.start(order_input)
    work(run)

    assert run.status == "failed"
    assert run.error["step"] == "update_inventory"
    assert "Restock it" in run.error["message"]
    assert stock() == 1
    assert Order.objects.get().status == Order.Status.PAID

    Product.objects.update(stock=5)
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert stock() == 3
    assert api.calls(f"/charges/{order.pk}") == 1
    assert len(mailoutbox) == 1


def test_a_step_that_takes_several_items_takes_all_or_none(api, order, order_input, mailoutbox):
    order_input["items"].append({"sku": "teapot", "quantity": 1})
    run = process_order.start(order_input)
    work(run)

    assert run.status == "failed"
    assert run.error["type"] == "testproject.shop.services.OutOfStock"
    assert stock() == 10


def test_without_steps_a_retry_starts_from_the_beginning(api, order, order_input, mailoutbox):
    switch(Service.Name.MAIL, on=False)
    run = process_order_without_steps.start(order_input)
    work(run)
    assert run.status == "failed"

    switch(Service.Name.MAIL, on=True)
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert recorded(run) == {}
    assert api.calls(f"/charges/{order.pk}") == 2
    assert stock() == 6, "the items were taken twice"


def test_send_email_sends_one_email(mailoutbox):
    run = send_email.start({"email": "grace@example.com"})
    work(run)

    assert run.status == "succeeded"
    assert run.output is None
    assert recorded(run) == {"send": "succeeded"}
    assert [mail.to for mail in mailoutbox] == [["grace@example.com"]]
