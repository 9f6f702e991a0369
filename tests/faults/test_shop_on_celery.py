"""The shop on Celery: two workers of it execute the shop's own workflows, which know nothing of that."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_steps.models import Worker as WorkerRow
from testproject.shop import samples
from testproject.shop.flaky_api import FlakyApi
from testproject.shop.models import Customer, Order, Product, Service, Upload
from testproject.shop.payment_provider import PaymentProvider
from testproject.shop.workflows import import_nightly
from tests.shop.evidence import executions
from tests.staging import eventually, status_of

from .fleets import Fleet
from .processes import Workers


@pytest.fixture
def api() -> Iterator[FlakyApi]:
    with FlakyApi() as serving:
        yield serving


@pytest.fixture
def mails(directory: Path) -> Path:
    """Where the e-mails go that are sent by the processes."""
    return directory / "mails"


@pytest.fixture
def shop(fleet: Fleet, api: FlakyApi, mails: Path, directory: Path, live_server) -> Fleet:
    """Processes of the shop, which are told by their environment where everything is."""
    uploads = directory / "uploads"
    uploads.mkdir()
    for name in ("a", "b", "c"):
        (uploads / f"{name}.csv").write_text(f"sku,name,price,stock,supplier\n{name},Tea,3.50,5,Highland Tea\n")
    fleet.environment.update(
        SHOP_API_URL=api.url, SHOP_URL=live_server.url, EMAIL_FILE_PATH=str(mails), SHOP_UPLOADS=str(uploads)
    )
    samples.create_catalogue()
    samples.switch(Service.Name.MAIL, on=True)
    return fleet


@pytest.mark.parametrize("fleet", ["redis", pytest.param("rabbitmq", marks=pytest.mark.faults)], indirect=True)
def test_two_celery_workers_execute_the_workflows_of_the_shop(
    shop: Fleet, workers: Workers, api: FlakyApi, mails: Path
) -> None:
    shop.celery("prefork")
    of_threads = shop.celery("threads")
    shop.dispatcher()
    shop.wait_until_ready()
    provider = PaymentProvider(api)
    ada, grace, *_ = Customer.objects.order_by("pk")
    api.fail("/parcels/A-2", times=1)

    order = samples.start_order(ada)
    sale = samples.start_sale(ada)
    large = samples.start_sale(grace, "samovar-1", quantity=1)
    parcels = samples.start_shipping(ada, *(f"A-{number}" for number in range(1, 7)))
    restocked = samples.start_restocking(*samples.stickers()[:3], delivery="300ms")
    nightly = import_nightly.start()

    eventually(lambda: status_of(large) == "waiting" and large.waiting_for == ["approval"])
    approve(mails)
    for paid in (sale, large):
        eventually(lambda: "paid" in waiting_for(paid))  # noqa: B023
        assert provider.pay(paid.key) == 200

    runs = [order, sale, large, parcels, *restocked, nightly]
    eventually(lambda: {status_of(run) for run in runs} == {"succeeded"})
    workers.assert_none_died()

    assert [run.output for run in (order, sale, large)] == [{"ok": True}] * 3
    assert set(Order.objects.exclude(pk=parcels.input["order_id"]).values_list("status", flat=True)) == {"confirmed"}
    assert [Product.objects.get(sku=sku).stock for sku in ("mug-1", "samovar-1")] == [6, 0]
    once = {"total": 1, "checkout": 1, "mark_paid": 1, "update_inventory": 1, "send_email": 1}
    assert executions(sale) == once
    assert executions(large) == {**once, "ask": 1}

    assert [label.partition(":")[0] for label in parcels.output["labels"]] == [f"A-{number}" for number in range(1, 7)]
    assert [api.effects(f"/parcels/A-{number}") for number in range(1, 7)] == [1] * 6
    assert api.calls("/parcels/A-2") == 2

    assert [run.output["stock"] for run in restocked] == [120] * 3
    assert nightly.output == {"imported": 3, "failed": []}
    assert [status_of(child) for child in nightly.children.all()] == ["succeeded"] * 3
    assert Upload.objects.count() == 3

    executing = set(WorkerRow.objects.filter(executor="celery", claims=False).values_list("pid", flat=True))
    assert of_threads.pid in executing and len(executing) >= 2  # both have taken part
    workers.stop()
    assert not WorkerRow.objects.filter(claims=False).exists()


def approve(mails: Path) -> None:
    """Say yes, by the link in the e-mail to the manager."""
    links = eventually(lambda: re.findall(r"Please say yes or no: (\S+)", read(mails)))
    body = json.dumps({"ok": True, "note": "good customer"}).encode()
    request = urllib.request.Request(links[0], body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 202


def read(mails: Path) -> str:
    """All e-mails, with the lines together that were too long for one."""
    return "\n".join(path.read_text() for path in mails.glob("*")).replace("=\n", "") if mails.exists() else ""


def waiting_for(run) -> list[str]:
    run.refresh_from_db()
    return list(run.waiting_for)
