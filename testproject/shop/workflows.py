"""The shop's workflows: each a plain function whose steps are recorded, so that a retry goes on where it failed.

Bodies only decide what happens next. What touches the database or the network is a step, and what a step does is in
`services.py`, `imports.py`, `restocking.py` and on the models. Between steps go values, not model instances.
"""

from __future__ import annotations

import asyncio
from functools import partial
from logging import LoggerAdapter
from typing import Any

from django_steps import AsyncStep, Limit, RetryPolicy, Step, workflow
from django_steps.models import WorkflowRun

from . import imports, loyalty, payments, restocking, services
from .api import ApiError
from .models import Customer, Purchase
from .services import APPROVAL_LIMIT, Approval, Parcel

Input = dict[str, Any]
Logger = LoggerAdapter[Any]

BATCH_SIZE = 100


# -- Orders ------------------------------------------------------------------------------------


@workflow
def process_order(input: Input, step: Step) -> dict[str, bool]:
    order_id = input["order_id"]
    step.define("validate_payment", services.validate_payment).run(order_id)
    step.define("update_inventory", services.update_inventory, atomic=True).run(order_id, input["items"])
    step.define("send_email", services.send_confirmation_email).run(order_id, input["email"])
    return {"ok": True}


@workflow
def process_order_without_steps(input: Input) -> None:
    """How not to do it: when the e-mail fails, a retry takes the items from the stock a second time."""
    order_id = input["order_id"]
    services.validate_payment(order_id)
    services.update_inventory(order_id, input["items"])
    services.send_confirmation_email(order_id, input["email"])


@workflow
def take_order(input: Input, step: Step, run: WorkflowRun) -> dict[str, Any]:
    """Its customer pays some day, at the payment provider; a large order has to be approved before, in the admin or by a link.

    Nothing is held while it waits: the days in between, a crash or a deploy change nothing.
    """
    order_id = input["order_id"]
    total = step.define("total", services.total_of).run(order_id)
    if total > APPROVAL_LIMIT:
        run.update_details(stage="is looked at by us")
        step.define("ask", services.ask_for_approval).run(order_id, run.event_url("approval"))
        nobody = Approval(ok=False, note="nobody has answered")
        approval = step.wait_for_event("approval", timeout="7d", default=nobody, type=Approval)
        if not approval.ok:
            step.define("refuse", services.cancel_order).run(order_id, approval.note)
            return {"ok": False, "why": f"not approved: {approval.note}"}

    step.define("checkout", payments.open_checkout).run(order_id, total)
    run.update_details(stage="waits for your payment")
    payment = step.wait_for_any_event("payment", ["paid", "declined"], timeout="3d", default=None)
    if payment is None or payment.name == "declined":
        why = "the payment was declined" if payment else "not paid in time"
        step.define("cancel", services.cancel_order).run(order_id, why)
        return {"ok": False, "why": why}

    run.update_details(stage="is packed")
    step.define("mark_paid", services.mark_paid).run(order_id, payment.id)
    step.define("update_inventory", services.update_inventory, atomic=True).run(order_id, input["items"])
    step.define("send_email", services.send_confirmation_email).run(order_id, input["email"])
    return {"ok": True}


@workflow
def ship_order(input: Input, step: Step) -> dict[str, Any]:
    """The parcels of an order are shipped side by side, each in a branch; a retry goes on with those that failed."""
    parcels: list[Parcel] = input["parcels"]
    recipient, postage = step.gather(
        step.define("find_recipient", services.find_recipient).bind(input["order_id"]),
        step.define("quote_postage", services.quote_postage).bind(parcels),
    )

    def ship_parcel(parcel: Parcel, step: Step) -> str:
        policy = RetryPolicy(max_attempts=2, initial_interval="200ms", retry_on=(ApiError,))
        booking = step.define("book", services.book_parcel, retry=policy).run(parcel["code"], recipient)
        return step.define("label", services.print_parcel_label, atomic=True).run(parcel["code"], booking)

    labels = step.map("parcel", ship_parcel, parcels, key=lambda parcel: parcel["code"])
    return {"postage": postage, "labels": labels}


@workflow
def send_email(input: Input, step: Step) -> None:
    @step.define("send")
    def send() -> None:
        services.send_plain_email(to=input["email"], subject="Hello", body="How do you like your tea?")

    send.run()


# -- Customers ---------------------------------------------------------------------------------


@workflow
def onboard_user(input: Input, step: Step) -> None:
    step.get(Customer, "send_welcome_email").run(input["user_id"])


@workflow
def welcome_by_address(input: Input, step: Step) -> dict[str, str]:
    """The result of one method goes into the next; each step has a name of its own."""
    customer = step.get(Customer, "find_by_email", name="find_customer").run(input["email"])
    email = step.get(Customer, Customer.send_welcome_email, name="send_email").run(customer.pk)
    return {"sent_to": email}


@workflow
def look_up_user(input: Input, step: Step) -> dict[str, str]:
    customer = step.get(Customer.objects, "get").run(pk=input["user_id"])
    return {"email": customer.email}


@workflow
def welcome_with_gift(input: Input, step: Step, logger: Logger) -> dict[str, bool]:
    """The gift is optional: when there is none left, the customer is welcomed all the same."""
    has_gift = True
    try:
        step.define("reserve_gift", services.reserve_gift).run(input["gift"])
    except services.OutOfStock as error:
        has_gift = False
        logger.warning("Optional step failed", extra={"error": str(error)})

    step.sleep("let_them_arrive", input.get("pause", "5s"))
    step.get(Customer, "send_welcome_email").run(input["user_id"])
    return {"gift": has_gift}


@workflow
def send_notifications(input: Input, step: Step) -> dict[str, int]:
    user_ids = input["user_ids"]
    for user_id in user_ids:
        step.define(f"notify_user_{user_id}", services.notify).run(user_id, input["message"])
        if user_id != user_ids[-1]:
            step.sleep("rate_limit_delay", "100ms")
    return {"sent": len(user_ids)}


# -- Data from elsewhere -----------------------------------------------------------------------


@workflow
def process_data(input: Input, step: Step) -> dict[str, int]:
    user_id = input["user_id"]
    data = step.define("fetch_data", services.fetch_purchases).run(user_id)
    transformed = step.define(
        "transform", lambda: services.spending_by_month(services.normalize_purchases(user_id, data))
    ).run()
    step.define("save", services.save_spending, atomic=True).run(user_id, transformed)
    return {"count": len(transformed)}


# A customer's second run waits for the first one; the other side takes three calls at a time, of all workers together.
@workflow(
    limit=[
        Limit(at_once=1, key=lambda input: input["user_id"], hold="unfinished"),
        Limit(at_once=3, hold="executing"),
    ]
)
def sync_data(input: Input, step: Step, logger: Logger) -> dict[str, int]:
    user_id = input["user_id"]
    external_data = step.define(
        "fetch_from_api",
        services.fetch_purchases,
        retry=RetryPolicy(max_attempts=3, initial_interval="200ms", retry_on=(ApiError,)),
    ).run(user_id)
    normalized = step.define("normalize_data", services.normalize_purchases).run(user_id, external_data)
    step.get(Purchase, "save_many", name="save_to_db", atomic=True).run(normalized)

    logger.info("Sync completed", extra={"count": len(normalized)})
    return {"count": len(normalized)}


@workflow
def retry_with_delay(input: Input, step: Step, logger: Logger) -> None:
    """A retry loop by hand. `step_retry=` or `retry=` do the same without one."""
    for i in range(3):
        try:
            step.define(f"attempt_{i + 1}", services.call_unreliable_api).run(input["data"])
            break
        except ApiError as error:
            logger.warning("Attempt %s failed", i + 1, extra={"error": str(error)})
            if i == 2:
                raise
            step.sleep("retry_delay", input.get("delay", "5s"))


@workflow
def process_uploaded_file(input: Input, step: Step) -> dict[str, int]:
    file_key = input["file_key"]
    content = step.define("download_file", imports.download_file).run(file_key)
    parsed = step.define("parse_file", imports.parse_csv).run(content)
    validated = step.define("validate", imports.validate_rows).run(parsed)
    step.define("save_to_db", imports.save_rows, atomic=True).run(file_key, validated)
    return {"imported": len(validated)}


@workflow
def import_nightly(step: Step, logger: Logger) -> dict[str, Any]:
    """Imports the files that have come since, each in a run of its own, so that any worker takes one and each can be retried.

    A file that fails holds up no other. The next night takes it again, unless its run was retried meanwhile.
    """
    files = step.define("list_files", imports.list_new_files).run()
    imported = step.map(
        "file",
        process_uploaded_file,
        [{"file_key": file_key} for file_key in files],
        key=lambda item: item["file_key"],
        return_exceptions=True,
    )
    failed = [file_key for file_key, done in zip(files, imported, strict=True) if isinstance(done, Exception)]
    if failed:
        logger.warning("Some files were not imported", extra={"files": failed})
    return {"imported": sum(done["imported"] for done in imported if isinstance(done, dict)), "failed": failed}


# -- Asking around ------------------------------------------------------------------------------


@workflow
async def restock(input: Input, step: AsyncStep, logger: Logger) -> dict[str, Any]:
    """Asks for the demand and at all suppliers at once, orders where it is cheapest, and takes the delivery into the stock.

    The body is `async def`: while it waits for answers it holds no thread, so one worker has hundreds of these under way.
    Plan B, if not all have answered in time: twenty pieces, at the list price of the wholesaler.
    """
    sku: str = input["sku"]
    policy = RetryPolicy(max_attempts=3, initial_interval="200ms", retry_on=(ApiError,))
    suppliers = await step.define("list_suppliers", restocking.list_suppliers).run()
    quantity, offers = 20, list[restocking.Offer]()
    try:
        async with asyncio.timeout(input.get("patience", 5)):
            quantity, answers = await asyncio.gather(
                step.define("demand", restocking.fetch_demand, retry=policy).run(sku),
                step.map(
                    "offer",
                    partial(restocking.fetch_offer, sku),
                    suppliers,
                    concurrency=20,
                    retry=policy,
                    return_exceptions=True,
                ),
            )
            offers = [answer for answer in answers if not isinstance(answer, Exception)]
    except TimeoutError:
        logger.warning("Not all have answered in time", extra={"sku": sku})

    if offers:
        offer = min(offers, key=lambda offer: (offer["price"], offer["supplier"]))
    else:
        offer = await step.define("list_price", restocking.fetch_list_price, retry=policy).run(sku)
    order = await step.define("order", restocking.place_order, retry=policy).run(sku, quantity, offer)
    await step.sleep("delivery", input.get("delivery", "1s"))
    stock = await step.define("take_into_stock", restocking.take_into_stock, atomic=True).run(sku, quantity)
    return {"order": order, "supplier": offer["supplier"], "stock": stock}


# -- For years -----------------------------------------------------------------------------------


@workflow
def loyalty_account(input: loyalty.Account, step: Step, run: WorkflowRun) -> int:
    """The points of one customer: it takes what the customer has bought, one after the other, and sends a voucher for 100.

    It goes on until the customer leaves. After some events another run takes over with the points that are there, so
    that no history grows for years.
    """
    points = input.points
    for number in range(loyalty.EVENTS_OF_A_RUN):
        run.update_details(points=points)
        event = step.wait_for_any_event("next", ["bought", "left"])
        if event.name == "left":
            return points
        points += event.payload["points"]
        if points >= loyalty.POINTS_OF_A_VOUCHER:
            points -= loyalty.POINTS_OF_A_VOUCHER
            step.define(f"voucher_{number}", loyalty.send_voucher).run(input.customer_id)
    return step.continue_as_new(loyalty.Account(input.customer_id, points))


# -- Loops -------------------------------------------------------------------------------------


@workflow
def process_batch(input: Input, step: Step, logger: Logger) -> dict[str, int]:
    """Prints labels for many products, a hundred in each step."""
    items = input["items"]
    for start in range(0, len(items), BATCH_SIZE):
        batch = items[start : start + BATCH_SIZE]
        number = start // BATCH_SIZE
        step.define(f"process_batch_{number}", services.print_labels, atomic=True).run(batch)
        logger.info(
            "Batch processed",
            extra={"batch": number, "progress": f"{min(start + BATCH_SIZE, len(items))}/{len(items)}"},
        )
    return {"processed": len(items)}


@workflow
def process_items(input: Input, step: Step) -> None:
    for i, sku in enumerate(input["items"]):
        step.define(f"process_item_{i}", services.process_item).run(sku)
