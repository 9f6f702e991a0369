"""restock: it asks around at once, keeps to its plan B on every pass, and one worker has many of it under way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest
from django.core.management import call_command

from django_steps.testing import AsyncFakeStep, run_workflow
from testproject.shop import async_api
from testproject.shop.api import ApiError
from testproject.shop.flaky_api import Hold
from testproject.shop.models import Product, Supplier
from testproject.shop.samples import start_restocking
from testproject.shop.workflows import restock

from .evidence import executions, recorded, work


def cheapest_first() -> list[int]:
    """The suppliers, by the prices of the flaky API."""
    return sorted(Supplier.objects.values_list("pk", flat=True), key=lambda pk: (pk % 3, pk))


@contextmanager
def released_when_all_have_come(held: list[Hold]) -> Iterator[list[bool]]:
    """Answers the held calls once there are all of them, while the caller works. What it gives says whether they came."""
    have_come: list[bool] = []

    def wait() -> None:
        deadline = time.monotonic() + 20
        have_come.append(all(hold.wait_for_call(deadline - time.monotonic()) for hold in held))
        for hold in held:
            hold.release()

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        yield have_come
    finally:
        waiting.join()


def test_it_asks_all_at_once_and_orders_where_it_is_cheapest(api, suppliers, mug):
    held = [api.hold("/demand/mug"), *(api.hold(f"/offers/{supplier}/mug") for supplier in cheapest_first())]
    [run] = start_restocking("mug", delivery="100ms")
    with released_when_all_have_come(held) as have_come:
        work(run)

    assert have_come == [True]
    assert run.status == "succeeded", run.error
    assert run.output == {"order": "purchase-orders-mug-1", "supplier": cheapest_first()[0], "stock": 30}
    assert set(executions(run).values()) == {1}


def test_a_supplier_that_fails_once_is_asked_again_and_one_that_is_down_is_left_out(api, suppliers, mug):
    first, second, _ = cheapest_first()
    api.fail(f"/offers/{first}/mug", times=3)
    api.fail(f"/offers/{second}/mug", times=1)
    [run] = start_restocking("mug", delivery="100ms")
    work(run)

    assert run.status == "succeeded", run.error
    assert run.output["supplier"] == second
    assert recorded(run)[f"offer#{first}"] == "failed"
    assert [api.calls(f"/offers/{pk}/mug") for pk in (first, second)] == [3, 2]


@pytest.mark.parametrize("inline_wait", [0, 5], ids=["in three passes", "in one pass"])
def test_without_an_answer_in_time_it_orders_at_the_list_price_on_every_pass(
    api, settings, suppliers, mug, inline_wait
):
    settings.DJANGO_STEPS = {"INLINE_WAIT": inline_wait}
    hold = api.hold("/demand/mug")
    [run] = start_restocking("mug", patience=0.3, delivery="100ms")
    try:
        work(run)
    finally:
        hold.release()

    assert run.status == "succeeded", run.error
    assert run.output == {"order": "purchase-orders-mug-1", "supplier": None, "stock": 30}
    assert recorded(run)["demand"] == "canceled"
    assert set(executions(run).values()) == {1}
    assert api.calls("/demand/mug") == 1
    assert api.effects("/purchase-orders/mug") == 1


def test_a_retry_orders_nothing_again(api, suppliers, mug):
    Product.objects.update(sku="other")
    [run] = start_restocking("mug", delivery="100ms")
    work(run)
    assert run.failed_step == "take_into_stock"

    Product.objects.update(sku="mug")
    run.retry()
    work(run)
    assert run.output["stock"] == 30
    assert (api.calls("/purchase-orders/mug"), api.calls("/demand/mug")) == (1, 1)


def test_in_the_kit_it_is_suspended_after_every_step(api, suppliers, mug):
    run = run_workflow(restock, {"sku": "mug", "delivery": "3d"})
    assert run.result()["stock"] == 30
    assert set(executions(run).values()) == {1}


def test_the_body_alone_decides_by_what_it_is_told():
    offer = {"supplier": 2, "price": Decimal(3)}
    step = AsyncFakeStep(
        stubs={
            "list_suppliers": [1, 2],
            "demand": 7,
            "offer#1": {"supplier": 1, "price": Decimal(4)},
            "offer#2": offer,
            "order": "o-1",
            "take_into_stock": 17,
        }
    )
    output = asyncio.run(restock(input={"sku": "mug"}, step=step, logger=None))
    assert output == {"order": "o-1", "supplier": 2, "stock": 17}
    assert step.calls[-2].args == ("mug", 7, offer)


def test_many_runs_wait_at_once_in_one_worker(api, suppliers, stickers):
    skus = stickers[:50]
    held = [api.hold(f"/demand/{sku}") for sku in skus]
    runs = start_restocking(*skus, patience=30, delivery="100ms")
    with released_when_all_have_come(held) as have_come:
        call_command("runworkflows", until_idle=True, concurrency=2, verbosity=0)

    assert have_come == [True]
    for run in runs:
        run.refresh_from_db()
    assert {run.status for run in runs} == {"succeeded"}
    assert {api.calls(f"/purchase-orders/{sku}") for sku in skus} == {1}


def test_the_async_client_knows_how_the_services_fail(api, settings):
    api.fail("/demand/mug", times=1, status=500)
    with pytest.raises(ApiError, match="/demand/mug answered 500"):
        asyncio.run(async_api.get("/demand/mug"))
    settings.SHOP_API_URL = "http://127.0.0.1:1"
    with pytest.raises(ApiError, match="couldn't be reached"):
        asyncio.run(async_api.get("/demand/mug"))
