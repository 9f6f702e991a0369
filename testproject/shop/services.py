"""What the shop does in its steps: it charges, reserves stock, sends e-mails and messages, syncs purchases.

Plain functions that know nothing of workflows, but for the idempotency key that they pass to services outside.
Importing a file of products is in `imports.py`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TypedDict

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.mail import send_mail
from django.db.models import F

from . import api
from .models import Activity, Customer, MonthlySpending, Notification, Order, Product, Service
from .steps import idempotency_key

APPROVAL_LIMIT = Decimal(500)  # EUR; above it somebody of the shop has to agree


class Item(TypedDict):
    sku: str
    quantity: int


class Parcel(TypedDict):
    code: str
    grams: int


@dataclass
class Approval:
    """What somebody of the shop says of a large order."""

    ok: bool
    note: str = ""


class OutOfStock(Exception):
    def __init__(self, sku: str, quantity: int) -> None:
        self.sku, self.quantity = sku, quantity
        super().__init__(sku, quantity)

    def __str__(self) -> str:
        return f"There are fewer than {self.quantity} of {self.sku} in stock. Restock it under Shop > Products."


class UnknownProducts(Exception):
    """Some products are missing from the catalogue; `args` are their SKUs."""

    def __str__(self) -> str:
        return f"No such product: {', '.join(self.args)}"


# -- Orders ------------------------------------------------------------------------------------


def validate_payment(order_id: int) -> str:
    """Charges the customer. The key makes a second call harmless: the provider answers with the first charge."""
    order = Order.objects.get(pk=order_id)
    Activity.log("charge", order)
    key = idempotency_key(otherwise=f"order-{order_id}")
    charge = api.post(f"/charges/{order_id}", {"amount": str(order.total)}, idempotency_key=key)
    Order.objects.filter(pk=order_id).update(status=Order.Status.PAID, charge=charge["id"])
    return charge["id"]


def update_inventory(order_id: int, items: list[Item]) -> None:
    """Takes the items from the stock. All or nothing, and once only, if the caller's transaction is the step's."""
    Activity.log("reserve stock", f"order {order_id}")
    for item in sorted(items, key=lambda item: item["sku"]):
        take_from_stock(item["sku"], item["quantity"])
    Order.objects.filter(pk=order_id).update(status=Order.Status.RESERVED)


def take_from_stock(sku: str, quantity: int) -> None:
    taken = Product.objects.filter(sku=sku, stock__gte=quantity).update(stock=F("stock") - quantity)
    if not taken:
        raise OutOfStock(sku, quantity)


def send_confirmation_email(order_id: int, email: str) -> None:
    Activity.log("confirm by e-mail", f"order {order_id}")
    send_plain_email(email, f"Your order {order_id}", "Thank you. Your parcel is on its way.")
    Order.objects.filter(pk=order_id).update(status=Order.Status.CONFIRMED)


def total_of(order_id: int) -> Decimal:
    Activity.log("look at the total", f"order {order_id}")
    return Order.objects.get(pk=order_id).total


def ask_for_approval(order_id: int, link: str) -> None:
    """Mails the link behind which somebody of the shop says yes or no."""
    Activity.log("ask for approval", f"order {order_id}")
    text = f"Please say yes or no: {link}"
    send_mail(f"May we sell order {order_id}?", text, settings.DEFAULT_FROM_EMAIL, [settings.SHOP_MANAGER])


def mark_paid(order_id: int, payment: str) -> None:
    Activity.log("mark as paid", f"order {order_id}")
    Order.objects.filter(pk=order_id).update(status=Order.Status.PAID, charge=payment)


def cancel_order(order_id: int, why: str) -> None:
    Activity.log("cancel an order", f"order {order_id}: {why}")
    Order.objects.filter(pk=order_id).update(status=Order.Status.CANCELED)


def send_plain_email(to: str, subject: str, body: str) -> None:
    Service.require(Service.Name.MAIL)
    send_mail(subject, body, settings.DEFAULT_FROM_EMAIL, [to])


def reserve_gift(sku: str) -> None:
    Activity.log("reserve a gift", sku)
    take_from_stock(sku, 1)


# -- Parcels -----------------------------------------------------------------------------------


def find_recipient(order_id: int) -> str:
    Activity.log("find the recipient", f"order {order_id}")
    return str(Order.objects.select_related("customer").get(pk=order_id).customer)


def quote_postage(parcels: list[Parcel]) -> Decimal:
    """What the carrier takes: 4 EUR for a parcel, and 1 EUR for each begun kilogram."""
    Activity.log("quote the postage", f"{len(parcels)} parcels")
    return sum((Decimal(4 - -parcel["grams"] // 1000) for parcel in parcels), Decimal(0))


def book_parcel(code: str, recipient: str) -> str:
    """Books a parcel at the carrier. The key makes a second call harmless: the carrier answers with the first booking."""
    Activity.log("book a parcel", code)
    key = idempotency_key(otherwise=code)
    booking: dict[str, str] = api.post(f"/parcels/{code}", {"recipient": recipient}, idempotency_key=key)
    return booking["id"]


def print_parcel_label(code: str, booking: str) -> str:
    Activity.log("print the label of a parcel", f"{code}, {booking}")
    return f"{code}: {booking}"


# -- Purchases at the partner shop ----------------------------------------------------------------


class PurchaseRow(TypedDict):
    reference: str
    customer_id: int
    amount: Decimal
    bought_on: date


def fetch_purchases(customer_id: int) -> list[dict[str, str]]:
    Activity.log("fetch purchases", f"customer {customer_id}")
    rows: list[dict[str, str]] = api.get(f"/purchases/{customer_id}")
    return rows


def normalize_purchases(customer_id: int, rows: list[dict[str, str]]) -> list[PurchaseRow]:
    """From the partner's strings to values: `" 10.50 EUR"` becomes `Decimal("10.50")`."""
    Activity.log("normalize purchases", f"customer {customer_id}")
    return [
        {
            "reference": row["ref"],
            "customer_id": customer_id,
            "amount": Decimal(row["sum"].split()[0]),
            "bought_on": date.fromisoformat(row["day"]),
        }
        for row in rows
    ]


def spending_by_month(rows: list[PurchaseRow]) -> dict[date, Decimal]:
    totals: dict[date, Decimal] = defaultdict(Decimal)
    for row in rows:
        totals[row["bought_on"].replace(day=1)] += row["amount"]
    return dict(totals)


def save_spending(customer_id: int, totals: dict[date, Decimal]) -> None:
    Activity.log("save spending", f"customer {customer_id}")
    for month, total in totals.items():
        MonthlySpending.objects.update_or_create(customer_id=customer_id, month=month, defaults={"total": total})


# -- Labels and messages --------------------------------------------------------------------------


def call_unreliable_api(name: str) -> str:
    Activity.log("call the unreliable API", name)
    answer: dict[str, str] = api.post(f"/jobs/{name}", {}, idempotency_key=name)
    return answer["id"]


async def print_labels(skus: list[str]) -> None:
    """Prints a label for each product, all at the same time."""
    await sync_to_async(Activity.log)("print labels", f"{len(skus)} products")
    known = {sku async for sku in Product.objects.filter(sku__in=skus).values_list("sku", flat=True)}
    if missing := sorted(set(skus) - known):
        raise UnknownProducts(*missing)
    await asyncio.gather(*(print_label(sku) for sku in skus))


async def print_label(sku: str) -> None:
    await Product.objects.filter(sku=sku).aupdate(labels_printed=F("labels_printed") + 1)


def process_item(sku: str) -> None:
    Activity.log("print a label", sku)
    if not Product.objects.filter(sku=sku).update(labels_printed=F("labels_printed") + 1):
        raise UnknownProducts(sku)


def notify(customer_id: int, message: str) -> None:
    """Sends a push message. The key makes sure that a customer gets it once, whatever happens to this process."""
    customer = Customer.objects.get(pk=customer_id)
    Activity.log("notify", customer)
    Service.require(Service.Name.PUSH)
    api.post(f"/push/{customer.device_token}", {"message": message}, idempotency_key=idempotency_key(otherwise=""))
    Notification.objects.create(customer=customer, message=message)
