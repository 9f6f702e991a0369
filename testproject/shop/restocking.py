"""What the shop does to restock a product: it asks around, orders, and takes the delivery into its stock.

What waits for somebody's answer is `async def`, and what writes to the database is a plain function.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypedDict

from asgiref.sync import sync_to_async
from django.db.models import F

from . import async_api
from .models import Activity, Product, Supplier
from .services import UnknownProducts
from .steps import idempotency_key


class Offer(TypedDict):
    supplier: int | None  # None: the wholesaler, at list price
    price: Decimal


async def list_suppliers() -> list[int]:
    await _log("list suppliers", "")
    return [pk async for pk in Supplier.objects.order_by("pk").values_list("pk", flat=True)]


async def fetch_demand(sku: str) -> int:
    """How many pieces the forecast wants."""
    await _log("fetch the demand", sku)
    answer: dict[str, int] = await async_api.get(f"/demand/{sku}")
    return answer["pieces"]


async def fetch_offer(sku: str, supplier: int) -> Offer:
    await _log("fetch an offer", f"{sku}, supplier {supplier}")
    answer: dict[str, str] = await async_api.get(f"/offers/{supplier}/{sku}")
    return {"supplier": supplier, "price": Decimal(answer["price"])}


async def fetch_list_price(sku: str) -> Offer:
    await _log("fetch the list price", sku)
    answer: dict[str, str] = await async_api.get(f"/prices/{sku}")
    return {"supplier": None, "price": Decimal(answer["price"])}


async def place_order(sku: str, quantity: int, offer: Offer) -> str:
    """The key makes a second call harmless: the supplier answers with the first order."""
    await _log("order from a supplier", f"{quantity} of {sku}")
    body = {"quantity": quantity, "supplier": offer["supplier"], "price": str(offer["price"])}
    key = idempotency_key(otherwise="")
    answer: dict[str, str] = await async_api.post(f"/purchase-orders/{sku}", body, idempotency_key=key)
    return answer["id"]


def take_into_stock(sku: str, quantity: int) -> int:
    """Adds what was delivered, and returns how many there are now. Once only, if the caller's transaction is the step's."""
    Activity.log("take into stock", f"{quantity} of {sku}")
    if not Product.objects.filter(sku=sku).update(stock=F("stock") + quantity):
        raise UnknownProducts(sku)
    return Product.objects.get(sku=sku).stock


async def _log(what: str, subject: str) -> None:
    await sync_to_async(Activity.log)(what, subject)
