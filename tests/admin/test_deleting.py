"""Deleting where rows of other apps point at runs: they are named, their permissions asked for, and PROTECT is an answer."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.admin.models import DELETION, LogEntry
from django.db import connection, models

from django_steps.admin.deleting import children_kept
from django_steps.models import WorkflowEvent, WorkflowRun
from tests.staging import model_that_points_at

from .conftest import add_event, add_step, make_child, make_run, url
from .test_bulk import answer, ask, report

pytestmark = pytest.mark.django_db(transaction=True)
RUN = "django_steps.WorkflowRun"


def deletions():
    return LogEntry.objects.filter(action_flag=DELETION).count()


def test_the_page_names_what_goes_along(root):
    run = make_run()
    add_step(run, "a")
    with model_that_points_at(RUN, "Voucher", models.CASCADE) as model:
        model.objects.create(target=run)
        page = root.get(url("delete", run.pk)).content.decode()
        assert "Voucher: Voucher 1" in page and "Vouchers: 1" in page.replace("vouchers", "Vouchers")
        assert "step records: 1" in page.lower()
        root.post(url("delete", run.pk), {"post": "yes"})
        assert not model.objects.exists() and not WorkflowRun.objects.exists()


@pytest.mark.parametrize("on_delete", [models.PROTECT, models.RESTRICT], ids=lambda f: f.__name__)
def test_the_page_says_what_forbids_it(root, on_delete):
    run = make_run()
    with model_that_points_at(RUN, "Voucher", on_delete) as model:
        model.objects.create(target=run)
        page = root.post(url("delete", run.pk), {"post": "yes"})
        assert page.status_code == 200
        assert "Voucher: Voucher 1" in page.content.decode()
        assert WorkflowRun.objects.exists() and not deletions()


def test_what_only_the_database_forbids_is_a_message(root):
    run = make_run()
    with model_that_points_at(RUN, "Voucher", models.DO_NOTHING) as model:
        model.objects.create(target=run)
        page = root.post(url("delete", run.pk), {"post": "yes"}, follow=True)
        assert page.status_code == 200
        assert "The run was not deleted. IntegrityError" in page.content.decode()
        assert WorkflowRun.objects.exists() and not deletions()


@pytest.mark.parametrize("way", ["page", "action"])
def test_what_only_the_database_forbids_is_a_message_within_the_transaction_of_a_request(root, way, monkeypatch):
    run = make_run()
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    with model_that_points_at(RUN, "Voucher", models.DO_NOTHING) as model:
        model.objects.create(target=run)
        if way == "page":
            page = root.post(url("delete", run.pk), {"post": "yes"}, follow=True)
            assert page.status_code == 200
            assert "The run was not deleted. IntegrityError" in page.content.decode()
        else:
            assert report(answer(root, ask(root, "delete", [run]))).startswith("0 deleted, 1 skipped: IntegrityError")
        assert WorkflowRun.objects.exists() and not deletions()
        model.objects.all().delete()
        assert root.post(url("delete", run.pk), {"post": "yes"}, follow=True).status_code == 200
        assert not WorkflowRun.objects.exists() and deletions() == 1


@pytest.fixture
def registered():
    """Register a model with the admin for a while."""
    found = []

    def register(model):
        found.append(model)
        admin.site.register(model)

    yield register
    for model in found:
        admin.site.unregister(model)


def test_rows_of_others_need_their_own_permission(staff, registered):
    run = make_run()
    client = staff("view", "delete")
    with model_that_points_at(RUN, "Voucher", models.CASCADE) as model:
        registered(model)
        model.objects.create(target=run)
        assert "your account doesn" in client.get(url("delete", run.pk)).content.decode()
        assert client.post(url("delete", run.pk), {"post": "yes"}).status_code == 403
        page = ask(client, "delete", [run])
        assert "1 (you may not delete its vouchers) will be skipped" in page.content.decode()
        client.post(
            url("changelist"),
            {"action": "delete", "_selected_action": str(run.pk), "runs": str(run.pk), "select_across": "1"},
        )
        assert model.objects.exists() and WorkflowRun.objects.exists() and not deletions()


def test_a_selection_says_what_goes_along(root):
    runs = [make_run(), make_run()]
    with model_that_points_at(RUN, "Voucher", models.CASCADE) as model:
        model.objects.create(target=runs[0])
        page = ask(root, "delete", runs)
        assert "With them go rows of other models that point at them: 1 vouchers." in page.content.decode()
        assert report(answer(root, page)) == "2 deleted"
        assert not model.objects.exists()
        assert deletions() == 2


def test_of_a_selection_only_what_is_protected_stays(root):
    runs = [make_run(), make_run(), make_run()]
    with model_that_points_at(RUN, "Voucher", models.PROTECT) as model:
        model.objects.create(target=runs[0])
        page = ask(root, "delete", runs)
        assert "2 runs will be deleted" in page.content.decode()
        assert "1 (referred to by vouchers) will be skipped" in page.content.decode()
        assert report(answer(root, page)) == "2 deleted, 1 skipped: referred to by vouchers"
        assert WorkflowRun.objects.get() == runs[0]
        assert deletions() == 2


def test_what_only_the_database_forbids_holds_up_no_other(root):
    runs = [make_run(), make_run(), make_run()]
    with model_that_points_at(RUN, "Voucher", models.DO_NOTHING) as model:
        model.objects.create(target=runs[0])
        said = report(answer(root, ask(root, "delete", runs)))
        assert said.startswith("2 deleted, 1 skipped: IntegrityError")
        assert WorkflowRun.objects.get() == runs[0]
        assert deletions() == 2


def test_references_to_steps_are_named_as_well(root):
    run = make_run()
    step = add_step(run, "a")
    with model_that_points_at("django_steps.StepRecord", "Voucher", models.PROTECT) as model:
        model.objects.create(target=step)
        assert "Voucher: Voucher 1" in root.get(url("delete", run.pk)).content.decode()


def test_steps_are_not_loaded_to_be_counted(root, django_assert_max_num_queries):
    run = make_run()
    for number in range(50):
        add_step(run, f"step {number}")
    with model_that_points_at(RUN, "Voucher", models.CASCADE), django_assert_max_num_queries(15):
        assert "step records: 50" in root.get(url("delete", run.pk)).content.decode().lower()


# -- Children, and events ----------------------------------------------------------------------------


def test_a_child_is_not_deleted_before_its_parent(root):
    parent = make_run(key="order-7")
    child = make_child(parent)
    page = root.post(url("delete", child.pk), {"post": "yes"})
    assert page.status_code == 200
    text = page.content.decode()
    assert (
        "protected related objects" in text
        and f'<a href="{url("change", parent.pk)}">three_steps {parent.pk}</a>' in text
        and "its parent, which has to be deleted first" in text
    )
    assert WorkflowRun.objects.count() == 2 and not deletions()
    root.post(url("delete", parent.pk), {"post": "yes"})
    assert root.get(url("change", child.pk)).status_code == 200
    root.post(url("delete", child.pk), {"post": "yes"})
    assert not WorkflowRun.objects.exists() and deletions() == 2


def test_of_a_selection_children_stay_unless_their_parents_go_along(root):
    parent, other = make_run(), make_run()
    child, lonely = make_child(parent), make_child(other)
    grandchild, its_grandchild = make_child(child), make_child(lonely)
    page = ask(root, "delete", [grandchild, lonely, child, parent, its_grandchild])
    assert "2 (its parent has to be deleted first) will be skipped." in page.content.decode()
    said = report(answer(root, page))
    assert said == "3 deleted, 2 skipped: its parent has to be deleted first"
    assert set(WorkflowRun.objects.values_list("pk", flat=True)) == {other.pk, lonely.pk, its_grandchild.pk}
    assert deletions() == 3


def test_deleting_takes_no_query_more_where_no_run_is_a_child(root, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert children_kept([make_run_in_memory() for _ in range(3)]) == []


def make_run_in_memory():
    return WorkflowRun(workflow="three_steps")


@pytest.mark.parametrize("way", ["page", "action"])
def test_events_go_with_their_run_also_those_that_were_sent_by_key(root, way):
    run = make_run(key="order-7")
    add_event(run, "paid", workflow=run.workflow, key="order-7")
    add_event(None, "early", workflow=run.workflow, key="order-7")
    other = add_event(None, "early", workflow=run.workflow, key="order-8")
    unkeyed = make_run()
    add_event(unkeyed, "paid")
    if way == "page":
        assert "workflow events: 1" in root.get(url("delete", run.pk)).content.decode().lower()
        for one in (run, unkeyed):
            root.post(url("delete", one.pk), {"post": "yes"})
    else:
        assert report(answer(root, ask(root, "delete", [run, unkeyed]))) == "2 deleted"
    assert list(WorkflowEvent.objects.all()) == [other]
