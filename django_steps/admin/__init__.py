"""The admin pages: the list of runs, the page of a run, what can be done to them, and the overview.

Imported by the admin's autodiscovery only, so that the app works without `django.contrib.admin`. `WorkflowRunAdmin` is
made to be subclassed, and to be registered on any admin site.
"""

from __future__ import annotations

from django.contrib import admin

from ..models import WorkflowRun
from .runs import WorkflowRunAdmin

__all__ = ["WorkflowRunAdmin"]

admin.site.register(WorkflowRun, WorkflowRunAdmin)
