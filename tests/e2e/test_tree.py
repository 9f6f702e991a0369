"""Branches and maps on the page of a run: folded, paged and retried in a browser, while real workers execute them."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from django_steps.models import WorkflowRun
from tests.admin.conftest import add_step, make_run, run_of_orders
from tests.app import effects
from tests.app.models import Person
from tests.app.workflows import parcels
from tests.staging import eventually

from .test_looks import check_width
from .test_operator import address, status_of, tab_to


@pytest.fixture
def worker(start_worker):
    return start_worker("--poll-interval", "0.1")


def row(page, name):
    """The row of a step, branch or group, by its name in the branch that it is in."""
    return page.locator(f"xpath=//tbody/tr[th[normalize-space(text())='{name}']]")


def fold(page, name):
    """What is in it: the row below."""
    return row(page, name).locator("xpath=following-sibling::tr[1]").locator("> td > .steps-fold")


def test_step_in_a_branch_is_retried_from(log_in, worker):
    Person.objects.create(name="b")
    run = parcels.start({"items": ["a", "b", "c"]})
    eventually(lambda: WorkflowRun.objects.get().status == "failed")
    Person.objects.all().delete()
    page = log_in()
    page.goto(address(run))
    expect(page.get_by_role("heading", name="Step “parcel#b/send” failed")).to_be_visible()
    expect(row(page, "send").first).to_contain_text("no answer for b")  # unfolded, before all others
    expect(fold(page, "parcel#a").locator("table")).to_be_hidden()
    fold(page, "parcel#a").locator("summary").first.click()
    page.get_by_role("link", name="Retry from here (parcel#a/send)").click()
    expect(page.locator(".steps-ask")).to_contain_text("So is the 1 step beside it that failed.")
    page.get_by_role("button", name="Retry from step “parcel#a/send”").click()
    expect(status_of(page)).to_have_text("succeeded")
    assert [effects.count(f"{what} {item}") for what in ("pack", "send") for item in "abc"] == [1, 1, 1, 2, 2, 1]
    expect(fold(page, "parcel")).to_contain_text("3 succeeded")


def test_page_follows_a_map_and_keeps_what_is_folded(log_in, worker):
    run = parcels.start({"items": ["a", "slow"]})
    eventually(lambda: run.steps.filter(name="parcel#slow/rest").exists())
    page = log_in()
    page.goto(address(run))
    expect(fold(page, "parcel")).to_contain_text("1 succeeded, 1 waiting of 2 that began")
    unfolded, folded = fold(page, "parcel#a"), fold(page, "parcel#slow")
    unfolded.locator("summary").first.click()
    folded.locator("summary").first.click()
    expect(status_of(page)).to_have_text("succeeded")
    expect(unfolded.locator("table")).to_be_visible()
    expect(folded.locator("table")).to_be_hidden()
    expect(row(page, "parcel#slow").locator(".steps-status")).to_have_text("succeeded")
    expect(fold(page, "parcel")).to_contain_text("2 succeeded")


def test_folds_work_from_the_keyboard(log_in, transactional_db):
    run = run_of_orders(orders=9)
    page = log_in()
    page.goto(address(run))
    tab_to(page, ".steps-line > summary")
    page.keyboard.press("Enter")
    expect(page.locator(".steps-line svg")).to_be_visible()
    tab_to(page, ".steps-fold > summary")
    expect(row(page, "order#3")).to_be_visible()
    page.keyboard.press("Enter")
    expect(row(page, "order#3")).to_be_hidden()


def test_members_of_a_large_map_are_paged_and_the_timeline_leads_to_them(log_in, transactional_db):
    run = run_of_orders(orders=120)
    page = log_in()
    page.goto(address(run))
    links = fold(page, "order").locator("> nav")
    links.get_by_role("link", name="next").click()
    expect(links).to_contain_text(re.compile("51.100 of 120"))
    expect(row(page, "order#50")).to_be_visible()
    page.locator(".steps-line > summary").click()
    page.locator(".steps-line .steps-row", has_text="order#3").first.locator(".steps-track").click()
    expect(fold(page, "order#3").locator("table")).to_be_visible()
    expect(links).to_contain_text(re.compile("^ *1.50 of 120"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tree_fits_a_window_and_a_phone(log_in, transactional_db, theme):
    large = run_of_orders()
    add_step(large, "user", group="user#+")
    add_step(large, "invoice#/total", inside=[("invoice#", "user#+")])
    deep = make_run()
    name = "x" * 30
    inside = [
        ("/".join([f"{name}#{name}"] * depth), "/".join([f"{name}#{name}"] * (depth - 1) + [name]))
        for depth in (1, 2, 3)
    ]
    add_step(deep, f"{inside[-1][0]}/{name}", "failed", inside=inside)
    for page in (log_in(color_scheme=theme), log_in(width=390, height=844, color_scheme=theme)):
        for run in (large, deep):
            page.goto(address(run))
            page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
            check_width(page, run.pk)
