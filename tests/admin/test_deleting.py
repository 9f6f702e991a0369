"""Deleting where rows of other apps point at runs: they are named, their permissions asked for, and PROTECT is an answer."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.admin.models import DELETION, LogEntry
from django.db import connection, models

from django_steps.models import WorkflowRun
from tests.staging import model_that_points_at

from .conftest import add_step, make_run, url
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
