"""`WorkflowScheduleAdmin`: which pages of the schedules there are, where, and who may see them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...models import WorkflowRun, WorkflowSchedule
from ...presentation import schedules as texts
from .. import html
from . import controls, editing, page
from .base import ScheduleAdminBase


class StateFilter(admin.SimpleListFilter):
    """Whether a schedule fires."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", _("active")), ("paused", _("paused")), ("disabled", _("disabled"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if self.value() == "active":
            return queryset.filter(paused_at=None, disabled_reason="")
        if self.value() == "paused":
            return queryset.exclude(paused_at=None)
        return queryset.exclude(disabled_reason="") if self.value() == "disabled" else None


class WorkflowScheduleAdmin(ScheduleAdminBase):
    """The pages of the schedules. Those of the code are paused and run here, those of the database edited as well."""

    list_display: Any = ["schedule_name", "when", "next_time", "last_status", "state"]
    list_filter: ClassVar[Any] = [StateFilter, "source"]
    search_fields = ["name", "workflow"]
    ordering = ["name"]
    sortable_by: ClassVar[Any] = []
    list_per_page = 50
    show_full_result_count = False
    actions = []

    # -- The list -----------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        last = WorkflowRun.objects.filter(pk=OuterRef("last_run_id")).values("status")[:1]
        found = super().get_queryset(request).defer("input_text", "input_search")
        annotated: QuerySet[Any] = found.annotate(last_run_status=Subquery(last))
        return annotated

    @admin.display(description=gettext_lazy("schedule"))
    def schedule_name(self, schedule: WorkflowSchedule) -> SafeString | str:
        if schedule.name == schedule.workflow:
            return str(schedule.name)
        return format_html('{}<br><small class="steps-quiet">{}</small>', schedule.name, schedule.workflow)

    @admin.display(description=gettext_lazy("when"))
    def when(self, schedule: WorkflowSchedule) -> str:
        return texts.when(schedule)

    @admin.display(description=gettext_lazy("next time"))
    def next_time(self, schedule: WorkflowSchedule) -> SafeString | str:
        return html.moment(schedule.next_at)

    @admin.display(description=gettext_lazy("last run"))
    def last_status(self, schedule: Any) -> SafeString | str:
        return html.status_word(schedule.last_run_status) if schedule.last_run_status else html.NOTHING

    @admin.display(description=gettext_lazy("state"))
    def state(self, schedule: WorkflowSchedule) -> str:
        return ", ".join(filter(None, [texts.state(schedule), texts.skipped(schedule)]))

    # -- Pages ------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        pages = [
            ("<path:object_id>/edit/", self.edit_view, "edit"),
            ("<path:object_id>/pause/", self.pause_view, "pause"),
            ("<path:object_id>/resume/", self.resume_view, "resume"),
            ("<path:object_id>/run-now/", self.run_now_view, "run_now"),
        ]
        return self.with_pages(pages, super().get_urls())

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return editing.add_page(self, request)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return page.schedule_page(self, request, object_id)

    def edit_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return editing.edit_page(self, request, object_id)

    def pause_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return controls.pause_page(self, request, object_id)

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return controls.resume_page(self, request, object_id)

    def run_now_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return controls.run_now_page(self, request, object_id)
