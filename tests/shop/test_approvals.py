"""take_order above the limit: it asks first, by a link in an e-mail, and goes on as it was answered, once."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from decimal import Decimal
from typing import Any

import pytest
from django.urls import reverse

from testproject.shop.models import Order, Product
from testproject.shop.samples import start_sale

from .evidence import executions, recorded, work


@pytest.fixture
def samovar() -> Product:
    return Product.objects.create(sku="samovar", name="Samovar", price=Decimal("620.00"), stock=1)


@pytest.fixture
def sale(provider, customer, samovar):
    run = start_sale(customer, "samovar", quantity=1)
    work()
    run.refresh_from_db()
    return run


def link_in(mail: Any) -> str:
    return re.search(r"https?://\S+", mail.body)[0]


def answer(url: str, body: dict[str, Any] | None = None) -> int:
    """The status of what the shop answers, to a POST if there is a body."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_large_order_waits_for_an_approval_before_anything_else(sale, api, mailoutbox):
    assert (sale.status, sale.waiting_for) == ("waiting", ["approval"])
    assert list(recorded(sale)) == ["total", "ask", "approval"]
    assert [mail.to for mail in mailoutbox] == [["manager@example.com"]]
    assert sale.details == {"stage": "is looked at by us"}


def test_opening_the_link_changes_nothing_and_its_button_approves(sale, provider, mailoutbox):
    link = link_in(mailoutbox[0])
    assert [answer(link), answer(link)] == [200, 200]
    assert not sale.events.exists()

    assert answer(link, {"ok": True, "note": "good customer"}) == 202
    work()
    sale.refresh_from_db()
    assert sorted(sale.waiting_for) == ["declined", "paid"]
    assert provider.pay(sale.key) == 200
    work(sale)
    assert sale.output == {"ok": True}
    assert Product.objects.get().stock == 0


def test_the_first_answer_counts_and_the_link_is_over_with_the_run(sale, mailoutbox):
    link = link_in(mailoutbox[0])
    assert answer(link, {"ok": False, "note": "too expensive"}) == 202
    assert answer(link, {"ok": True}) == 200
    work(sale)
    assert sale.output == {"ok": False, "why": "not approved: too expensive"}
    assert Order.objects.get().status == Order.Status.CANCELED
    assert executions(sale)["refuse"] == 1
    assert answer(link, {"ok": True}) in (200, 410)
    assert sale.events.count() == 1


def test_somebody_answers_in_the_admin_instead_of_by_the_link(admin_client, sale, mailoutbox):
    form = reverse("admin:django_steps_workflowrun_send_event", args=[sale.pk])
    done = admin_client.post(f"{form}?name=approval", {"ok": "false", "note": "not this month"})
    assert done.status_code == 302
    work(sale)
    assert sale.output == {"ok": False, "why": "not approved: not this month"}
    assert sale.events.get().by == "admin"
    assert answer(link_in(mailoutbox[0]), {"ok": True}) == 410
    assert sale.events.count() == 1


def test_answer_that_says_neither_yes_nor_no_is_refused_and_the_next_one_counts(sale, mailoutbox):
    link = link_in(mailoutbox[0])
    assert answer(link, {"ok": "perhaps"}) == 400
    assert answer(link, {"note": "?"}) == 400
    assert not sale.events.exists()
    assert answer(link, {"ok": True}) == 202


def test_large_order_that_nobody_looks_at_in_a_week_is_canceled(sale, pass_time):
    pass_time("8d")
    work(sale)
    assert sale.output == {"ok": False, "why": "not approved: nobody has answered"}
    assert sale.steps.get(name="approval").timed_out


def test_small_order_asks_nobody(provider, customer, samovar, mailoutbox):
    samovar.price = Decimal("500.00")
    samovar.save()
    run = start_sale(customer, "samovar", quantity=1)
    work()
    assert list(recorded(run)) == ["total", "checkout", "payment"]
    assert mailoutbox == []


def test_customer_sees_where_the_order_is(sale, provider, shop, mailoutbox):
    def status() -> dict[str, Any]:
        with urllib.request.urlopen(f"{shop}/shop/orders/{sale.input['order_id']}/", timeout=10) as response:
            return json.load(response)

    assert status() == {"has_ended": False, "stage": "is looked at by us"}
    answer(link_in(mailoutbox[0]), {"ok": True})
    work()
    assert status()["stage"] == "waits for your payment"
    provider.pay(sale.key)
    work(sale)
    assert status() == {"has_ended": True, "stage": "is packed"}
