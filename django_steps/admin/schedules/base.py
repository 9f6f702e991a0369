"""What the pages of the schedules need of their ModelAdmin: a schedule by its id, and who may do what."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest
from django.utils.translation import gettext as _

from ...models import WorkflowRun
from ..base import PageAdmin


class ScheduleAdminBase(PageAdmin):
    """A ModelAdmin of schedules without pages."""

    change_form_template = "admin/django_steps/workflowschedule/change_form.html"
    edit_template = "admin/django_steps/workflowschedule/edit.html"
    ask_template = "admin/django_steps/workflowschedule/ask.html"

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The schedule, or the answer 404."""
        found = super().get_object(request, object_id, from_field or None)
        if found is None:
            raise Http404(_("There is no schedule %(id)s.") % {"id": object_id})
        return found

    # -- Who may do what ----------------------------------------------------------------------------

    def has_edit_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may edit schedules, or this one: what the code defines is edited there."""
        return (obj is None or not obj.is_of_code) and self.has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # One that the code has would come back with the next worker.
        return (obj is None or not obj.is_of_code or obj.is_disabled) and super().has_delete_permission(request, obj)

    def has_pause_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._has_permission(request, "pause", obj)

    def has_run_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._has_permission(request, "run", obj)

    def url_of_run(self, request: HttpRequest, run: WorkflowRun) -> str:
        """The address of a run's page, where this site has one and the user may see it; else empty."""
        if not self.admin_site.is_registered(WorkflowRun):
            return ""
        runs: Any = self.admin_site.get_model_admin(WorkflowRun)
        return runs.url_of("change", run.pk) if runs.has_view_permission(request, run) else ""
