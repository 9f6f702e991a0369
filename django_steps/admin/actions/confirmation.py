"""The page that asks before a control is used on a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.http import HttpRequest
from django.template.response import TemplateResponse

from ...models import WorkflowRun
from ..base import RunAdminBase
from ..list import subject

_LONGEST_REASON = 2000  # characters


def reason_of(request: HttpRequest) -> str:
    """The reason that was typed on the page."""
    return request.POST.get("reason", "").replace("\0", "").strip()[:_LONGEST_REASON]


def with_reason(text: str, reason: str) -> str:
    """What the log says of something that was done for a reason."""
    return f"{text} {reason}" if reason else text


def ask(
    admin: RunAdminBase,
    request: HttpRequest,
    run: WorkflowRun,
    *,
    title: str,
    lines: Sequence[str],
    button: str,
    fields: Mapping[str, str] | None = None,
    choices: Sequence[str] = (),
    danger: bool = False,
    asks_reason: bool = False,
    edit_url: str = "",
    restart_url: str = "",
) -> TemplateResponse:
    """The page that says what will happen (`lines`), with the button that does it; `asks_reason`: also a field for why."""
    return admin.render(
        request,
        admin.confirmation_template,
        title,
        subtitle=" · ".join((run.workflow, *subject.names_of(run))),
        original=run,
        run=run,
        lines=lines,
        button=button,
        fields=(fields or {}).items(),
        choices=choices,
        danger=danger,
        asks_reason=asks_reason,
        back_url=admin.url_of("change", run.pk),
        edit_url=edit_url,
        restart_url=restart_url,
    )
