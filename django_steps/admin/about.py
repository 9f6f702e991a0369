"""Runs and what they are about, linked both ways: the object on the page of a run, `RunsOfThis` on the object's own page."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets, quote
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..core.tags import ABOUT
from ..models import WorkflowRun
from ..presentation import runs, tags
from ..presentation.text import clipped
from ..values import references
from . import html
from .base import RunAdminBase
from .list import subject

SHOWN = 10  # runs on the page of an object
_FIELD = "workflow_runs"
_READ = ("input_text", "input_search", "output_text", "details_text", "checkpoint", "overdue_text")


def object_of(run_admin: RunAdminBase, request: HttpRequest, run: WorkflowRun) -> SafeString | str:
    """What the run is about, with a link to its page where this site has one that the user may see; empty for nothing."""
    label = tags.about(run)
    if not label:
        return ""
    instance = run.about
    if instance is None:
        return _("%(object)s (deleted)") % {"object": label}
    site, model = run_admin.admin_site, type(instance)
    if not site.is_registered(model):
        return label
    if not site.get_model_admin(model).has_view_or_change_permission(request, instance):
        return label
    meta = model._meta
    url = reverse(f"{site.name}:{meta.app_label}_{meta.model_name}_change", args=[quote(instance.pk)])
    return format_html('<a href="{}">{}</a>', url, label)


class RunsOfThis(admin.ModelAdmin):  # type: ignore[type-arg]
    """For the ModelAdmin of what runs are about: its page shows the newest runs about the object, each with its status, and a
    link to all of them. Runs that these have invoked are on their own pages.

    They stand below everything else, or where `fields` or `fieldsets` name `"workflow_runs"`. Whoever may not view runs here
    does not see them.

    >>> class OrderAdmin(RunsOfThis, admin.ModelAdmin):  # doctest: +SKIP
    ...     list_display = ["number", "customer"]
    """

    class Media:
        css = {"all": ["django_steps/admin.css"]}

    @admin.display(description=gettext_lazy("workflow runs"))
    def workflow_runs(self, obj: Any) -> SafeString | str:
        """The newest runs about an object, as a table."""
        request = getattr(obj, "_runs_are_shown_to", None)
        run_admin = None if request is None else self._run_admin(request)
        if run_admin is None:
            return html.NOTHING
        found = WorkflowRun.objects.about(obj).filter(parent__isnull=True).order_by("-pk").defer(*_READ)[:SHOWN]
        rows = [_row(run_admin, run) for run in found if run_admin.has_view_permission(request, run)]
        if not rows:
            return _("No run is about this.")
        table = format_html(
            '<table class="steps-about"><tbody>{}</tbody></table>',
            format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", rows),
        )
        return format_html('{}<a href="{}">{}</a>', table, _url_of_all(run_admin, obj), _("All runs about this"))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return fields if _FIELD in fields else [*fields, _FIELD]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        found = super().get_fieldsets(request, obj)
        if obj is not None and self._run_admin(request) is not None:
            # A field is shown by the object alone, and who may see what depends on the request.
            obj._runs_are_shown_to = request
            if self._is_placed():
                return found
            return [*_without_runs(found), (None, {"fields": [_FIELD]})]
        return _without_runs(found)

    def _run_admin(self, request: HttpRequest) -> Any:
        """The ModelAdmin of runs on this site, if the user may view runs there."""
        if not self.admin_site.is_registered(WorkflowRun):
            return None
        found = self.admin_site.get_model_admin(WorkflowRun)
        return found if found.has_view_permission(request) else None

    def _is_placed(self) -> bool:
        """Whether `fields` or `fieldsets` say where the runs are shown."""
        return _FIELD in (flatten_fieldsets(self.fieldsets) if self.fieldsets else self.fields or ())


def _without_runs(fieldsets: Any) -> list[Any]:
    return [
        (title, {**options, "fields": [field for field in options["fields"] if field != _FIELD]})
        for title, options in fieldsets
    ]


def _row(run_admin: Any, run: WorkflowRun) -> tuple[Any, ...]:
    link = format_html('<a href="{}">{}</a>', run_admin.url_of("change", run.pk), subject.title_of(run))
    return link, html.status_word(run.status), html.moment(run.created_at), clipped(runs.detail(run), 160)


def _url_of_all(run_admin: Any, obj: Any) -> str:
    return f"{run_admin.url_of('changelist')}?{html.query(tag=f'{ABOUT}={references.reference(obj)}')}"
