"""Restarting a run so that pressing the button twice starts one new run.

The new run gets a key made of the run before it, and the database keeps keys unique: of two presses one starts it, and
the other finds it. Once that run has ended, the next press starts another.
"""

from __future__ import annotations

from django.db import IntegrityError, router, transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _

from ...models import WorkflowRun
from ...presentation import own_keys
from ..base import RunAdminBase


def active(run: WorkflowRun) -> WorkflowRun | None:
    """The restart of this run that has not ended yet."""
    last = _last_restart(run)
    return last if last is not None and not last.is_finished else None


def restart(run: WorkflowRun) -> tuple[WorkflowRun, bool]:
    """The restart of this run, and whether this call started it. Raises what `run.restart()` raises."""
    last = _last_restart(run)
    if last is not None and not last.is_finished:
        return last, False
    key = own_keys.of_restart((last or run).pk)
    runs = WorkflowRun.objects.using(router.db_for_write(WorkflowRun))
    try:
        with transaction.atomic(using=runs.db):
            new = run.restart()
            runs.filter(pk=new.pk).update(key=key)
    except IntegrityError:
        return runs.get(workflow=run.workflow, key=key), False
    return new, True


def log(admin: RunAdminBase, request: HttpRequest, run: WorkflowRun, new: WorkflowRun) -> None:
    """Name each of both runs in the admin's log of the other."""
    admin.log_addition(request, new, _("Started as a restart of %(id)s.") % {"id": run.pk})
    admin.log_change(request, run, _("Restarted as %(id)s.") % {"id": new.pk})


def _last_restart(run: WorkflowRun) -> WorkflowRun | None:
    return WorkflowRun.objects.filter(restart_of=run).order_by("-pk").first()
