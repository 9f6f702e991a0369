"""Points for what customers buy: each customer has one run of `loyalty_account`, which goes on for years.

Whoever has something to say sends it an event, by the key of the customer. The first one starts the run.
"""

from __future__ import annotations

from dataclasses import dataclass

from django_steps import Event, get_workflow
from django_steps.models import WorkflowRun

from .models import Activity, Customer
from .services import send_plain_email

EVENTS_OF_A_RUN = 50  # then another run takes over
POINTS_OF_A_VOUCHER = 100


@dataclass
class Account:
    customer_id: int
    points: int = 0


def add_points(customer_id: int, points: int, order: str) -> WorkflowRun:
    """Tells the customer's run of an order, once; starts the run if there is none yet."""
    event = Event("bought", {"points": points}, id=order)
    return get_workflow("loyalty_account").start(Account(customer_id), key=key_of(customer_id), event=event)


def close(customer_id: int) -> None:
    """The customer leaves."""
    get_workflow("loyalty_account").send_event("left", key=key_of(customer_id))


def key_of(customer_id: int) -> str:
    return f"customer-{customer_id}"


def send_voucher(customer_id: int) -> None:
    customer = Customer.objects.get(pk=customer_id)
    Activity.log("send a voucher", customer)
    send_plain_email(customer.email, "A voucher for you", "Thank you. The next tea is on us.")
