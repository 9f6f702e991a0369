"""The page that asks before anything is done, and what it says about a retry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import router
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..errors import FailureWasHandled
from ..ledger import sql
from ..ledger import verbs as ledger
from ..models import WorkflowRun
from .display import clipped

if TYPE_CHECKING:
    from .runs import WorkflowRunAdmin


@dataclass
class RetryChoice:
    """What a retry would do: in sentences, on the button, and the steps to choose from where a choice is needed."""

    button: str
    lines: list[str] = field(default_factory=list)
    choices: Sequence[str] = ()


def retry_choice(run: WorkflowRun, from_step: str | None = None) -> RetryChoice:
    """What retrying this failed or canceled run means, plainly or from a step."""
    if from_step is not None:
        return _from_step(run, from_step)
    try:
        steps = ledger.failures_to_forget(sql.connection_for(router.db_for_write(WorkflowRun)), run.pk)
    except FailureWasHandled as handled:
        return _handled(handled)
    kept = run.steps.exclude(name__in=steps).count()
    lines = [_kept_line(kept)]
    if not steps:
        return RetryChoice(_("Retry"), [_("The body is called again; no step failed it."), *lines])
    button = _("Retry from step “%(step)s”") % {"step": clipped(steps[0], 60)}
    return RetryChoice(button, [_("The run goes on with step “%(step)s”.") % {"step": ", ".join(steps)}, *lines])


def _from_step(run: WorkflowRun, name: str) -> RetryChoice:
    position = run.steps.filter(name=name).values_list("position", flat=True).first() or 0
    later = run.steps.filter(position__gt=position).count()
    lines = [_("Step “%(step)s” is forgotten and executes again.") % {"step": name}]
    if later:
        lines.append(
            ngettext(
                "So does the %d step recorded after it: what it has done is done a second time.",
                "So do the %d steps recorded after it: what they have done is done a second time.",
                later,
            )
            % later
        )
    lines.append(_kept_line(run.steps.filter(position__lt=position).count()))
    return RetryChoice(_("Retry from step “%(step)s”") % {"step": clipped(name, 60)}, lines)


def _handled(handled: FailureWasHandled) -> RetryChoice:
    later = ", ".join(f"“{name}”" for name in handled.later[:10]) + ("…" if len(handled.later) > 10 else "")
    lines = [
        _("Step “%(step)s” failed, and the workflow handled that itself: %(later)s ran after it.")
        % {"step": handled.step, "later": later},
        _("Going on from the failure would redo what was compensated, so there is no plain retry. Choose instead:"),
    ]
    return RetryChoice(_("Retry from the chosen step"), lines, [handled.step, *handled.later][:100])


def _kept_line(count: int) -> str:
    if not count:
        return _("No other step is recorded.")
    return (
        ngettext(
            "The result of %d other step is kept: it does not execute again.",
            "The results of %d other steps are kept: they do not execute again.",
            count,
        )
        % count
    )


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
        "subtitle": str(run),
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
