"""What the shop keeps: its catalogue, its customers and orders, and a log of what it did.

Business rules that belong to one row are methods here; what spans several rows or leaves the shop is in `services.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.mail import send_mail
from django.db import models
from django.utils import timezone

from . import steps


class ServiceDown(Exception):
    """Something that the shop depends on is switched off."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)

    def __str__(self) -> str:
        return f"The {self.name} service is switched off. Switch it on under Shop > Services, then retry the run."


class Service(models.Model):
    """A switch for something the shop depends on. Without a row, the service is on."""

    class Name(models.TextChoices):
        MAIL = "mail"
        PUSH = "push"

    name = models.CharField(max_length=20, choices=Name, unique=True)
    is_on = models.BooleanField(default=True)

    def __str__(self) -> str:
        return f"{self.name} ({'on' if self.is_on else 'off'})"

    @classmethod
    def require(cls, name: str) -> None:
        if cls.objects.filter(name=name, is_on=False).exists():
            raise ServiceDown(name)


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField()
    device_token = models.CharField(max_length=100, blank=True)
    welcomed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name

    def send_welcome_email(self) -> str:
        """Sends the e-mail, and returns the address it went to."""
        Activity.log("send a welcome e-mail", self.email)
        Service.require(Service.Name.MAIL)
        send_mail("Welcome!", f"Dear {self.name}, it is good to have you.", settings.DEFAULT_FROM_EMAIL, [self.email])
        Customer.objects.filter(pk=self.pk).update(welcomed_at=timezone.now())
        return self.email

    @classmethod
    def find_by_email(cls, email: str) -> Customer:
        return cls.objects.get(email=email)


class Supplier(models.Model):
    name = models.CharField(max_length=100, unique=True)

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    sku = models.CharField("SKU", max_length=40, unique=True)
    name = models.CharField(max_length=100)
    supplier = models.ForeignKey(Supplier, models.PROTECT, null=True, blank=True, related_name="products")
    price = models.DecimalField(max_digits=9, decimal_places=2)
    stock = models.PositiveIntegerField(default=0)
    labels_printed = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name} ({self.sku})"


class Order(models.Model):
    class Status(models.TextChoices):
        NEW = "new"
        PAID = "paid"
        RESERVED = "reserved"
        CONFIRMED = "confirmed"
        CANCELED = "canceled"

    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    total = models.DecimalField(max_digits=9, decimal_places=2)
    status = models.CharField(max_length=10, choices=Status, default=Status.NEW)
    charge = models.CharField("charge at the payment provider", max_length=60, blank=True)

    def __str__(self) -> str:
        return f"Order {self.pk}"


class Purchase(models.Model):
    """What a customer bought at the partner shop, as its API tells."""

    reference = models.CharField(max_length=40, unique=True)
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="purchases")
    amount = models.DecimalField(max_digits=9, decimal_places=2)
    bought_on = models.DateField()

    def __str__(self) -> str:
        return self.reference

    @classmethod
    def save_many(cls, rows: Iterable[dict[str, Any]]) -> int:
        """Saves the rows by their reference, and returns how many there were."""
        rows = list(rows)
        Activity.log("save purchases", f"{len(rows)} rows")
        for row in rows:
            values = {key: value for key, value in row.items() if key != "reference"}
            cls.objects.update_or_create(reference=row["reference"], defaults=values)
        return len(rows)


class MonthlySpending(models.Model):
    """How much a customer spent in a month; `month` is its first day."""

    customer = models.ForeignKey(Customer, models.CASCADE, related_name="spending")
    month = models.DateField()
    total = models.DecimalField(max_digits=9, decimal_places=2)

    class Meta:
        verbose_name_plural = "monthly spending"
        constraints = [models.UniqueConstraint(fields=["customer", "month"], name="shop_spending_once_a_month")]

    def __str__(self) -> str:
        return f"{self.customer_id} in {self.month:%Y-%m}"


class Upload(models.Model):
    """A file of products that was imported."""

    file_key = models.CharField(max_length=200)
    rows = models.PositiveIntegerField()
    imported_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.file_key


class Notification(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="notifications")
    message = models.CharField(max_length=200)
    sent_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.message


class Activity(models.Model):
    """One line of the shop's own log: what was attempted, by which process.

    A step writes its line before it does its work. So the lines count executions, failed ones included; only the
    line of a failed `atomic=True` step goes away with everything else that step wrote.
    """

    happened_at = models.DateTimeField(default=timezone.now)
    what = models.CharField(max_length=100)
    subject = models.CharField(max_length=200, blank=True)
    process = models.PositiveIntegerField()
    run_id = models.UUIDField(null=True, blank=True, db_index=True)
    step = models.CharField(max_length=255, blank=True)

    class Meta:
        verbose_name_plural = "activities"

    def __str__(self) -> str:
        return f"{self.what}: {self.subject}"

    @classmethod
    def log(cls, what: str, subject: object = "") -> None:
        cls.objects.create(what=what, subject=str(subject)[:200], process=os.getpid(), **steps.where())
