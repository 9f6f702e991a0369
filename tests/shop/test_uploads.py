"""process_uploaded_file on a real CSV file."""

from __future__ import annotations

from decimal import Decimal

from testproject.shop.models import Product, Supplier, Upload
from testproject.shop.workflows import process_uploaded_file

from .evidence import executions, recorded, work


def test_the_file_is_downloaded_parsed_validated_and_saved(suppliers):
    run = process_uploaded_file.start({"file_key": "products.csv"})
    work(run)

    assert run.status == "succeeded"
    assert run.output == {"imported": 8}
    assert list(recorded(run)) == ["download_file", "parse_file", "validate", "save_to_db"]
    kettle = Product.objects.get(sku="kettle-steel")
    assert (kettle.name, kettle.price, kettle.stock) == ("Kettle, steel, 1.7 l", Decimal("39.99"), 18)
    assert kettle.supplier.name == "Müller & Söhne"
    assert Upload.objects.get().rows == 8


def test_when_validation_fails_the_file_is_downloaded_and_parsed_only_once(suppliers):
    Supplier.objects.filter(name="Müller & Söhne").delete()
    run = process_uploaded_file.start({"file_key": "products.csv"})
    work(run)

    assert run.status == "failed"
    assert run.error["step"] == "validate"
    assert run.error["message"].startswith("Line 8: no supplier 'Müller & Söhne'")
    assert Product.objects.count() == 0

    Supplier.objects.create(name="Müller & Söhne")
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert executions(run) == {"download_file": 1, "parse_file": 1, "validate": 2, "save_to_db": 1}
    assert Product.objects.count() == 8


def test_saving_is_all_or_nothing(suppliers):
    Product.objects.create(sku="strainer", name="There already", price=Decimal(1))
    run = process_uploaded_file.start({"file_key": "products.csv"})
    work(run)

    assert run.status == "failed"
    assert run.error["step"] == "save_to_db"
    assert Product.objects.count() == 1

    Product.objects.all().delete()
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert Product.objects.count() == 8
    assert Upload.objects.count() == 1


def test_a_file_that_is_not_there_is_a_failure_that_says_so():
    run = process_uploaded_file.start({"file_key": "missing.csv"})
    work(run)

    assert run.status == "failed"
    assert run.error["step"] == "download_file"
    assert run.error["type"].endswith("FileNotFoundError")
    assert "missing.csv" in run.error["message"]
