"""The pages of runs with waits, events, parents and children: light, dark and on a phone; discarding an event."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from django_steps.core import clock
from django_steps.ledger.moves import listed
from django_steps.models import WorkflowEvent, WorkflowRun
from tests.admin.conftest import NEVER, add_event, add_step, add_wait, error_of, make_child, make_run

from .test_looks import RUNS, check_width


@pytest.fixture
def an_import(transactional_db):
    """A nightly import that maps over child runs and waits for an approval; the addresses of its pages."""
    now = timezone.now()
    began = now - timedelta(minutes=9)
    nightly = make_run("succeeded", workflow="nightly", key="nightly/2026-03-01", created_at=began, started_at=began)
    due = clock.to_microseconds(now + timedelta(days=2))
    parent = make_run(
        "waiting",
        workflow="import_catalog",
        key="catalog/2026-03-01",
        input={"supplier": "acme", "pages": 60},
        details_text=json.dumps(
            {
                "stage": "waiting for an approval",
                "pages": {"read": 60, "imported": 57},
                "from": "https://acme.example/" + "x" * 400,
            }
        ),
        created_at=began,
        started_at=began,
        parent=nightly,
        parent_step="catalog",
        parent_item="",
        waits_for=listed(["approval", "#page"]),
        waits_until_us=due,
        available_at_us=due,
    )
    at = {"started_at": began, "finished_at": began + timedelta(seconds=40)}
    add_step(parent, "list_pages", result={"pages": 60}, **at)
    waits = {"started_at": began + timedelta(seconds=40), "finished_at": began + timedelta(minutes=2)}
    add_wait(parent, "file", "succeeded", context={"event": {"name": "file", "by": "sftp"}}, **waits)
    later = {"started_at": began + timedelta(minutes=2)}
    receipt = make_child(parent, workflow="send_receipt", created_at=began, **at)
    said = json.dumps({"child": receipt.pk.hex})
    ended = {"finished_at": began + timedelta(minutes=3)}
    add_step(parent, "receipt", kind="invoke", context_text=said, result={"sent": True}, **later, **ended)
    add_step(parent, "page", "waiting", kind="map", context_text='{"children": 60}', finished_at=None, **later)
    add_wait(parent, "approval", until=timedelta(0), wakes_at_us=due, **later)
    approval = json.dumps({"events": ["approval"], "deadline_us": due})
    WorkflowRun.objects.get(pk=parent.pk).steps.filter(name="approval").update(context_text=approval)
    for number in range(60):
        status = {7: "failed", 30: "running", 31: "pending"}.get(number, "succeeded")
        error = error_of(ConnectionError("Connection reset by peer"), "fetch_from_api") if status == "failed" else None
        make_child(
            parent,
            status,
            step="page",
            item=f"page#{number}",
            workflow="import_page",
            created_at=began,
            started_at=None if status == "pending" else began,
            finished_at=None if status in ("running", "pending") else began + timedelta(seconds=5),
            current_step="save" if status == "running" else "",
            error_text=error,
            available_at_us=NEVER if status == "running" else 0,
        )
    add_event(
        parent,
        "file",
        {"path": "/incoming/catalog.csv", "size": 48213},
        by="sftp",
        event_id="file-2026-03-01",
        sent_at=began + timedelta(minutes=1),
        consumed_by="file",
        consumed_at=began + timedelta(minutes=2),
    )
    wrong = add_event(parent, "aproval", {"ok": True}, by="ada@example.com", sent_at=now)
    return {
        "list": f"{RUNS}?parent=none",
        "waiting": f"{RUNS}?waits_for=event:approval",
        "children": f"{RUNS}?parent={parent.pk}",
        "parent": f"{RUNS}{parent.pk}/change/",
        "child": f"{RUNS}{parent.children.filter(status='failed').get().pk}/change/",
        "discard": f"{RUNS}{parent.pk}/events/{wrong.pk}/discard/",
        "delete": f"{RUNS}{receipt.pk}/delete/",
        "overview": f"{RUNS}overview/",
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_fit_a_window_and_a_phone(log_in, an_import, tmp_path, theme):
    directory = Path(os.environ.get("SCREENSHOTS_OF_FAMILY") or tmp_path)
    wide, narrow = log_in(color_scheme=theme), log_in(width=390, height=844, color_scheme=theme)
    for name, address in an_import.items():
        for page in (wide, narrow):
            page.goto(address)
            check_width(page, name)
            width = page.viewport_size["width"]
            page.screenshot(path=directory / f"{name}-{theme}-{width}.png", full_page=True)


def test_long_names_make_no_page_wider(log_in, transactional_db):
    name = "x" * 255
    said = json.dumps({name: name, "stage": name})
    run = make_run(
        "waiting", workflow=name, key=name, waits_for=listed([name]), available_at_us=NEVER, details_text=said
    )
    add_wait(run, name)
    add_event(run, name, name, by=name, event_id=name)
    child = make_child(run, "failed", step=name, workflow=name, error_text=error_of(ValueError(name), name))
    for page in (log_in(), log_in(width=390, height=844)):
        for address in ("", f"{run.pk}/change/", f"{child.pk}/change/", f"{child.pk}/delete/", "overview/"):
            page.goto(RUNS + address)
            check_width(page, address)


def test_an_event_that_no_wait_takes_is_discarded(log_in, an_import):
    page = log_in()
    page.goto(an_import["parent"])
    events = page.locator(".steps-events")
    expect(events.locator("summary").first).to_have_text("2 events, 1 not taken")
    events.get_by_role("link", name="Discard").click()
    page.get_by_role("button", name="Discard the event").click()
    expect(page.locator(".messagelist")).to_contain_text("Discarded event “aproval”.")
    expect(page.locator(".steps-events summary").first).to_have_text("2 events")
    assert WorkflowEvent.objects.get(name="aproval").is_discarded


def test_the_failed_children_are_two_clicks_away(log_in, an_import):
    page = log_in()
    page.goto(an_import["parent"])
    page.locator(".steps-counts").get_by_role("link", name="failed 1").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)
    page.locator("#result_list tbody th a").click()
    expect(page.locator(".steps-error")).to_contain_text("Connection reset by peer")
    page.get_by_role("link", name="import_catalog catalog/2026-03-01").click()
    expect(page.locator(".steps-now")).to_contain_text("waits for event “approval” and 2 child runs until")
