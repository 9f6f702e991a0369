"""The shop's workflows: each a plain function whose steps are recorded, so that a retry goes on where it failed.

Bodies only decide what happens next. What touches the database or the network is a step, and what a step does is in
`services.py`, `imports.py` and on the models. Between steps go values, not model instances.
"""

from __future__ import annotations

from logging import LoggerAdapter
from typing import Any

from django_steps import RetryPolicy, Step, workflow

from . import imports, services
from .api import ApiError
from .models import Customer, Purchase
from .services import Parcel

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


@workflow
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
