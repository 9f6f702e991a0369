"""Failures by kind: counted on the overview, filtered in the list, retried all of a kind at once."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry

from django_steps.admin.actions import bulk
from django_steps.admin.overview import failures
from django_steps.models import WorkflowRun

from .conftest import error_of, failed_run, make_run, url


class Declined(Exception):
    pass


DECLINED = "tests.admin.test_failures.Declined"


def fail_at(step: str, error: BaseException, **columns) -> WorkflowRun:
    """A failed run, with what the engine writes beside the error."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    path = "order/charge" if step.startswith("order#") else step
    text = error_of(error, *([step] if step else []))
    return make_run("failed", error_text=text, error_type=name, failed_step=path, **columns)


@pytest.fixture
def night(db):
    runs = [fail_at(f"order#{number}/charge", Declined("no")) for number in (17, 18, 18)]
    return [*runs, fail_at("", KeyError("x")), fail_at("order#17/charge", Declined("no"), workflow="other")]


def overview(client):
    return client.get(url("overview"))


def first(client):
    return overview(client).context["failures"][0]


def test_kinds_are_counted_on_the_overview_and_lead_to_their_runs(root, night):
    rows = overview(root).context["failures"]
    assert next((row.error, row.step, row.workflow, row.runs) for row in rows) == (
        "Declined",
        "order/charge",
        "three_steps",
        3,
    )
    assert {(row.error, row.step, row.workflow, row.runs) for row in rows[1:]} == {
        ("KeyError", "", "three_steps", 1),
        ("Declined", "order/charge", "other", 1),
    }
    for row in rows:
        assert root.get(row.url).context["cl"].result_count == row.runs


def test_all_runs_of_a_kind_are_retried_in_two_clicks(root, night):
    page = overview(root).content.decode()
    row = first(root)
    assert "Retry all 3" in page and row.retry_url.replace("&", "&amp;") in page
    asked = root.get(row.retry_url)
    text = asked.content.decode()
    assert "3 runs will be retried." in text
    assert "three_steps · Declined · order/charge" in text
    answer = root.post(row.retry_url, dict(asked.context["fields"]), follow=True)
    assert "3 retried (from step “order/charge”)" in answer.content.decode()
    assert answer.redirect_chain == [(url("overview"), 302)]
    pending = set(WorkflowRun.objects.pending().values_list("pk", flat=True))
    assert pending == {run.pk for run in night[:3]}
    logged = LogEntry.objects.filter(object_id__in=[str(run.pk) for run in night[:3]])
    assert logged.count() == 3 and all("Retried" in entry.get_change_message() for entry in logged)


def test_failures_of_the_body_are_a_kind_of_their_own(root, night):
    row = next(row for row in overview(root).context["failures"] if row.error == "KeyError")
    assert "Retry 1 run" in overview(root).content.decode()
    asked = root.get(row.retry_url)
    assert asked.context["fields"] and "1 run will be retried." in asked.content.decode()
    root.post(row.retry_url, dict(asked.context["fields"]))
    assert list(WorkflowRun.objects.pending()) == [night[3]]


def test_only_what_the_page_asked_about_is_retried(root, night):
    row = first(root)
    asked = root.get(row.retry_url)
    later = fail_at("order#9/charge", Declined("no"))
    root.post(row.retry_url, dict(asked.context["fields"]))
    later.refresh_from_db()
    assert later.status == "failed"


def test_many_are_retried_in_portions(root, night, monkeypatch):
    monkeypatch.setattr(bulk, "AT_MOST", 2)
    assert "Retry the newest 2" in overview(root).content.decode()
    asked = root.get(first(root).retry_url)
    assert "2 runs will be retried." in asked.content.decode()
    root.post(first(root).retry_url, dict(asked.context["fields"]))
    assert WorkflowRun.objects.pending().count() == 2


def test_counts_stop_at_the_newest_failures(root, night, monkeypatch):
    monkeypatch.setattr(failures, "COUNTED", 2)
    page = overview(root).content.decode()
    assert "Of the 2 runs that failed last." in page
    assert "Retry the newest 1,000" in page or "Retry the newest 1000" in page


def test_kinds_beyond_the_first_are_summed_up(root, night, monkeypatch):
    monkeypatch.setattr(failures, "_SHOWN", 1)
    assert "2 more kinds, with fewer runs each (2 in all)." in overview(root).content.decode()


def test_no_failure_is_said(root, db):
    make_run("succeeded")
    assert "No run has failed." in overview(root).content.decode()
    assert "By failed step" not in root.get(url("changelist")).content.decode()


def test_retry_of_a_kind_takes_the_permission(staff, night):
    viewer = staff("view")
    row = first(viewer)
    assert (row.runs, row.retry_url) == (3, "")
    assert "Retry all 3" not in overview(viewer).content.decode()
    kind = f"workflow=three_steps&error_type={DECLINED}&failed_step=order/charge"
    assert viewer.get(f"{url('retry_failures')}?{kind}").status_code == 403
    assert viewer.post(f"{url('retry_failures')}?{kind}", {"runs": str(night[0].pk)}).status_code == 403
    assert staff("view", "retry").get(f"{url('retry_failures')}?{kind}").status_code == 200
    assert WorkflowRun.objects.pending().count() == 0


@pytest.mark.parametrize(
    "asked",
    ["", "?workflow=three_steps", "?workflow=a%00b&error_type=x&failed_step=y", "?workflow=&error_type=&failed_step="],
)
def test_address_without_a_kind_is_no_page(root, db, asked):
    assert root.get(f"{url('retry_failures')}{asked}").status_code == 404


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ("error_type=Declined", [0, 1, 2, 4]),
        (f"error_type={DECLINED}", [0, 1, 2, 4]),
        ("error_type=declined", []),
        ("error_type=KeyError", [3]),
        ("failed_step=order/charge", [0, 1, 2, 4]),
        ("failed_step=order%2318/charge", [1, 2]),
        ("failed_step=order%231/charge", []),
        ("failed_step=%23", [3]),
        ("failed_step=order/charge&error_type=Declined&workflow=other", [4]),
        ("error_type=", [0, 1, 2, 3, 4]),
    ],
)
def test_list_is_filtered_by_error_and_step(root, night, asked, numbers):
    answer = root.get(f"{url('changelist')}?status__exact=failed&{asked}")
    found = {run.pk for run in answer.context["cl"].result_list}
    assert found == {night[number].pk for number in numbers}


def test_filters_offer_what_failed(root, night):
    page = root.get(url("changelist"))
    specs = {
        spec.parameter_name: [label for _, label in spec.lookup_choices]
        for spec in page.context["cl"].filter_specs
        if hasattr(spec, "parameter_name")
    }
    assert specs["error_type"] == ["Declined", "KeyError"]
    assert specs["failed_step"] == ["order/charge", "none"]


def test_classes_of_the_same_name_are_told_apart(root, night):
    make_run("failed", error_text="{}", error_type="bank.Declined", failed_step="charge")
    rows = overview(root).context["failures"]
    assert {row.error for row in rows} == {DECLINED, "bank.Declined", "KeyError"}


@pytest.mark.parametrize(
    "asked", ["error_type=%00", "failed_step=%00", "failed_step=%23%00", "failed_step=a%23%27%25_\\"]
)
def test_anything_asked_for_is_answered(root, night, asked):
    assert root.get(f"{url('changelist')}?{asked}").status_code in (200, 302)


def test_row_names_the_step_and_leads_to_its_kind(root, night):
    page = root.get(url("changelist")).content.decode()
    assert "in step" in page and 'failed_step=order%2Fcharge">order/charge</a>' in page


def test_names_are_escaped(root, db):
    failed_run("<b>x</b>", workflow="<i>", error_type="<script>alert(1)</script>", failed_step="<b>x</b>")
    for page in (overview(root), root.get(url("changelist")), root.get(first(root).retry_url)):
        text = page.content.decode()
        assert "<script>alert(1)" not in text and "<b>x</b>" not in text and "<i>" not in text
