"""The shop's own admin, where the cause of a failure is repaired; and that it is served only locally."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.urls import reverse

from testproject.shop import samples
from testproject.shop.models import Customer, Product, Service
from testproject.shop.workflows import process_order

from .evidence import work

MODELS = [model._meta.model_name for model in apps.get_app_config("shop").get_models()]


@pytest.mark.parametrize("model", MODELS)
def test_every_table_of_the_shop_has_a_page(admin_client, model):
    samples.create_catalogue()
    samples.switch(Service.Name.MAIL, on=True)

    assert admin_client.get(reverse(f"admin:shop_{model}_changelist")).status_code == 200


def test_the_cause_of_a_failure_is_repaired_in_the_admin(admin_client, api, order, mug, mailoutbox):
    samples.switch(Service.Name.MAIL, on=False)
    run = process_order.start(
        {"order_id": order.pk, "items": [{"sku": "mug", "quantity": 2}], "email": "ada@example.com"}
    )
    work(run)
    assert run.status == "failed"

    form = {
        "form-TOTAL_FORMS": "1",
        "form-INITIAL_FORMS": "1",
        "form-0-id": str(Service.objects.get().pk),
        "form-0-is_on": "on",
        "_save": "Save",
    }
    assert admin_client.post(reverse("admin:shop_service_changelist"), form).status_code == 302
    run.retry()
    work(run)

    assert run.status == "succeeded"
    assert Product.objects.get(sku="mug").stock == 8
    assert len(mailoutbox) == 1


def test_the_shop_with_its_well_known_password_is_not_served_without_debug():
    with pytest.raises(CommandError, match="only with DEBUG=1"):
        call_command("serve")


def test_the_page_of_an_order_shows_its_run(admin_client):
    samples.create_catalogue()
    customer = Customer.objects.order_by("pk").first()
    run = samples.start_order(customer)
    page = admin_client.get(reverse("admin:shop_order_change", args=[run.about.pk])).content.decode()
    assert reverse("admin:django_steps_workflowrun_change", args=[run.pk]) in page
    assert run.tags == {"customer": customer.name.lower()}
