"""The admin pages: the list of runs, the page of a run, what can be done to them, starting them, and the overview.

Imported by the admin's autodiscovery only, so that the app works without `django.contrib.admin`. `WorkflowRunAdmin` is
made to be subclassed, and to be registered on any admin site.

Imports go one way:

- `base`: what every page needs of the ModelAdmin; the pages are typed against it
- `html`, `csp`, `fields`: small things that several pages share
- `list`, then `about` (what runs are about) and `actions`, then `sending`, then `run`; beside them `start` and `overview`: the
  pages, a package each
- `schedules`: the pages of the schedules, and `WorkflowScheduleAdmin`
- `site`: `WorkflowRunAdmin`, which puts those of the runs together

Not here: how runs, steps and values read (`presentation`), and what a control does to the rows (`models`, `ledger`).
"""

from __future__ import annotations

from django.contrib import admin

from ..models import WorkflowRun, WorkflowSchedule
from .about import RunsOfThis
from .schedules.site import WorkflowScheduleAdmin
from .site import WorkflowRunAdmin

__all__ = ["RunsOfThis", "WorkflowRunAdmin", "WorkflowScheduleAdmin"]

admin.site.register(WorkflowRun, WorkflowRunAdmin)
admin.site.register(WorkflowSchedule, WorkflowScheduleAdmin)
