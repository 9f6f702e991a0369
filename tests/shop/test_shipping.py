"""ship_order: its parcels are shipped side by side, and a retry goes on with those that were not."""

from __future__ import annotations

from decimal import Decimal

from testproject.shop.samples import start_shipping

from .evidence import executions, recorded, work


def test_every_parcel_is_booked_and_labelled(api, customer):
    run = start_shipping(customer, "A", "B", "C")
    work(run)

    assert run.status == "succeeded"
    assert run.output == {
        "postage": Decimal(4 + 1 + 4 + 2 + 4 + 3),
        "labels": ["A: parcels-A-1", "B: parcels-B-1", "C: parcels-C-1"],
    }
    assert set(recorded(run)) == {"find_recipient", "quote_postage", "parcel"} | {
        f"parcel#{code}{step}" for code in "ABC" for step in ("", "/book", "/label")
    }


def test_a_carrier_that_fails_once_is_asked_again_for_that_parcel_alone(api, customer):
    api.fail("/parcels/B", times=1)
    run = start_shipping(customer, "A", "B", "C")
    work(run)

    assert run.status == "succeeded"
    assert {code: api.calls(f"/parcels/{code}") for code in "ABC"} == {"A": 1, "B": 2, "C": 1}


def test_a_retry_books_the_refused_parcel_and_no_other_again(api, customer):
    api.fail("/parcels/B", times=2)
    run = start_shipping(customer, "A", "B", "C")
    work(run)

    assert run.status == "failed"
    assert run.failed_step == "parcel/book"
    assert recorded(run)["parcel#B/book"] == "failed"

    run.retry()
    work(run)
    assert run.status == "succeeded"
    assert {code: api.effects(f"/parcels/{code}") for code in "ABC"} == {"A": 1, "B": 1, "C": 1}
    counts = executions(run)
    assert counts.pop("parcel#B/book") == 3
    assert set(counts.values()) == {1}
