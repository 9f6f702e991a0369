"""The page of a run with branches, maps and gathers: a tree that folds, however large."""

from __future__ import annotations

import re
import time
from datetime import timedelta

import pytest

from django_steps.core.ids import random_token
from django_steps.ledger.order import Level, context_of
from django_steps.models import StepRecord

from .conftest import START, add_step, attempt_log, make_run, run_of_orders, url


@pytest.fixture
def show(root):
    """The context of the page of a run: `show(run, **parameters)`."""
    return lambda run, **parameters: root.get(url("change", run.pk), parameters).context


def labels(rows):
    return [row.name for row in rows]


def fold_of(rows, name):
    return next(row for row in rows if row.name == name).fold


def many_items(run, count, *, failed=(), steps=0):
    """A map over so many items: steps, or branches with so many steps each; unfinished ones too."""

    def record(name, kind, status, context, branch=""):
        position = len(records)
        records.append(
            StepRecord(
                run=run,
                name=name,
                kind=kind,
                branch=branch,
                position=position,
                status=status,
                output_text="null",
                attempt_log=attempt_log(ValueError("again")) if position % 10 == 0 else "",
                context_text=context,
                started_at=START + timedelta(seconds=position),
                finished_at=START + timedelta(seconds=position + 1),
                claim_token=1,
                write_id=random_token(),
            )
        )

    records = []
    for number in range(count):
        path, status = f"item#{number}", "failed" if number in failed else "succeeded"
        for step in range(steps):
            record(f"{path}/s{step}", "step", status, context_of([Level(path, "item", -1)], ""), path)
        record(path, "branch" if steps else "step", status, context_of([], "item"))
    StepRecord.objects.bulk_create(records)


def test_a_map_is_a_row_with_counts_in_which_what_failed_and_is_unfinished_comes_first(show):
    rows = show(run_of_orders())["steps"]
    assert labels(rows) == ["fetch", "order"]
    fold = rows[1].fold
    assert fold.counts == "12 succeeded, 2 failed, 3 unfinished of 17 that began"
    assert labels(fold.rows)[:6] == ["order#3", "order#8", "order#5", "order#6", "order#7", "order#0"]
    assert fold.is_open and fold.rows[0].fold.is_open and not fold.rows[5].fold.is_open
    assert [(row.name, row.path) for row in fold.rows[0].fold.rows] == [
        ("reserve", "order#3/reserve"),
        ("charge", "order#3/charge"),
    ]


def test_a_live_map_is_running_and_counts_what_is(show):
    rows = show(run_of_orders("running"))["steps"]
    assert ">running<" in rows[1].status
    assert rows[1].fold.counts == "12 succeeded, 2 failed, 3 running of 17 that began"


def test_a_finished_map_counts_what_never_began_and_shows_no_value(root, show):
    run = run_of_orders("succeeded", orders=3)
    decision = {"kind": "branch", "keys": list("01234"), "states": "sssuu"}
    add_step(run, "order", kind="map", result=decision)
    assert show(run)["steps"][1].fold.counts == "3 succeeded, 2 never began of 5"
    assert "sssuu" not in root.get(url("change", run.pk)).content.decode()


def test_a_failed_map_says_so_once_and_has_no_attempts(root):
    run = make_run("failed")
    many_items(run, 2, failed={1})
    error = '{"type": "GroupFailed", "message": "1 of \'item\' failed", "traceback": ""}'
    add_step(run, "item", "failed", kind="map", error_text=error)
    page = root.get(url("change", run.pk)).content.decode()
    assert "<summary>Failed: GroupFailed: 1 of &#x27;item&#x27; failed</summary>" in page


def test_a_gather_is_named_by_its_members_and_a_branch_in_it_folds(show):
    run = make_run()
    add_step(run, "invoice#/total", inside=[("invoice#", "user#+")])
    add_step(run, "user", group="user#+")
    add_step(run, "invoice#", kind="branch", group="user#+", result={"total": 15})
    add_step(run, "nothing#", kind="branch")
    (row, lonely) = show(run)["steps"]
    assert (row.name, row.kind, row.fold.counts) == ("user, invoice#", "gather", "2 succeeded")
    assert labels(row.fold.rows) == ["invoice#", "user"]
    assert labels(row.fold.rows[0].fold.rows) == ["total"]
    assert "15" in row.fold.rows[0].line or "*" in row.fold.rows[0].line
    assert lonely.fold is None


def test_record_of_a_kind_that_a_later_version_has_is_shown_as_a_step(root, show):
    run = make_run()
    add_step(run, "vote", kind="vote", attempts=7)
    (row,) = show(run)["steps"]
    assert (row.kind, row.attempts) == ("vote", "7")


def test_members_are_shown_fifty_at_a_time(root, show):
    run = make_run("failed")
    many_items(run, 120, failed={7})
    fold = fold_of(show(run)["steps"], "item")
    assert (fold.first, fold.last, fold.total, len(fold.rows)) == (1, 50, 120, 50)
    assert [label for label, _url in fold.links] == ["next", "last"]
    next_page = root.get(url("change", run.pk) + fold.links[0][1].partition("#")[0]).context
    fold = fold_of(next_page["steps"], "item")
    assert (fold.first, fold.last, fold.is_open) == (51, 100, True)
    assert [label for label, _url in fold.links] == ["previous", "next"]
    fold = fold_of(show(run, **{"in": "item", "from": 120})["steps"], "item")
    assert (fold.first, fold.last) == (101, 120)
    assert [label for label, _url in fold.links] == ["first", "previous"]


@pytest.mark.parametrize("start", ["0", "-1", "x", "9" * 30, "²", ""])
def test_odd_numbers_show_the_first_or_the_last_members(show, start):
    run = make_run("failed")
    many_items(run, 60)
    fold = fold_of(show(run, **{"in": "item", "from": start})["steps"], "item")
    assert fold.first in (1, 51)


@pytest.mark.any_database
def test_what_is_asked_for_is_shown_wherever_it_is(show):
    run = make_run()
    for number in range(150):
        add_step(run, f"before_{number}")
    many = 200
    for number in range(many):
        path = f"order#{number}"
        add_step(run, f"{path}/charge", inside=[(path, "order")])
        add_step(run, path, kind="branch", group="order")
    assert labels(show(run)["steps"])[0] == "before_0"
    context = show(run, **{"in": "order#170"})
    assert context["page"].number == 2
    fold = fold_of(context["steps"], "order")
    assert (fold.first, fold.is_open) == (151, True)
    assert fold_of(fold.rows, "order#170").is_open and not fold_of(fold.rows, "order#171").is_open
    assert labels(show(run, **{"in": "gone#1"})["steps"])[0] == "before_0"


def test_every_row_of_the_tree_can_be_retried_from(root, show):
    run = run_of_orders(orders=4)
    add_step(run, "user", group="user#+")
    rows = show(run)["steps"]
    order = rows[1]
    assert order.retry_url == url("retry", run.pk) + "?from_step=order"
    assert order.fold.rows[0].retry_url.endswith("?from_step=order%233")
    assert order.fold.rows[0].fold.rows[0].retry_url.endswith("?from_step=order%233%2Freserve")
    assert rows[2].retry_url.endswith("?from_step=user%23%2B")
    assert "(order#3/reserve)" in root.get(url("change", run.pk)).content.decode()


def test_folds_keep_their_ids_while_a_branch_comes_to_its_end(show):
    run = run_of_orders("running", orders=7)
    before = fold_of(fold_of(show(run)["steps"], "order").rows, "order#5").id
    add_step(run, "order#5", kind="branch", group="order")
    assert fold_of(fold_of(show(run)["steps"], "order").rows, "order#5").id == before


# -- The timeline ------------------------------------------------------------------------------------


def test_timeline_has_rows_for_what_is_in_a_small_group_and_a_drawing_of_its_own_for_a_large_one(show):
    run = run_of_orders()
    add_step(run, "report#/pages#a", inside=[("report#", "")], group="report#/pages")
    add_step(run, "report#", kind="branch")
    timeline = show(run)["timeline"]
    assert [(row.label, row.x) for row in timeline.rows] == [
        ("fetch", 2),
        ("order", 2),
        ("report#", 2),
        ("pages", 16),
        ("pages#a", 30),
    ]
    assert timeline.rows[1].title.startswith("order, 12 succeeded, 2 failed, 3 unfinished of 17 that began, ")
    (fold,) = timeline.folds
    assert (fold.name, [row.label for row in fold.drawing.rows][:3]) == ("order", ["order#3", "order#8", "order#5"])
    assert timeline.summary.startswith("45 steps in ")


def test_rows_of_the_timeline_lead_to_the_rows_of_the_table(root):
    run = run_of_orders(orders=4)
    for row in root.get(url("change", run.pk)).context["timeline"].rows:
        query, _hash, anchor = row.href.partition("#")
        assert f'id="{anchor}"' in root.get(url("change", run.pk) + query).content.decode()


def test_step_of_a_branch_that_executes_now_is_drawn_in_it(show):
    run = run_of_orders("running", orders=3, current_step="order#1/charge")
    rows = {row.label: row for row in show(run)["timeline"].rows}
    assert "now" in {bar.kind for bar in rows["order#1"].bars}
    assert "now" in {bar.kind for bar in rows["order"].bars}


# -- Large -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "steps"), [(10_000, 0), (2_000, 3)])
@pytest.mark.parametrize("share", [0, 2])
@pytest.mark.any_database
def test_large_maps_make_a_page_of_bounded_size_in_bounded_time(root, items, steps, share):
    run = make_run("failed", finished_at=START + timedelta(hours=3))
    many_items(run, items, steps=steps, failed={items - 1, *(range(0, items, share) if share else ())})
    began = time.process_time()
    response = root.get(url("change", run.pk))
    assert time.process_time() - began < 10
    page = response.content.decode()
    assert len(page) < 700_000
    assert page.count("<rect") < 4000
    assert page.count("<tr id=") <= 300
    fold = fold_of(response.context["steps"], "item")
    assert fold.total == items and len(fold.rows) == 50
    assert "failed" in fold.rows[0].status
    if not share:
        assert fold.counts == f"{items - 1} succeeded, 1 failed of {items} that began"
        assert fold.rows[0].name == f"item#{items - 1}"
    last = root.get(url("change", run.pk), {"in": "item", "from": items}).context
    assert fold_of(last["steps"], "item").last == items


@pytest.mark.any_database
def test_many_groups_share_the_room_of_a_page_and_each_can_be_asked_for(root, show):
    run = make_run()
    for number in range(20):
        for item in range(40):
            add_step(run, f"m{number}#{item}", group=f"m{number}", position=number * 40 + item)
    page = root.get(url("change", run.pk)).content.decode()
    assert page.count("<tr id=") <= 300
    last = fold_of(show(run)["steps"], "m19")
    assert last.rows == [] and last.links == [("show", last.links[0][1])]
    asked = root.get(url("change", run.pk) + last.links[0][1].partition("#")[0]).context["steps"]
    assert len(fold_of(asked, "m19").rows) == 40


def test_number_of_queries_does_not_depend_on_the_tree(root, django_assert_max_num_queries):
    counts = []
    for orders in (5, 60):
        run = run_of_orders(orders=orders)
        add_step(run, "order", "failed", kind="map", result={"kind": "branch", "keys": [], "states": ""})
        with django_assert_max_num_queries(30) as queries:
            root.get(url("change", run.pk))
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_pages_have_no_inline_style_however_deep_the_tree_is(root):
    run = make_run()
    inside = [("a#" if depth == 0 else "/".join(["a#"] * (depth + 1)), "") for depth in range(7)]
    add_step(run, inside[-1][0] + "/leaf", inside=inside)
    page = root.get(url("change", run.pk)).content.decode().partition('id="content-main"')[2]
    assert "steps-level-4" in page and "steps-level-5" not in page
    assert page.count("<table") == 8
    assert not re.search(r"<style|\sstyle=|\son\w+=", page.partition("</main>")[0])
