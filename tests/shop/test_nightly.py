"""import_nightly: each file in a run of its own; what fails holds up no other, and comes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_steps.worker import Worker
from testproject.shop.models import Product, Supplier, Upload
from testproject.shop.workflows import import_nightly

from .evidence import executions, recorded, work

HEADING = "sku,name,price,stock,supplier\n"


@pytest.fixture
def uploads(settings, tmp_path, suppliers) -> Path:
    settings.SHOP_UPLOADS = tmp_path
    for name in ["a.csv", "b.csv", "c.csv"]:
        (tmp_path / name).write_text(f"{HEADING}{name},Tea of {name},3.50,5,Highland Tea\n")
    return tmp_path


def test_each_file_is_imported_once_by_a_run_of_its_own(uploads):
    run = import_nightly.start()
    work(run)
    assert run.output == {"imported": 3, "failed": []}
    assert executions(run) == {"list_files": 1}
    children = run.children.order_by("pk")
    assert [(child.workflow, child.input["file_key"]) for child in children] == [
        ("process_uploaded_file", name) for name in ["a.csv", "b.csv", "c.csv"]
    ]
    assert {tuple(executions(child).values()) for child in children} == {(1, 1, 1, 1)}
    assert Product.objects.count() == 3

    again = import_nightly.start()
    work(again)
    assert again.output == {"imported": 0, "failed": []}


def test_file_that_fails_holds_up_no_other_and_the_next_night_takes_it_again(uploads):
    (uploads / "b.csv").write_text(f"{HEADING}b.csv,Tea,3.50,5,Unknown & Co\n")
    run = import_nightly.start()
    work(run)
    assert run.output == {"imported": 2, "failed": ["b.csv"]}
    assert recorded(run)["file#b.csv"] == "failed"

    Supplier.objects.create(name="Unknown & Co")
    again = import_nightly.start()
    work(again)
    assert again.output == {"imported": 1, "failed": []}
    assert Upload.objects.count() == 3


def test_run_of_a_file_is_retried_by_itself(uploads):
    (uploads / "b.csv").write_text(f"{HEADING}b.csv,Tea,3.50,5,Unknown & Co\n")
    run = import_nightly.start()
    work(run)
    [child] = run.children.filter(status="failed")
    Supplier.objects.create(name="Unknown & Co")
    child.retry()
    work(child)
    assert (child.output, executions(child)["download_file"]) == ({"imported": 1}, 1)
    run.refresh_from_db()
    assert run.output["failed"] == ["b.csv"], "what the parent has seen stays as it was"


def test_canceling_the_night_cancels_its_files(uploads):
    run = import_nightly.start()
    Worker(max_runs=1, poll_interval=0.05).run()  # one pass: that of the parent
    run.cancel()
    work(run)
    assert run.status == "canceled"
    assert set(run.children.values_list("status", flat=True)) == {"canceled"}
    assert not Product.objects.exists()
