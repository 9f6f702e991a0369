"""The import of a CSV file of products: download, parse, validate, save.

One function for each step of `process_uploaded_file`; each takes and returns values only.
"""

from __future__ import annotations

import csv
import io
from decimal import Decimal, InvalidOperation
from typing import TypedDict

from django.conf import settings
from django.core.files.storage import FileSystemStorage

from .models import Activity, Product, Supplier, Upload


class ProductRow(TypedDict):
    sku: str
    name: str
    price: Decimal
    stock: int
    supplier_id: int


class InvalidRow(Exception):
    """A row that can't be imported; `line` is its line in the file."""

    def __init__(self, line: int, problem: str) -> None:
        self.line, self.problem = line, problem
        super().__init__(line, problem)

    def __str__(self) -> str:
        return f"Line {self.line}: {self.problem}"


def list_new_files() -> list[str]:
    """The files that are there and were not imported."""
    Activity.log("list files", settings.SHOP_UPLOADS)
    _, files = FileSystemStorage(location=settings.SHOP_UPLOADS).listdir("")
    known = set(Upload.objects.values_list("file_key", flat=True))
    return sorted(set(files) - known)


def download_file(file_key: str) -> str:
    Activity.log("download", file_key)
    with FileSystemStorage(location=settings.SHOP_UPLOADS).open(file_key) as file:
        content: bytes = file.read()
    return content.decode("utf-8")


def parse_csv(content: str) -> list[dict[str, str]]:
    Activity.log("parse", f"{len(content)} characters")
    return list(csv.DictReader(io.StringIO(content)))


def validate_rows(rows: list[dict[str, str]]) -> list[ProductRow]:
    Activity.log("validate", f"{len(rows)} rows")
    suppliers = dict(Supplier.objects.values_list("name", "pk"))
    return [_validate_row(line, row, suppliers) for line, row in enumerate(rows, start=2)]


def _validate_row(line: int, row: dict[str, str], suppliers: dict[str, int]) -> ProductRow:
    if row["supplier"] not in suppliers:
        raise InvalidRow(line, f"no supplier {row['supplier']!r}. Add it under Shop > Suppliers, then retry the run.")
    try:
        price, stock = Decimal(row["price"]), int(row["stock"])
    except (InvalidOperation, ValueError):
        raise InvalidRow(line, f"price {row['price']!r} and stock {row['stock']!r} must be numbers") from None
    return {
        "sku": row["sku"],
        "name": row["name"],
        "price": price,
        "stock": stock,
        "supplier_id": suppliers[row["supplier"]],
    }


def save_rows(file_key: str, rows: list[ProductRow]) -> None:
    Activity.log("save", f"{len(rows)} rows")
    Product.objects.bulk_create(Product(**row) for row in rows)
    Upload.objects.create(file_key=file_key, rows=len(rows))
