"""The pages of the schedules in a browser: nowhere wider than the window, light and dark; a preview, a pause with a note."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.db import connection

from django_steps import workflow
from django_steps.core import clock
from django_steps.definitions import scheduling
from django_steps.ledger import schedules as ledger
from django_steps.models import WorkflowSchedule

from .test_looks import check_width

PAGES = "/admin/django_steps/workflowschedule/"


@pytest.fixture
def row(transactional_db):
    @workflow
    def sync_customer(input, step):
        pass

    made = WorkflowSchedule.objects.create
    row = made(name="customer-7", workflow="sync_customer", every="1h", input={"customer": 7})
    made(name="x" * 200, workflow="sync_customer", cron="1,2,3,4,5,6,7 * 1,2,3 * *").pause("y" * 300, by="eve")
    made(name="nightly", workflow="sync_customer", cron="30 2 * * *", timezone="America/Argentina/ComodRivadavia")
    try:
        for _ in range(3):
            clock.offset_us += 3_600_000_000
            ledger.fire(connection, scheduling.targets())
        yield row
    finally:
        clock.offset_us = 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_fit_a_window_and_a_phone(log_in, row, theme, tmp_path):
    directory = Path(os.environ.get("SCREENSHOTS_OF_SCHEDULES") or tmp_path)
    long = WorkflowSchedule.objects.get(name__startswith="xxx")
    addresses = ["", "add/", f"{row.pk}/change/", f"{row.pk}/edit/", f"{row.pk}/pause/", f"{long.pk}/change/"]
    for width, page in ((1280, log_in(color_scheme=theme)), (390, log_in(width=390, height=844, color_scheme=theme))):
        for number, address in enumerate(addresses):
            page.goto(PAGES + address)
            page.screenshot(path=directory / f"schedules-{number}-{width}-{theme}.png", full_page=True)
            check_width(page, address)


def test_preview_then_save_then_pause_with_a_note(log_in, row):
    page = log_in()
    page.goto(f"{PAGES}add/")
    page.fill("#id_name", "customer-8")
    page.fill("#id_cron", "30 2 * * 1-5")
    page.select_option("#id_workflow", "sync_customer")
    page.click("text=Preview")
    assert "Monday to Friday at 02:30" in page.inner_text("#content")
    page.click("input[value=Save]")
    page.click("text=Pause")
    page.fill("#steps-reason", "holidays")
    page.click("input[value=Pause]")
    assert "paused by operator: holidays" in page.inner_text("#content")
    assert WorkflowSchedule.objects.get(name="customer-8").is_paused
