"""The shop and its payment provider: the shop opens a checkout there, and the provider calls back when something happens.

A callback is a notice in JSON with a signature. `views.py` reads it with `read_notice()`, and sends an event to the run.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from decimal import Decimal

from django.conf import settings
from django.urls import reverse

from . import api
from .models import Activity
from .steps import idempotency_key

TOLERANCE = 300  # seconds between signing a notice and reading it


class BadNotice(Exception):
    """A notice that the provider has not signed, or not lately."""


@dataclass
class Notice:
    """`id` is the provider's own: it calls again with the same one until it has been answered. `order` is the run's key."""

    id: str
    type: str
    order: str
    amount: Decimal


def open_checkout(order_id: int, amount: Decimal) -> str:
    """Asks the provider for a page where the customer pays, and returns its id."""
    order = f"order-{order_id}"
    Activity.log("open a checkout", order)
    body = {"amount": str(amount), "notify": settings.SHOP_URL + reverse("payment_notice")}
    answer: dict[str, str] = api.post(f"/checkouts/{order}", body, idempotency_key=idempotency_key(otherwise=order))
    return answer["id"]


def read_notice(body: bytes, signature: str) -> Notice:
    """What the provider says; `BadNotice` if it isn't the provider who says it."""
    try:
        seconds = int(signature.partition(":")[0])
    except ValueError:
        raise BadNotice from None
    if abs(time.time() - seconds) > TOLERANCE or not hmac.compare_digest(sign(body, seconds), signature):
        raise BadNotice
    said = json.loads(body)
    return Notice(said["id"], said["type"], said["order"], Decimal(said["amount"]))


def sign(body: bytes, seconds: int) -> str:
    """The signature of a body at a time: with the secret that the provider and the shop share."""
    secret: str = settings.SHOP_PAYMENTS_SECRET
    digest = hmac.new(secret.encode(), b"%d:%b" % (seconds, body), hashlib.sha256)
    return f"{seconds}:{digest.hexdigest()}"
