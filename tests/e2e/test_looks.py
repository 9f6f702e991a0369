"""What the pages look like: light, dark, on a phone, and nowhere wider than the window.

With SCREENSHOTS=docs/images the pictures of the documentation are taken anew.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from django_steps import failures
from django_steps.core import clock
from django_steps.models import Worker, WorkflowRun
from tests.admin.conftest import add_step, error_of, failed_run, make_run

RUNS = "/admin/django_steps/workflowrun/"
PICTURES = {"list": 1240, "run": 1240, "overview": 1240}
SCROLLED = """() => [...document.querySelectorAll(".results, .module, .steps-scroll")]
    .filter(part => part.scrollWidth > part.clientWidth + 1).map(part => part.className)"""


class CardDeclined(Exception):
    """The bank said no."""


CardDeclined.__module__ = "shop.payments"


@pytest.fixture
def a_night(transactional_db):
    """Runs of a shop at three in the morning; the addresses of its pages."""
    now = timezone.now()
    worker = Worker.objects.create(
        host="web-1",
        pid=4711,
        concurrency=8,
        lease_us=30_000_000,
        started_at=now,
        last_seen_us=clock.to_microseconds(now),
    )
    for number in reversed(range(240)):
        end = now - timedelta(minutes=6 * number)
        status = "failed" if number % 17 == 5 else "succeeded"
        error = error_of(ConnectionError("Connection reset by peer"), "fetch_from_api") if status == "failed" else None
        begin = end - timedelta(milliseconds=400 + number % 7 * 130)
        run = make_run(
            status,
            workflow="sync_data",
            input={"user_id": 1240 - number},
            created_at=begin,
            started_at=begin,
            finished_at=end,
            error_text=error,
            **kind(error),
        )
        if number % 3 == 0:
            run.set_tags(tenant="acme")
        if number < 50:  # those that the list shows
            add_step(run, "fetch_from_api", status)
    sleeping = make_run(
        "sleeping", workflow="welcome_with_gift", key="welcome-2207", started_at=now - timedelta(minutes=3)
    )
    add_step(sleeping, "reserve_gift")
    add_step(sleeping, "let_them_arrive", kind="sleep")
    WorkflowRun.objects.filter(pk=sleeping.pk).update(available_at_us=clock.to_microseconds(now + timedelta(days=2)))
    running = make_run(
        "running",
        workflow="process_batch",
        key="labels/2026-03-01",
        started_at=now - timedelta(minutes=1),
        current_step="process_batch_37",
        progress_done=37,
        progress_total=100,
        worker=worker,
        available_at_us=clock.to_microseconds(now) + 30_000_000,
    )
    for number in range(37):
        add_step(running, f"process_batch_{number}")
    return failed_order(now)


def kind(error):
    """The columns of a run that has failed so."""
    return dict(zip(("error_type", "failed_step"), failures.columns(error), strict=True))


def failed_order(now):
    begun = now - timedelta(hours=26)
    error = error_of(CardDeclined("The bank declined the card ending in 4242: insufficient funds"), "charge")
    taken = [{"at": clock.to_microseconds(begun + timedelta(seconds=21)), "worker": "web-2:902", "step": "reserve"}]
    run = make_run(
        "failed",
        workflow="process_order",
        key="order-1007",
        input={"order_id": 1007, "items": [{"sku": "mug-1", "quantity": 2}], "email": "ada@example.com"},
        created_at=begun,
        started_at=begun,
        finished_at=now - timedelta(minutes=2),
        recoveries=1,
        error_text=error,
        recovery_log_text=json.dumps(taken),
        **kind(error),
    )
    run.set_tags(tenant="acme", channel="app")
    at = clock.to_microseconds
    add_step(run, "validate", started_at=begun, finished_at=begun + timedelta(seconds=12), result={"total": "15.00"})
    reserved = begun + timedelta(seconds=21)
    add_step(run, "reserve", started_at=reserved, finished_at=reserved + timedelta(seconds=14), result=[2, 2])
    woken = begun + timedelta(hours=24)
    add_step(
        run,
        "wait_for_pickup",
        kind="sleep",
        started_at=reserved + timedelta(seconds=14),
        finished_at=woken,
        wakes_at_us=at(woken),
    )
    attempts = [
        {
            "attempt": number,
            "started_at": at(woken + timedelta(minutes=10 * number)),
            "finished_at": at(woken + timedelta(minutes=10 * number, seconds=9)),
            "error": error,
        }
        for number in (1, 2)
    ]
    end = now - timedelta(minutes=2)
    add_step(
        run,
        "charge",
        "failed",
        attempts=3,
        attempt_log=json.dumps(attempts),
        error_text=error,
        started_at=end - timedelta(seconds=8),
        finished_at=end,
    )
    return {
        "list": RUNS,
        "run": f"{RUNS}{run.pk}/change/",
        "overview": f"{RUNS}overview/",
        "retry": f"{RUNS}{run.pk}/retry/",
        "start": f"{RUNS}start/",
        "form": f"{RUNS}start/?run={run.pk}",
        "app": "/admin/django_steps/",
    }


def check_width(page, name):
    """Nothing is wider than the window, and nothing in the page has to be scrolled sideways."""
    width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0, f"{name} is wider than {page.viewport_size} by {width} pixels"
    assert page.evaluate(SCROLLED) == [], f"{name} has to be scrolled in {page.viewport_size}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_fit_a_window_and_a_phone(log_in, a_night, tmp_path, theme):
    directory = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    wide, narrow = log_in(color_scheme=theme), log_in(width=390, height=844, color_scheme=theme)
    for name, address in a_night.items():
        for page in (wide, narrow):
            page.goto(address)
            check_width(page, name)
        if name not in PICTURES:
            continue
        wide.set_viewport_size({"width": 1280, "height": PICTURES[name]})
        wide.screenshot(path=directory / f"admin-{name}-{theme}.png")
        assert (directory / f"admin-{name}-{theme}.png").stat().st_size > 10_000
    backgrounds = {page.evaluate("getComputedStyle(document.body).backgroundColor") for page in (wide, narrow)}
    assert backgrounds == {"rgb(255, 255, 255)" if theme == "light" else "rgb(18, 18, 18)"}


def test_long_names_make_no_page_wider(log_in, transactional_db):
    name = "x" * 255
    run = failed_run(step=name, error=ValueError(name), workflow=name, version=name, queue=name, key=name)
    make_run("running", workflow=name, current_step=name, started_at=timezone.now())
    make_run("pending", workflow=name, version=name, phase=WorkflowRun.Phase.UNKNOWN)
    for page in (log_in(), log_in(width=390, height=844)):
        for address in ("", f"{run.pk}/change/", f"{run.pk}/retry/", "overview/"):
            page.goto(RUNS + address)
            check_width(page, address)


def test_policy_is_enforced_without_unsafe_inline(log_in, a_night):
    page = log_in()
    for address in a_night.values():
        policy = page.goto(address).headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'" in policy
    assert "'nonce-" in page.goto(RUNS).headers["content-security-policy"]
