"""What every page of the admin needs of its ModelAdmin: addresses, permissions, a run by its id, deleting, the frame.

The pages take a `RunAdminBase` and import nothing above it. Which pages there are is said in `site.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError, QuerySet, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

from ..ledger import database, pruning
from ..models import WorkflowRun
from ..models.deleting import reason_of
from . import deleting
from .damaged import reading_damaged

# What Django's own pages with a form always know; themes ask for it in the frame of a page, in `submit_row` for one.
_NOTHING_TO_SAVE = {
    "add": False,
    "change": False,
    "is_popup": False,
    "save_as": False,
    "show_save": False,
    "has_add_permission": False,
    "has_change_permission": False,
    "has_delete_permission": False,
    "has_view_permission": True,
    "has_editable_inline_admin_formsets": False,
}


class PageAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """A ModelAdmin with pages of its own."""

    class Media:
        css = {"all": ["django_steps/admin.css"]}
        js = ["django_steps/admin.js"]

    def url_of(self, name: str, *args: Any) -> str:
        """The address of a page on this site: `url_of("retry", run.pk)`."""
        opts = self.opts
        return reverse(f"{self.admin_site.name}:{opts.app_label}_{opts.model_name}_{name}", args=args)

    def with_pages(self, pages: Sequence[tuple[str, Any, str]], urls: Sequence[URLPattern]) -> list[URLPattern]:
        """The patterns of pages of its own, `(route, view, name)` each, before those that Django makes."""
        opts = self.opts
        own = [
            path(route, self.admin_site.admin_view(view), name=f"{opts.app_label}_{opts.model_name}_{name}")
            for route, view, name in pages
        ]
        found: list[URLPattern] = [*own, *urls]
        for page in found:
            page.callback = reading_damaged(page.callback)
        return found

    def render(self, request: HttpRequest, template: str, title: str, /, **context: Any) -> TemplateResponse:
        """A page in the frame of this site. `context` is what its template shows beyond the title."""
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            template,
            {
                **self.admin_site.each_context(request),
                "title": title,
                "opts": self.opts,
                "original": title,
                "media": self.media,
                **_NOTHING_TO_SAVE,
                **context,
            },
        )

    def _has_permission(self, request: HttpRequest, control: str, obj: Any) -> bool:
        codename = get_permission_codename(control, self.opts)
        user: Any = request.user
        return self.has_view_permission(request, obj) and bool(user.has_perm(f"{self.opts.app_label}.{codename}"))


class RunAdminBase(PageAdmin):
    """A ModelAdmin of runs without pages."""

    change_list_template = "admin/django_steps/workflowrun/change_list.html"
    change_form_template = "admin/django_steps/workflowrun/change_form.html"
    confirmation_template = "admin/django_steps/workflowrun/confirmation.html"
    send_event_template = "admin/django_steps/workflowrun/send_event.html"
    start_template = "admin/django_steps/workflowrun/start.html"
    overview_template = "admin/django_steps/workflowrun/overview.html"

    # -- Pages ------------------------------------------------------------------------------------

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """The run, or the answer 404."""
        run = super().get_object(request, object_id, from_field or None)
        if run is None:
            raise Http404(_("There is no run %(id)s.") % {"id": object_id})
        return run

    def get_permitted(self, request: HttpRequest, object_id: str, may: Callable[..., bool]) -> Any:
        """The run, if `may(request, run)` allows it; else the answer 404 or 403."""
        run = self.get_object(request, object_id)
        if not may(request, run):
            raise PermissionDenied
        return run

    # -- Who may do what ----------------------------------------------------------------------------
    # Every page, button and action asks with the run, so that a subclass can decide for each.

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_deletable = obj is None or obj.phase == obj.Phase.ENDED
        return is_deletable and super().has_delete_permission(request, obj)

    def has_retry_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._has_permission(request, "retry", obj)

    def has_cancel_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._has_permission(request, "cancel", obj)

    def has_pause_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may pause and resume runs, and, without a run, queues and workflows."""
        return self._has_permission(request, "pause", obj)

    def has_send_event_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may send events to runs, and discard events that no wait has taken."""
        return self._has_permission(request, "send_event", obj)

    def has_start_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether the user may start runs, or restart this one.

        This takes both permissions: the page of the new run follows, and a restart shows the input of the run before.
        """
        return self.has_add_permission(request) and self.has_view_permission(request, obj)

    # -- Deleting -----------------------------------------------------------------------------------

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What deleting runs takes with it: steps are counted, since a run may have ten thousand."""
        return deleting.deletion_of(self.admin_site, request, list(objs))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except (ProtectedError, RestrictedError, IntegrityError) as error:  # the log entry is rolled back, too
            text = _("The run was not deleted. %(reason)s") % {"reason": reason_of(error)}
            self.message_user(request, text, messages.ERROR)
            return HttpResponseRedirect(self.url_of("change", object_id))

    def delete_model(self, request: HttpRequest, obj: WorkflowRun) -> None:
        self.delete_queryset(request, self.model._default_manager.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete those of the runs that have ended, and whose parent does not stay."""
        with transaction.atomic(using=queryset.db):
            ended = queryset.filter(phase=WorkflowRun.Phase.ENDED).select_for_update()
            found = list(ended.only("pk", "parent"))
            kept = {run.pk for run in deleting.children_kept(found)}
            self.model._default_manager.filter(pk__in=[run.pk for run in found if run.pk not in kept]).delete()
            pruning.check_references(database.connection_for(queryset.db))
