"""The page that asks before a verb is applied to a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest
from django.template.response import TemplateResponse

from ..models import WorkflowRun
from . import columns

if TYPE_CHECKING:
    from .runs import WorkflowRunAdmin


def ask(
    admin: WorkflowRunAdmin,
    request: HttpRequest,
    run: WorkflowRun,
    *,
    title: str,
    lines: Sequence[str],
    button: str,
    fields: Mapping[str, str] | None = None,
    choices: Sequence[str] = (),
    danger: bool = False,
    edit_url: str = "",
    restart_url: str = "",
) -> TemplateResponse:
    """The page that asks before a verb is applied to a run."""
    context: dict[str, Any] = {
        **admin.admin_site.each_context(request),
        "title": title,
        "subtitle": " · ".join((run.workflow, *columns.names_of(run))),
        "opts": admin.opts,
        "original": run,
        "run": run,
        "media": admin.media,
        "has_view_permission": True,
        "lines": lines,
        "button": button,
        "fields": (fields or {}).items(),
        "choices": choices,
        "danger": danger,
        "back_url": admin.url_of("change", run.pk),
        "edit_url": edit_url,
        "restart_url": restart_url,
    }
    request.current_app = admin.admin_site.name
    return TemplateResponse(request, admin.confirmation_template, context)
