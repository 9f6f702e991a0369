"""Log lines on the page of a run, by `showworkflows --logs`, and when a run is deleted."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.core.management.base import CommandError

from django_steps.models import WorkflowLog
from tests.commands.conftest import run_command  # noqa: F401

from .conftest import START, make_run, url

pytestmark = pytest.mark.django_db


def add_lines(run, *texts, step="charge", level=20):
    for text in texts:
        number = WorkflowLog.objects.filter(run=run).count() + 1
        at = START + timedelta(seconds=number)
        WorkflowLog.objects.create(
            run=run, number=number, total=1, at=at, step=step, level=level, logger="shop", text=text
        )


@pytest.fixture
def page(root):
    return lambda run, **parameters: root.get(url("change", run.pk), parameters)


def test_lines_are_on_the_page_with_time_level_and_step(page):
    run = make_run("succeeded")
    add_lines(run, "card <b>7</b>\ncharged", level=30)
    shown = page(run).content.decode()
    assert "1 line" in shown
    assert '<pre title="shop">card &lt;b&gt;7&lt;/b&gt;\ncharged</pre>' in shown
    assert "WARNING" in shown
    assert page(run).context["logs"].is_open


def test_a_run_without_lines_has_no_section(page):
    assert page(make_run("succeeded")).context["logs"] is None


def test_the_last_lines_are_shown_and_all_of_them_on_request(page):
    run = make_run("succeeded")
    add_lines(run, *map(str, range(120)))
    section = page(run).context["logs"]
    assert [line.text for _, line in section.lines] == [str(number) for number in range(20, 120)]
    assert (section.counts, section.is_open, section.all_url) == ("120 lines", False, "?logs=all#steps-logs-title")
    section = page(run, logs="all").context["logs"]
    assert len(section.lines) == 120
    assert (section.is_open, section.all_url) == (True, "")


def test_deleting_a_run_in_the_admin_counts_and_deletes_its_lines(root):
    run = make_run("succeeded")
    add_lines(run, "a", "b")
    assert "Log lines: 2" in root.get(url("delete", run.pk)).content.decode()
    root.post(url("delete", run.pk), {"post": "yes"})
    assert not WorkflowLog.objects.exists()


def test_the_command_prints_them(run_command):  # noqa: F811
    run = make_run("succeeded")
    add_lines(run, "first\n  second\x1b[31m")
    add_lines(run, "of the body", step="", level=40)
    assert run_command("showworkflows", str(run.pk), "--logs").out == (
        "2026-03-01 03:00:01 INFO     charge: first\n"
        "      second\N{REPLACEMENT CHARACTER}[31m\n"
        "2026-03-01 03:00:02 ERROR    of the body\n"
    )
    found = json.loads(run_command("showworkflows", str(run.pk), "--logs", "--json").out)
    assert found[1] == {
        "at": "2026-03-01T03:00:02+00:00",
        "level": "ERROR",
        "step": "",
        "logger": "shop",
        "text": "of the body",
    }


def test_the_command_says_that_there_are_none(run_command):  # noqa: F811
    run = make_run("succeeded")
    assert run_command("showworkflows", str(run.pk), "--logs").out == "No lines are kept of this run.\n"


@pytest.mark.parametrize("options", [[], ["x", "--tree"], ["--check"], ["--status", "failed"]])
def test_the_command_needs_a_run(run_command, options):  # noqa: F811
    with pytest.raises(CommandError, match=r"--logs takes a RUN|--tree takes"):
        run_command("showworkflows", "--logs", *options)
