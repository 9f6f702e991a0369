"""The page of a run says which of its records its body does not come to any more."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command

from django_steps.ledger import contexts

from .conftest import add_step, make_run, url

MARK = "recorded by an earlier version of the body"


@pytest.fixture
def changed(db):
    run = make_run(status="succeeded")
    add_step(run, "pack")
    add_step(run, "stock", context_text=contexts.write({contexts.UNREACHED: True}))
    return run


def test_table_timeline_and_head_say_so(root, changed):
    page = root.get(url("change", changed.pk)).content.decode()
    assert "The body has changed since this run began: it does not come to 1 of its records any more." in page
    assert page.count(f'<span class="steps-outdated">{MARK}</span>') == 1
    assert f"stock, succeeded, 0 s, {MARK}" in page or f", {MARK}" in page


def test_run_whose_body_comes_to_everything_has_no_mark(root, db):
    run = make_run(status="succeeded")
    add_step(run, "pack")
    page = root.get(url("change", run.pk)).content.decode()
    assert "steps-outdated" not in page


def test_command_says_so(changed):
    out = io.StringIO()
    call_command("showworkflows", str(changed.pk), stdout=out)
    (line,) = [line for line in out.getvalue().splitlines() if MARK in line]
    assert line.strip().startswith("stock")


def test_patch_is_shown_as_what_it_is(root, db):
    run = make_run(status="succeeded")
    add_step(run, "weigh first", kind="patch", output_text="false")
    page = root.get(url("change", run.pk)).content.decode()
    assert "weigh first" in page
    assert ">patch<" in page
