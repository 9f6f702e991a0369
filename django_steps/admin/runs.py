"""`WorkflowRunAdmin`: which pages there are, who may see and do what. What is on the pages is in the modules beside it.

To change it, subclass it and register the subclass on the site that should have it:

>>> class OpsRunAdmin(WorkflowRunAdmin):  # doctest: +SKIP
...     list_per_page = 50
>>> ops_site.register(WorkflowRun, OpsRunAdmin)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth import get_permission_codename
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _

from ..models import StepRecord, WorkflowRun
from . import actions, csp, overview, page, search, start, verbs
from .changelist import CappedPaginator, RunChangeList
from .columns import RunColumns
from .filters import QueueFilter, StatusFilter, WorkflowFilter, has_date_range, with_date_ranges


class WorkflowRunAdmin(RunColumns, admin.ModelAdmin):  # type: ignore[type-arg]
    """The pages of the runs. Nothing is edited here: runs change through retry, cancel, restart and delete."""

    list_display: Any = ["run_name", "status_word", "progress", "started"]
    list_filter: ClassVar[Any] = [StatusFilter, WorkflowFilter, QueueFilter, "created_at", "finished_at"]
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
    actions = [actions.retry, actions.cancel, actions.restart, actions.delete]

    change_list_template = "admin/django_steps/workflowrun/change_list.html"
    change_form_template = "admin/django_steps/workflowrun/change_form.html"
    confirmation_template = "admin/django_steps/workflowrun/confirmation.html"
    start_template = "admin/django_steps/workflowrun/start.html"
    overview_template = "admin/django_steps/workflowrun/overview.html"

    class Media:
        css = {"all": ["django_steps/admin.css"]}
        js = ["django_steps/admin.js"]

    # -- Pages ------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        def page_at(route: str, view: Any, name: str) -> URLPattern:
            full_name = f"{self.opts.app_label}_{self.opts.model_name}_{name}"
            pattern: URLPattern = path(route, self.admin_site.admin_view(view), name=full_name)
            return pattern

        return [
            page_at("overview/", self.overview_view, "overview"),
            page_at("start/", self.start_view, "start"),
            page_at("<path:object_id>/retry/", self.retry_view, "retry"),
            page_at("<path:object_id>/cancel/", self.cancel_view, "cancel"),
            page_at("<path:object_id>/restart/", self.restart_view, "restart"),
            *super().get_urls(),
        ]

    def url_of(self, name: str, *args: Any) -> str:
        """The address of one of these pages on this site: `url_of("retry", run.pk)`."""
        opts = self.opts
        return reverse(f"{self.admin_site.name}:{opts.app_label}_{opts.model_name}_{name}", args=args)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        csp.lend_nonce(request)
        extra = {"strip": overview.strip(self), **(extra_context or {})}
        return super().changelist_view(request, extra)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return page.run_page(self, request, object_id, extra_context)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return HttpResponseRedirect(self.url_of("start"))

    def start_view(self, request: HttpRequest) -> HttpResponse:
        return start.start_page(self, request)

    def overview_view(self, request: HttpRequest) -> HttpResponse:
        return overview.overview_page(self, request)

    def retry_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return verbs.retry_page(self, request, object_id)

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return verbs.cancel_page(self, request, object_id)

    def restart_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return verbs.restart_page(self, request, object_id)

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
        """Only what the filters ask: a free lookup into inputs and results would tell what is masked."""
        return lookup.split("__")[0] in {"status", "workflow", "version", "queue", "phase", "created_at", "finished_at"}

    # -- Who may do what ----------------------------------------------------------------------------

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_deletable = obj is None or obj.phase == obj.Phase.ENDED
        return is_deletable and super().has_delete_permission(request, obj)

    def has_retry_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._has_permission(request, "retry")

    def has_cancel_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._has_permission(request, "cancel")

    def _has_permission(self, request: HttpRequest, verb: str) -> bool:
        codename = get_permission_codename(verb, self.opts)
        user: Any = request.user
        return self.has_view_permission(request) and bool(user.has_perm(f"{self.opts.app_label}.{codename}"))

    # -- Deleting -------------------------------------------------------------------------------------

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The run, or the answer 404."""
        run = super().get_object(request, object_id, from_field)
        if run is None:
            raise Http404(_("There is no run %(id)s.") % {"id": object_id})
        return run

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        # Since Django 6.1 it is asked for one place on the pages or another.
        place = {} if action_location is None else {"action_location": action_location}
        found = super().get_actions(request, **place)
        found.pop("delete_selected", None)  # runs have an action of their own, which keeps those that have not ended
        return found

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What deleting runs takes with it: counted, since a run may have ten thousand steps."""
        runs = list(objs)
        steps = StepRecord.objects.filter(run__in=runs).count()
        counts = {self.opts.verbose_name_plural: len(runs), StepRecord._meta.verbose_name_plural: steps}
        return [str(run) for run in runs[:100]], counts, set(), []

    def delete_model(self, request: HttpRequest, obj: WorkflowRun) -> None:
        self.delete_queryset(request, self.model._default_manager.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete those of the runs that have ended."""
        with transaction.atomic(using=queryset.db):
            ended = queryset.filter(phase=WorkflowRun.Phase.ENDED).select_for_update()
            self.model._default_manager.filter(pk__in=list(ended.values_list("pk", flat=True))).delete()
