"""Pruning where others point at runs: what Django would do happens, and what can't go holds up nothing else."""

from __future__ import annotations

import pytest
from django.core.management.base import CommandError
from django.db import connection, models
from django.db.models.signals import post_delete, pre_delete

from django_steps.ledger import database, pruning
from django_steps.models import StepRecord, WorkflowRun
from django_steps.models.deleting import Pruner, concerns_others
from django_steps.worker.maintenance import Maintenance
from tests.app.workflows import three_steps, tiny
from tests.commands.conftest import run_command  # noqa: F401
from tests.staging import model_that_points_at

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def runs(work, pass_time):
    """Five runs that ended an hour ago."""
    found = three_steps.start_many([{}] * 5)
    work()
    pass_time("1h")
    return found


def prune(statuses=()):
    pruner = Pruner()
    now = database.read_clock(connection)
    while pruner.batch(connection, now, statuses):
        pass
    return pruner


def test_where_no_others_are_concerned_two_statements_delete_a_batch(runs, django_assert_max_num_queries):
    assert not concerns_others()
    with django_assert_max_num_queries(20):
        assert prune().deleted == 5
    assert not StepRecord.objects.exists()


def test_rows_that_cascade_go_along(runs):
    with model_that_points_at("django_steps.WorkflowRun", "Cascading", models.CASCADE) as model:
        model.objects.create(target=runs[1])
        model.objects.create(target=None)
        pruner = prune()
        assert (pruner.deleted, pruner.kept) == (5, 0)
        assert list(model.objects.values_list("target", flat=True)) == [None]


def test_references_that_may_be_empty_are_emptied(runs):
    with model_that_points_at("django_steps.WorkflowRun", "Nulling", models.SET_NULL) as model:
        model.objects.create(target=runs[1])
        assert prune().deleted == 5
        assert model.objects.get().target is None


@pytest.mark.parametrize("on_delete", [models.PROTECT, models.RESTRICT, models.DO_NOTHING], ids=lambda f: f.__name__)
def test_a_run_that_cannot_go_holds_up_no_other(runs, on_delete):
    with model_that_points_at("django_steps.WorkflowRun", "Keeping", on_delete) as model:
        model.objects.create(target=runs[1])
        pruner = prune()
        assert (pruner.deleted, pruner.kept) == (4, 1)
        assert "Keeping.target" in pruner.reason or "IntegrityError" in pruner.reason
        assert WorkflowRun.objects.get() == runs[1]
        assert StepRecord.objects.count() == 3


def test_a_whole_batch_that_cannot_go_holds_up_nothing_behind_it(runs, monkeypatch):
    monkeypatch.setattr(pruning, "BATCH", 2)
    with model_that_points_at("django_steps.WorkflowRun", "Keeping", models.PROTECT) as model:
        model.objects.bulk_create(model(target=run) for run in runs[:4])
        pruner = prune()
        assert (pruner.deleted, pruner.kept) == (1, 4)
        assert set(WorkflowRun.objects.all()) == set(runs[:4])


def test_references_to_steps_count_as_well(runs):
    with model_that_points_at("django_steps.StepRecord", "Stepping", models.PROTECT) as model:
        model.objects.create(target=runs[1].steps.first())
        pruner = prune()
        assert (pruner.deleted, pruner.kept) == (4, 1)


def test_a_foreign_key_that_no_model_knows_holds_up_no_other(runs):
    with model_that_points_at("django_steps.WorkflowRun", "Hidden", models.CASCADE) as model:
        model.objects.create(target=runs[1])
        table = model._meta.db_table
        from django.apps import apps

        apps.all_models["app"].pop("hidden")
        apps.clear_cache()
        try:
            assert not concerns_others()
            pruner = prune()
        finally:
            apps.all_models["app"]["hidden"] = model
            apps.clear_cache()
        assert (pruner.deleted, pruner.kept) == (4, 1)
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {table}")


def test_receivers_of_delete_signals_are_called(runs):
    seen = []

    def receive(sender, instance, signal, **_):
        seen.append((sender.__name__, signal is pre_delete))

    for signal in (pre_delete, post_delete):
        signal.connect(receive, sender=WorkflowRun)
    try:
        assert prune().deleted == 5
    finally:
        for signal in (pre_delete, post_delete):
            signal.disconnect(receive, sender=WorkflowRun)
    assert sorted(seen) == [("WorkflowRun", False)] * 5 + [("WorkflowRun", True)] * 5


def test_a_receiver_that_raises_keeps_its_run(runs):
    def receive(sender, instance, **_):
        if instance == runs[1]:
            raise RuntimeError("not this one")

    pre_delete.connect(receive, sender=WorkflowRun)
    try:
        pruner = prune()
    finally:
        pre_delete.disconnect(receive, sender=WorkflowRun)
    assert (pruner.deleted, pruner.kept, pruner.reason) == (4, 1, "RuntimeError: not this one")


def test_what_points_at_a_pruned_run_as_its_restart_forgets_it(runs):
    new = runs[0].restart()
    with model_that_points_at("django_steps.WorkflowRun", "Cascading", models.CASCADE):
        prune()
    new.refresh_from_db()
    assert new.restart_of_id is None


def test_maintenance_says_once_what_it_cannot_delete(runs, settings, caplog):
    settings.DJANGO_STEPS = {"RETENTION": "1s"}
    maintenance = Maintenance("default")
    with model_that_points_at("django_steps.WorkflowRun", "Keeping", models.PROTECT) as model:
        model.objects.create(target=runs[1])
        for _ in range(3):
            maintenance._do()
        assert WorkflowRun.objects.get() == runs[1]
    (line,) = [record.getMessage() for record in caplog.records if "RETENTION" in record.getMessage()]
    assert line.startswith("1 runs are older than RETENTION and can't be deleted. The first: Cannot delete")


def test_the_command_says_what_it_cannot_delete(runs, run_command):  # noqa: F811
    arguments = ["pruneworkflows", "--older-than", "0s", "--noinput"]
    with model_that_points_at("django_steps.WorkflowRun", "Keeping", models.PROTECT) as model:
        model.objects.create(target=runs[1])
        printed = run_command(*arguments)
        assert printed.out.startswith("4 runs that ended before ")
        assert printed.err.startswith("1 run can't be deleted: Cannot delete some instances")
        with pytest.raises(CommandError, match="1 run can't be deleted"):
            run_command(*arguments)


def test_a_run_that_is_retried_meanwhile_stays(runs, monkeypatch):
    tiny.start({})
    WorkflowRun.objects.filter(pk=runs[1].pk).update(status="failed")
    oldest = pruning.oldest

    def retried_meanwhile(*given, **options):
        places = oldest(*given, **options)
        WorkflowRun.objects.filter(pk=runs[1].pk).update(status="pending", phase=WorkflowRun.Phase.READY)
        return places

    monkeypatch.setattr(pruning, "oldest", retried_meanwhile)
    with model_that_points_at("django_steps.WorkflowRun", "Cascading", models.CASCADE):
        assert prune().deleted == 4
    assert WorkflowRun.objects.filter(pk=runs[1].pk).exists()
