"""take_order: its customer pays before, while or after it waits, the provider calls twice, and nothing is done twice."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request

import pytest

from testproject.shop import payments
from testproject.shop.models import Order, Product
from testproject.shop.samples import start_sale
from testproject.shop.workflows import take_order

from .evidence import executions, work

AFTER_THE_PAYMENT = {"mark_paid": 1, "update_inventory": 1, "send_email": 1}


@pytest.fixture
def sale(provider, customer, mug):
    return start_sale(customer, "mug")


def assert_sold_once(run) -> None:
    run.refresh_from_db()
    assert run.status == "succeeded", run.error
    assert run.output == {"ok": True}
    assert executions(run) == {"total": 1, "checkout": 1, **AFTER_THE_PAYMENT}
    order = Order.objects.get()
    assert (order.status, order.charge) == (Order.Status.CONFIRMED, "evt_1")
    assert Product.objects.get().stock == 8


def test_customer_pays_while_the_order_waits(sale, provider, mailoutbox):
    work()
    sale.refresh_from_db()
    assert (sale.status, sorted(sale.waiting_for)) == ("waiting", ["declined", "paid"])
    assert provider.pay(sale.key) == 200
    work(sale)
    assert_sold_once(sale)
    assert len(mailoutbox) == 1


def test_customer_pays_before_the_order_waits(sale, provider, api, mailoutbox):
    held, answers = api.hold(f"/checkouts/{sale.key}"), []

    def pay_while_the_checkout_is_opened() -> None:
        assert held.wait_for_call(timeout=10)
        answers.append(provider.pay(sale.key))
        held.release()

    customer = threading.Thread(target=pay_while_the_checkout_is_opened)
    customer.start()
    work(sale)
    customer.join()
    assert answers == [200]
    assert_sold_once(sale)


def test_customer_pays_before_the_run_exists(provider, customer, mug, shop, mailoutbox):
    order = Order.objects.create(customer=customer, total=mug.price)
    key = f"order-{order.pk}"
    provider.open_checkout(key, str(order.total), notify=f"{shop}/shop/payments/")
    assert provider.pay(key) == 200

    items = [{"sku": "mug", "quantity": 2}]
    run = take_order.start({"order_id": order.pk, "items": items, "email": customer.email}, key=key)
    work(run)
    assert_sold_once(run)


def test_provider_calls_twice_before_and_twice_after_the_end(sale, provider, mailoutbox):
    work()
    assert [provider.pay(sale.key), provider.call_again(sale.key)] == [200, 200]
    assert sale.events.count() == 1
    work(sale)
    assert [provider.call_again(sale.key), provider.pay(sale.key)] == [200, 200]
    work()
    assert_sold_once(sale)
    assert len(mailoutbox) == 1


def test_what_the_provider_says_twice_does_not_count_twice_if_the_run_is_retried(sale, provider, mailoutbox):
    Product.objects.update(stock=1)
    work()
    provider.pay(sale.key)
    work(sale)
    assert (sale.status, sale.failed_step) == ("failed", "update_inventory")
    assert provider.call_again(sale.key) == 200

    Product.objects.update(stock=10)
    sale.retry()
    work(sale)
    assert sale.output == {"ok": True}
    assert executions(sale)["mark_paid"] == 1
    assert Product.objects.get().stock == 8


def test_order_that_is_declined_is_canceled(sale, provider):
    work()
    assert provider.decline(sale.key) == 200
    work(sale)
    assert sale.output == {"ok": False, "why": "the payment was declined"}
    assert Order.objects.get().status == Order.Status.CANCELED


def test_order_that_nobody_pays_in_three_days_is_canceled(sale, provider, pass_time):
    work()
    pass_time("2d")
    work()
    sale.refresh_from_db()
    assert sale.status == "waiting"
    pass_time("2d")
    work(sale)
    assert sale.output == {"ok": False, "why": "not paid in time"}
    assert provider.pay(sale.key) == 200  # too late; the provider need not call again
    assert Order.objects.get().status == Order.Status.CANCELED


def test_notice_that_the_provider_has_not_signed_is_refused(sale, shop):
    body = b'{"id": "evt_1", "type": "payment.succeeded", "order": "%s", "amount": "15.00"}' % sale.key.encode()
    now = int(time.time())
    for signature in ["", "1:abc", payments.sign(body + b" ", now), payments.sign(body, now - 3600)]:
        request = urllib.request.Request(f"{shop}/shop/payments/", body, {"Payment-Signature": signature})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 403
        refused.value.close()
    assert not sale.events.exists()


def test_notice_that_the_shop_has_no_use_for_is_answered_and_forgotten(sale, provider):
    work()
    assert provider._say(sale.key, "payment.refunded") == 200
    assert not sale.events.exists()
