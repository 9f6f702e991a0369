"""`WorkflowRunAdmin`: which pages there are, and where. What is on them is in the packages beside it.

To change it, subclass it and register the subclass on the site that should have it:

>>> class OpsRunAdmin(WorkflowRunAdmin):  # doctest: +SKIP
...     list_per_page = 50
>>> ops_site.register(WorkflowRun, OpsRunAdmin)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext_lazy as _

from . import csp
from .actions import bulk, discarding, single, undoing
from .base import RunAdminBase
from .list import search
from .list.changelist import CappedPaginator, RunChangeList
from .list.columns import RunColumns
from .list.failures import ErrorFilter, StepFilter
from .list.filters import QueueFilter, StatusFilter, WorkflowFilter, has_date_range, with_date_ranges
from .list.relatives import ParentFilter, WaitsFilter
from .list.tags import TagFilter
from .overview import failures, pausing
from .overview import page as overview
from .run import page as run
from .sending import page as sending
from .start import page as start

_FILTERED = {
    "status",
    "workflow",
    "version",
    "queue",
    "phase",
    "created_at",
    "finished_at",
    "parent",
    "waits_for",
    "error_type",
    "failed_step",
    "tag",
}
_COMPARISONS = {"", "exact", "isnull", "gte", "gt", "lte", "lt", "range__gte", "range__lte"}


class WorkflowRunAdmin(RunColumns, RunAdminBase):
    """The pages of the runs. Nothing is edited here: runs change through retry, cancel, pause, restart and delete."""

    list_display: Any = ["run_name", "status_word", "run_tags", "progress", "started"]
    list_filter: ClassVar[Any] = [
        StatusFilter,
        ErrorFilter,
        StepFilter,
        WaitsFilter,
        WorkflowFilter,
        QueueFilter,
        TagFilter,
        ParentFilter,
        "created_at",
        "finished_at",
    ]
    search_fields = ["id", "key"]
    search_help_text = _(
        "An id, a key, or a part of a key in the newest 10,000 runs. "
        "Within a chosen date range also the text of inputs and errors."
    )
    ordering = ["-pk"]
    sortable_by: ClassVar[Any] = []
    list_per_page = 50
    list_max_show_all = 200
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = [bulk.retry, bulk.pause, bulk.resume, bulk.cancel, bulk.restart, bulk.delete]

    # -- Pages ------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        pages = [
            ("overview/", self.overview_view, "overview"),
            ("failures/retry/", self.retry_failures_view, "retry_failures"),
            ("start/", self.start_view, "start"),
            ("<path:object_id>/retry/", self.retry_view, "retry"),
            ("<path:object_id>/cancel/", self.cancel_view, "cancel"),
            ("<path:object_id>/undo/", self.undo_view, "undo"),
            ("pauses/new/", self.pause_more_view, "pause_more"),
            ("pauses/<int:number>/resume/", self.resume_more_view, "resume_more"),
            ("<path:object_id>/pause/", self.pause_view, "pause"),
            ("<path:object_id>/resume/", self.resume_view, "resume"),
            ("<path:object_id>/restart/", self.restart_view, "restart"),
            ("<path:object_id>/send-event/", self.send_event_view, "send_event"),
            ("<path:object_id>/events/<int:number>/discard/", self.discard_event_view, "discard_event"),
        ]
        return self.with_pages(pages, super().get_urls())

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        csp.lend_nonce(request)
        _leave_out_what_is_no_id(request)
        extra = {"strip": overview.strip(self, request), **(extra_context or {})}
        return super().changelist_view(request, extra)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return run.run_page(self, request, object_id, extra_context)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return HttpResponseRedirect(self.url_of("start"))

    def start_view(self, request: HttpRequest) -> HttpResponse:
        return start.start_page(self, request)

    def overview_view(self, request: HttpRequest) -> HttpResponse:
        return overview.overview_page(self, request)

    def retry_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return single.retry_page(self, request, object_id)

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return single.cancel_page(self, request, object_id)

    def undo_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return undoing.undo_page(self, request, object_id)

    def pause_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return single.pause_page(self, request, object_id)

    def resume_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return single.resume_page(self, request, object_id)

    def retry_failures_view(self, request: HttpRequest) -> HttpResponse:
        return failures.retry_page(self, request)

    def pause_more_view(self, request: HttpRequest) -> HttpResponse:
        return pausing.pause_page(self, request)

    def resume_more_view(self, request: HttpRequest, number: int) -> HttpResponse:
        return pausing.resume_page(self, request, number)

    def restart_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return single.restart_page(self, request, object_id)

    def send_event_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return sending.send_event_page(self, request, object_id)

    def discard_event_view(self, request: HttpRequest, object_id: str, number: int) -> HttpResponse:
        return discarding.discard_page(self, request, object_id, number)

    # -- What the list shows ------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return RunChangeList

    def get_list_filter(self, request: HttpRequest) -> Any:
        return with_date_ranges(super().get_list_filter(request), self.model)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        found, is_cut = search.search(queryset, search_term, text=has_date_range(request))
        request.steps_search_is_cut = is_cut  # type: ignore[attr-defined]
        return found, False

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        """Only what the filters ask.

        A free lookup into inputs and results would reveal what is masked; a regular expression may take any time.
        """
        field, _separator, comparison = lookup.partition("__")
        return comparison in _COMPARISONS and field in _FILTERED

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        # Since Django 6.1 it is asked for one place on the pages or another.
        place = {} if action_location is None else {"action_location": action_location}
        found = super().get_actions(request, **place)
        found.pop("delete_selected", None)  # runs have an action of their own, which keeps those that have not ended
        return found


def _leave_out_what_is_no_id(request: HttpRequest) -> None:
    """Of the selected runs: Django hands what was posted to the database."""
    if ACTION_CHECKBOX_NAME in request.POST:
        posted: Any = request.POST.copy()
        posted.setlist(ACTION_CHECKBOX_NAME, search.parse_ids(",".join(posted.getlist(ACTION_CHECKBOX_NAME))))
        request.POST = posted
