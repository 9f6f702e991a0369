"""The page that asks before a control is used on a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from django.http import HttpRequest
from django.template.response import TemplateResponse

from ...models import WorkflowRun
from ..base import RunAdminBase
from ..list import subject


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
    edit_url: str = "",
    restart_url: str = "",
) -> TemplateResponse:
    """The page that says what will happen (`lines`), with the button that does it."""
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
        back_url=admin.url_of("change", run.pk),
        edit_url=edit_url,
        restart_url=restart_url,
    )
