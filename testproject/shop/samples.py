"""A catalogue, customers and runs to begin with, for the demo and for trying the shop out locally."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.db import transaction

from django_steps.models import WorkflowRun

from .models import Customer, Order, Product, Service, Supplier
from .services import Item, Parcel
from .workflows import (
    process_batch,
    process_data,
    process_order,
    process_uploaded_file,
    restock,
    retry_with_delay,
    send_notifications,
    ship_order,
    sync_data,
    take_order,
)

CUSTOMERS = ["Ada", "Grace", "Edsger", "Barbara"]


def create_catalogue() -> None:
    for name in ["Highland Tea", "Nordic Ceramics", "Müller & Söhne"]:
        Supplier.objects.create(name=name)
    Product.objects.create(sku="mug-1", name="Mug", price=Decimal("7.50"), stock=10)
    Product.objects.create(sku="samovar-1", name="Samovar", price=Decimal("620.00"), stock=1)
    Product.objects.bulk_create(
        Product(sku=f"sticker-{number:03}", name=f"Sticker {number}", price=Decimal("0.50"), stock=100)
        for number in range(250)
    )
    for name in CUSTOMERS:
        Customer.objects.create(name=name, email=f"{name.lower()}@example.com", device_token=f"phone-of-{name.lower()}")


def switch(service: Service.Name, *, on: bool) -> None:
    Service.objects.update_or_create(name=service, defaults={"is_on": on})


def tags_of(customer: Customer) -> dict[str, str]:
    """By what the shop's people look for the runs of a customer."""
    return {"customer": customer.name.lower()}


def start_order(customer: Customer, quantity: int = 2) -> WorkflowRun:
    order = Order.objects.create(customer=customer, total=Decimal("7.50") * quantity)
    items: list[Item] = [{"sku": "mug-1", "quantity": quantity}]
    order_input = {"order_id": order.pk, "items": items, "email": customer.email}
    return process_order.start(order_input, about=order, tags=tags_of(customer))


def start_sale(customer: Customer, sku: str = "mug-1", quantity: int = 2) -> WorkflowRun:
    """An order that is paid at the payment provider; its run has the key by which the provider names it."""
    total = Product.objects.get(sku=sku).price * quantity
    with transaction.atomic():
        order = Order.objects.create(customer=customer, total=total)
        items: list[Item] = [{"sku": sku, "quantity": quantity}]
        order_input = {"order_id": order.pk, "items": items, "email": customer.email}
        return take_order.start(order_input, key=f"order-{order.pk}", about=order, tags=tags_of(customer))


def start_shipping(customer: Customer, *codes: str) -> WorkflowRun:
    """An order that is shipped in several parcels."""
    order = Order.objects.create(customer=customer, total=Decimal("45.00"), status=Order.Status.PAID)
    parcels: list[Parcel] = [{"code": code, "grams": 900 * number} for number, code in enumerate(codes, start=1)]
    return ship_order.start({"order_id": order.pk, "parcels": parcels}, about=order, tags=tags_of(customer))


def start_notifications() -> WorkflowRun:
    user_ids = list(Customer.objects.order_by("pk").values_list("pk", flat=True))
    return send_notifications.start({"user_ids": user_ids, "message": "New tea has arrived"})


def start_restocking(*skus: str, **options: Any) -> list[WorkflowRun]:
    """A run for each of these products; `options`: `patience` in seconds, `delivery`."""
    return restock.start_many([{"sku": sku, **options} for sku in skus])


def stickers() -> list[str]:
    """The SKUs of all stickers."""
    return list(Product.objects.filter(sku__startswith="sticker-").order_by("sku").values_list("sku", flat=True))


def start_others(customer: Customer, another: Customer) -> list[WorkflowRun]:
    """Runs that succeed without anybody's help, and without an e-mail."""
    return [
        process_data.start({"user_id": another.pk}),
        sync_data.start({"user_id": customer.pk}),
        process_uploaded_file.start({"file_key": "products.csv"}),
        process_batch.start({"items": stickers()}),
        retry_with_delay.start({"data": "stocktaking", "delay": "1500ms"}),
    ]
