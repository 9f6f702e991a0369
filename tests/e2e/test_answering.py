"""Answering for a run in a browser: by its address, without a session, and in the admin."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.test import override_settings

from django_steps.models import WorkflowRun
from tests.callbacks.conftest import Decision, Everything, sent, waiting

from .test_looks import RUNS, check_width


@pytest.fixture
def address_of(live_server, transactional_db):
    """The address of an event at the server of the test."""
    with override_settings(DJANGO_STEPS={"BASE_URL": live_server.url}):
        yield lambda run, *arguments, **options: run.event_url(*arguments, **options)


@pytest.fixture
def pictures(tmp_path):
    return Path(os.environ.get("CALLBACK_SCREENSHOTS") or tmp_path)


def order(type_=None):
    return waiting(type_=type_, workflow="process_order", key="order-1007")


def check_policy(response):
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_signed_answer_is_confirmed_on_a_phone(open_page, address_of, pictures, theme):
    run = order()
    page = open_page(width=390, height=844, color_scheme=theme)
    check_policy(page.goto(address_of(run, "approval", {"ok": True, "note": "As agreed by phone", "amount": 1250})))
    check_width(page, "the question")
    page.screenshot(path=pictures / f"signed-{theme}.png")
    assert page.evaluate("document.scripts.length") == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    assert sent(run) == []
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Thank you").wait_for()
    page.screenshot(path=pictures / f"sent-{theme}.png")
    assert sent(run) == [("approval", {"ok": True, "note": "As agreed by phone", "amount": 1250})]
    page.goto(address_of(run, "approval", {"ok": False}))
    page.get_by_role("heading", name="Already answered").wait_for()
    check_width(page, "the second one")
    assert len(sent(run)) == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_form_is_filled_in_on_a_phone(open_page, address_of, pictures, theme):
    run = order(Everything)
    page = open_page(width=390, height=844, color_scheme=theme)
    page.goto(address_of(run, "approval"))
    check_width(page, "the form")
    page.screenshot(path=pictures / f"form-{theme}.png", full_page=True)
    page.get_by_label("text").fill("mug")
    page.get_by_label("whole").fill("2")
    page.get_by_label("Yes").check()
    page.get_by_label("price").fill("1.50")
    page.get_by_label("day").fill("2026-03-01")
    page.get_by_label("color").select_option("BLUE")
    page.get_by_label("size").select_option("S")
    page.get_by_label("items").fill("[1,")
    page.get_by_role("button").click()
    page.get_by_text("Enter a valid JSON.").wait_for()
    check_width(page, "the form with a complaint")
    page.screenshot(path=pictures / f"form-again-{theme}.png", full_page=True)
    page.get_by_text("What is expected").click()
    page.get_by_label("items").fill("[1, 2]")
    page.get_by_role("button").click()
    page.get_by_role("heading", name="Thank you").wait_for()
    ((_, payload),) = sent(run)
    assert (payload["sure"], payload["size"], payload["items"]) == (True, "S", [1, 2])


def test_yes_or_no_has_to_be_said_before_anything_is_sent(open_page, address_of):
    run = order(Decision)
    page = open_page(width=390)
    page.goto(address_of(run, "approval"))
    page.get_by_role("button").click()
    assert page.get_by_role("heading", name="Please answer").is_visible()
    assert sent(run) == []
    page.get_by_label("No", exact=True).check()
    page.get_by_role("button").click()
    page.get_by_role("heading", name="Thank you").wait_for()
    assert sent(run) == [("approval", {"ok": False})]


def test_long_names_make_the_page_no_wider(open_page, address_of):
    run = waiting("x" * 255, workflow="w" * 255, key="k" * 255)
    page = open_page(width=390, height=844)
    page.goto(address_of(run, "x" * 255, {"y" * 200: "z" * 300}))
    check_width(page, "long names")


def test_address_that_is_over_or_wrong_says_so(open_page, address_of, pictures, live_server):
    run = order()
    url = address_of(run, "approval")
    WorkflowRun.objects.filter(pk=run.pk).update(status="canceled", phase=WorkflowRun.Phase.ENDED)
    page = open_page(width=390, height=844)
    for number, (address, text) in enumerate(
        ((url, "This is over"), (f"{live_server.url}/workflows/events/cut-off/", "not valid"))
    ):
        assert page.goto(address).status == (410, 403)[number]
        page.get_by_role("heading", name=text).wait_for()
        assert page.get_by_role("button").count() == 0
        check_width(page, text)
        page.screenshot(path=pictures / f"over-{number}.png")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_operator_approves_in_the_admin(log_in, pictures, theme, transactional_db):
    run = order(Decision)
    for page in (log_in(color_scheme=theme), log_in(width=390, height=844, color_scheme=theme)):
        width = page.viewport_size["width"]
        page.goto(f"{RUNS}{run.pk}/change/")
        check_width(page, "the run")
        page.screenshot(path=pictures / f"admin-run-{width}-{theme}.png")
        check_policy(page.goto(f"{RUNS}{run.pk}/send-event/"))
        check_width(page, "the choice")
        page.screenshot(path=pictures / f"admin-choice-{width}-{theme}.png")
        page.get_by_role("link", name="approval", exact=True).click()
        page.get_by_role("button", name="Send the event").click()
        page.get_by_text("This field is required.").wait_for()
        check_width(page, "the form")
        page.screenshot(path=pictures / f"admin-form-{width}-{theme}.png")
        page.get_by_label("Yes").check()
        page.get_by_label("note").fill("fine")
        page.get_by_role("button", name="Send the event").click()
        page.get_by_text("Sent “approval”.").wait_for()
    assert sent(run) == [("approval", {"ok": True, "note": "fine"})] * 2
