"""What the tests of the shop's workflows need: a catalogue, customers, and the services outside on localhost."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest

from testproject.shop.flaky_api import FlakyApi
from testproject.shop.models import Customer, Order, Product, Supplier
from testproject.shop.payment_provider import PaymentProvider


@pytest.fixture(autouse=True)
def committed_rows(transactional_db: None) -> None:
    """Workers see only what is committed."""


@pytest.fixture
def api(settings) -> Iterator[FlakyApi]:
    with FlakyApi() as api:
        settings.SHOP_API_URL = api.url
        yield api


@pytest.fixture
def customer() -> Customer:
    return Customer.objects.create(name="Ada", email="ada@example.com", device_token="phone-of-ada")


@pytest.fixture
def mug() -> Product:
    return Product.objects.create(sku="mug", name="Mug", price=Decimal("7.50"), stock=10)


@pytest.fixture
def order(customer: Customer) -> Order:
    return Order.objects.create(customer=customer, total=Decimal("15.00"))


@pytest.fixture
def stickers() -> list[str]:
    """The SKUs of 250 products."""
    skus = [f"sticker-{number:03}" for number in range(250)]
    Product.objects.bulk_create(Product(sku=sku, name=sku, price=Decimal("0.50")) for sku in skus)
    return skus


@pytest.fixture
def suppliers() -> None:
    for name in ["Highland Tea", "Nordic Ceramics", "Müller & Söhne"]:
        Supplier.objects.create(name=name)


@pytest.fixture
def shop(settings, live_server) -> str:
    """The address of the shop itself, so that others can call it."""
    settings.SHOP_URL = live_server.url
    settings.DJANGO_STEPS = {**settings.DJANGO_STEPS, "BASE_URL": live_server.url}
    return live_server.url


@pytest.fixture
def provider(api, shop) -> PaymentProvider:
    return PaymentProvider(api)
