"""process_batch and process_items: what is done is not done again."""

from __future__ import annotations

from decimal import Decimal

from testproject.shop.models import Product
from testproject.shop.workflows import process_batch, process_items

from .evidence import executions, recorded, work


def labels_printed(skus: list[str]) -> set[int]:
    return set(Product.objects.filter(sku__in=skus).values_list("labels_printed", flat=True))


def test_every_item_is_processed_once_in_batches_of_a_hundred(stickers):
    run = process_batch.start({"items": stickers})
    work(run)

    assert run.status == "succeeded"
    assert run.output == {"processed": 250}
    assert list(recorded(run)) == ["process_batch_0", "process_batch_1", "process_batch_2"]
    assert labels_printed(stickers) == {1}


def test_a_retry_executes_the_failed_batch_and_not_the_ones_before(stickers):
    Product.objects.filter(sku="sticker-150").delete()
    run = process_batch.start({"items": stickers})
    work(run)

    assert run.status == "failed"
    assert run.error["step"] == "process_batch_1"
    assert run.error["message"] == "No such product: sticker-150"
    assert labels_printed(stickers[:100]) == {1}
    assert labels_printed(stickers[100:]) == {0}

    Product.objects.create(sku="sticker-150", name="Sticker", price=Decimal("0.50"))
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert labels_printed(stickers) == {1}


def test_no_items_need_no_steps():
    run = process_batch.start({"items": []})
    work(run)

    assert run.output == {"processed": 0}
    assert recorded(run) == {}


def test_a_loop_with_the_index_in_the_names_goes_on_at_the_item_that_failed(stickers):
    items = [stickers[0], stickers[1], "unknown", stickers[2]]
    run = process_items.start({"items": items})
    work(run)
    assert run.status == "failed"
    assert run.error["step"] == "process_item_2"

    Product.objects.create(sku="unknown", name="New", price=Decimal("0.50"))
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert executions(run) == {"process_item_0": 1, "process_item_1": 1, "process_item_2": 2, "process_item_3": 1}
    assert labels_printed(items) == {1}
