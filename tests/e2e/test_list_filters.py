"""The forms beside the list: what was typed into one of them is not lost by sending another."""

from __future__ import annotations

import pytest

from tests.admin.conftest import make_run

RUNS = "/admin/django_steps/workflowrun/"
TYPED = {"q": "order", "created_at__range__gte": "2026-01-01", "finished_at__range__lte": "2026-12-31"}


@pytest.mark.parametrize("pressed", ["search", "date", "enter"])
def test_search_and_dates_are_sent_together(log_in, transactional_db, pressed):
    make_run(key="order-7")
    page = log_in()
    page.goto(f"{RUNS}?queue=default")
    for name, text in TYPED.items():
        page.locator(f"input[name={name}]").first.fill(text)
    if pressed == "search":
        page.locator("#changelist-search input[type=submit]").click()
    elif pressed == "date":
        page.locator(".admindatefilter input[type=submit]").first.click()
    else:
        page.locator("input[name=created_at__range__gte]").first.press("Enter")
    page.wait_for_url("**q=order**")
    for name, text in {"queue": "default", **TYPED}.items():
        assert f"{name}={text}" in page.url
    for name, text in TYPED.items():
        assert page.locator(f"input[name={name}]:visible").first.input_value() == text


def test_an_emptied_field_is_left_out(log_in, transactional_db):
    make_run(key="order-7")
    page = log_in()
    page.goto(f"{RUNS}?q=order&created_at__range__gte=2026-01-01")
    page.locator("input[name=created_at__range__gte]:visible").fill("")
    page.locator("#changelist-search input[type=submit]").click()
    page.wait_for_url(lambda address: "created_at" not in address)
    assert "q=order" in page.url
