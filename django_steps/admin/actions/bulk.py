"""Retry, cancel, pause, resume, restart and delete for a selection: a page says what will happen to how many, then it happens.

What can't be done is skipped and reported with the reason; so is what the user may not do with a run. At most `AT_MOST`
runs at a time, the newest first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from ...errors import StepsError
from ...models import WorkflowRun
from ...models.deleting import reason_of
from ...presentation import pauses
from ...presentation.steps import label_of
from .. import deleting
from ..base import RunAdminBase
from ..list import subject
from ..list.changelist import BIG_COLUMNS
from ..list.search import parse_ids
from . import confirmation, forecasting, restarting, retrying

AT_MOST = 1000
_NAMED = 5  # runs without the permission
_REFUSED = gettext_lazy("runs that it has invoked can't be retried: open it to see why")
_HANDLED = gettext_lazy("its failure was handled: open it to choose a step")


class Applied(NamedTuple):
    """Which runs an action changed, and what else is to be said of them."""

    runs: Sequence[UUID]
    note: str = ""
    kept: Mapping[UUID, str] = {}  # runs to which it could not be done, and why


@dataclass(frozen=True)
class Control:
    """What an action does to runs of these statuses, and how it speaks of it."""

    name: str
    title: Any
    button: Any  # as the next two ngettext_lazy, with %(count)d
    applies_to: Collection[str]
    permission: str  # the method of the ModelAdmin that is asked for each run
    apply: Callable[[Any, HttpRequest, list[WorkflowRun]], Applied]
    will: Any
    done: Any
    forecast: Callable[[Collection[UUID]], forecasting.Forecast] | None = None
    along: Callable[[Any, HttpRequest, Collection[UUID]], deleting.Forecast] | None = None


@admin.action(description=gettext_lazy("Retry selected runs"), permissions=["retry"])
def retry(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
    return _ask_or_do(model_admin, request, queryset, _RETRY)


@admin.action(description=gettext_lazy("Cancel selected runs"), permissions=["cancel"])
def cancel(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
    return _ask_or_do(model_admin, request, queryset, _CANCEL)


@admin.action(description=gettext_lazy("Pause selected runs"), permissions=["pause"])
def pause(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
    return _ask_or_do(model_admin, request, queryset, _PAUSE)


@admin.action(description=gettext_lazy("Resume selected runs"), permissions=["pause"])
def resume(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
    return _ask_or_do(model_admin, request, queryset, _RESUME)


@admin.action(description=gettext_lazy("Restart selected runs"), permissions=["start"])
def restart(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
    return _ask_or_do(model_admin, request, queryset, _RESTART)


@admin.action(description=gettext_lazy("Delete selected runs"), permissions=["delete"])
def delete(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
    return _ask_or_do(model_admin, request, queryset, _DELETE)


def retry_page(
    model_admin: RunAdminBase, request: HttpRequest, queryset: QuerySet[Any], *, back_url: str, **said: Any
) -> HttpResponse:
    """Retry these runs on a page of its own, which asks first; `said`: what it shows beyond that, such as its title."""
    answer = _ask_or_do(model_admin, request, queryset, _RETRY, back_url=back_url, **said)
    return answer or HttpResponseRedirect(back_url)


def _ask_or_do(
    model_admin: RunAdminBase, request: HttpRequest, queryset: QuerySet[Any], control: Control, **said: Any
) -> HttpResponse | None:
    if "runs" in request.POST:  # the answer to the question names the runs in one field
        queryset = model_admin.get_queryset(request).filter(pk__in=parse_ids(request.POST["runs"])[:AT_MOST])
        _do(model_admin, request, list(queryset.defer(*BIG_COLUMNS)), control)
        return None
    return _ask(model_admin, request, queryset, control, **said)


# -- Asking -----------------------------------------------------------------------------------------


def _sorted_out(
    model_admin: RunAdminBase, request: HttpRequest, runs: Sequence[WorkflowRun], control: Control
) -> tuple[list[WorkflowRun], Counter[str]]:
    """The runs that the control can be used on, and the reasons for which others can't be."""
    may = getattr(model_admin, control.permission)
    reasons = Counter(_already(run.status) for run in runs if run.status not in control.applies_to)
    able: list[WorkflowRun] = []
    refused: list[WorkflowRun] = []
    for run in runs:
        if control.name == "retry" and run.status in control.applies_to and not retrying.is_possible(run):
            reasons[_("undone")] += 1
        elif run.status in control.applies_to:
            (able if may(request, run) else refused).append(run)
    if refused:
        reasons[_not_permitted(refused)] = len(refused)
    return able, reasons


def _not_permitted(runs: Sequence[WorkflowRun]) -> str:
    names = ", ".join(subject.title_of(run) for run in runs[:_NAMED]) + (", …" if len(runs) > _NAMED else "")
    return _("you have no permission for %(runs)s") % {"runs": names}


def _ask(
    model_admin: RunAdminBase, request: HttpRequest, queryset: QuerySet[Any], control: Control, **said: Any
) -> TemplateResponse:
    selected = list(queryset.order_by("-pk").defer(*BIG_COLUMNS)[: AT_MOST + 1])
    is_cut, selected = len(selected) > AT_MOST, selected[:AT_MOST]
    permitted, skipped = _sorted_out(model_admin, request, selected, control)
    able = [run.pk for run in permitted]
    details: list[str] = []
    if control.forecast is not None and able:
        forecast = control.forecast(able)
        able = [pk for pk in able if pk not in forecast.handled]
        skipped += Counter({str(_HANDLED): len(forecast.handled)})
        details = forecast.lines()
    if control.along is not None and able:
        along = control.along(model_admin.admin_site, request, able)
        able = [pk for pk in able if pk not in along.kept]
        skipped += Counter(along.kept.values())
        details += along.lines
    count = len(able)
    lines = [control.will % {"count": count}] if able else [_("There is nothing to do for any of the selected runs.")]
    if skipped:
        details.append(_("%(skipped)s will be skipped.") % {"skipped": _reasons(skipped)})
    if is_cut:
        details.append(_("Only the newest %(limit)d of the selected runs are changed at a time.") % {"limit": AT_MOST})
    shown = {"title": str(control.title), "back_url": request.get_full_path(), **said}
    return model_admin.render(
        request,
        model_admin.confirmation_template,
        shown.pop("title"),
        lines=lines,
        details=details,
        button=control.button % {"count": count} if able else "",
        danger=control.name in ("cancel", "delete"),
        asks_reason=control.name == "pause" and bool(able),
        fields={
            "action": control.name,
            "runs": ",".join(str(run.pk) for run in selected),
            ACTION_CHECKBOX_NAME: str(selected[0].pk) if selected else "",
            "select_across": "1",
        }.items(),
        **shown,
    )


# -- Doing ------------------------------------------------------------------------------------------


def _do(model_admin: RunAdminBase, request: HttpRequest, runs: list[WorkflowRun], control: Control) -> None:
    able, reasons = _sorted_out(model_admin, request, runs, control)
    applied = control.apply(model_admin, request, able) if able else Applied([])
    done = set(applied.runs)
    reasons += Counter(applied.kept.values())
    left = [run.pk for run in able if run.pk not in done and run.pk not in applied.kept]
    for status in WorkflowRun.objects.filter(pk__in=left).values_list("status", flat=True):
        reasons[_already(status) if status not in control.applies_to else str(_HANDLED)] += 1
    text = control.done % {"count": len(done)}
    if applied.note:
        text = _("%(done)s (%(note)s)") % {"done": text, "note": applied.note}
    if reasons:
        text = _("%(done)s, %(skipped)s") % {"done": text, "skipped": _skipped(reasons)}
    model_admin.message_user(request, text, messages.SUCCESS if done else messages.WARNING)


def _apply_retry(model_admin: RunAdminBase, request: HttpRequest, runs: list[WorkflowRun]) -> Applied:
    ids = [run.pk for run in runs]
    forecast = forecasting.forecast(ids)  # before the failures that say so are reset
    result = WorkflowRun.objects.filter(pk__in=ids).retry(by=str(request.user))
    done = set(result.done)
    kept = {
        one.run_id: str(_REFUSED)
        for one in result.skipped
        if one.run_id not in forecast.handled and forecasting.is_refused(one.run_id)
    }
    by_step: dict[str, list[UUID]] = defaultdict(list)
    for pk in done:
        by_step[forecast.step_of(pk)].append(pk)
    for step, some in by_step.items():
        _log(request, runs, some, CHANGE, retrying.retried_text([step] if step else []))
    return Applied(list(done), forecast.note(done), kept)


def _apply_cancel(model_admin: RunAdminBase, request: HttpRequest, runs: list[WorkflowRun]) -> Applied:
    done = WorkflowRun.objects.filter(pk__in=[run.pk for run in runs]).cancel(by=str(request.user)).done
    _log(request, runs, done, CHANGE, _("Canceled."))
    return Applied(done)


def _apply_pause(model_admin: RunAdminBase, request: HttpRequest, runs: list[WorkflowRun]) -> Applied:
    pausable = [run.pk for run in runs if not run.is_pausing]
    reason = confirmation.reason_of(request)
    done = WorkflowRun.objects.filter(pk__in=pausable).pause(reason=reason, by=str(request.user)).done
    _log(request, runs, done, CHANGE, confirmation.with_reason(_("Paused."), reason))
    return Applied(done, kept={run.pk: _("already pausing") for run in runs if run.is_pausing})


def _apply_resume(model_admin: RunAdminBase, request: HttpRequest, runs: list[WorkflowRun]) -> Applied:
    free = _not_paused(model_admin.admin_site, request, [run.pk for run in runs]).kept
    held = [run.pk for run in runs if run.pk not in free]
    done = WorkflowRun.objects.filter(pk__in=held).resume(by=str(request.user)).done
    _log(request, runs, done, CHANGE, _("Resumed."))
    return Applied(done, kept=free)


def _not_paused(site: Any, request: HttpRequest, ids: Collection[UUID]) -> deleting.Forecast:
    """Those of the runs that nothing holds: they are not resumed."""
    runs = pauses.with_holds(WorkflowRun.objects.filter(pk__in=ids).defer(*BIG_COLUMNS))
    free = [run.pk for run in runs if run.paused_at is None and not pauses.held(run)]
    return deleting.Forecast(dict.fromkeys(free, _("not paused")))


def _apply_restart(model_admin: RunAdminBase, request: HttpRequest, runs: list[WorkflowRun]) -> Applied:
    done, news = [], []
    for run in runs:
        try:
            new, is_new = restarting.restart(run)
        except StepsError:
            continue
        if is_new:
            done.append(run.pk)
            news.append(new)
    _log(request, runs, done, CHANGE, _("Restarted."))
    _log(request, news, [new.pk for new in news], ADDITION, _("Started as a restart."))
    return Applied(done)


def _apply_delete(model_admin: RunAdminBase, request: HttpRequest, runs: list[WorkflowRun]) -> Applied:
    ids = [run.pk for run in runs if run.phase == run.Phase.ENDED]
    kept = dict(deleting.forecast(model_admin.admin_site, request, ids).kept)
    ids = [pk for pk in ids if pk not in kept]
    if not _try_to_delete(model_admin, request, ids, {}):
        for pk in ids:
            _try_to_delete(model_admin, request, [pk], kept)
    there = set(WorkflowRun.objects.filter(pk__in=ids).values_list("pk", flat=True))
    deleted = [pk for pk in ids if pk not in there]
    _log(request, runs, deleted, DELETION, "")
    return Applied(deleted, kept=kept)


def _try_to_delete(model_admin: RunAdminBase, request: HttpRequest, ids: list[UUID], kept: dict[UUID, str]) -> bool:
    """All of these, or none and False; then `kept` gets the reason."""
    try:
        model_admin.delete_queryset(request, WorkflowRun.objects.filter(pk__in=ids))
    except Exception as error:
        kept.update(dict.fromkeys(ids, reason_of(error)))
        return False
    return True


def _log(request: HttpRequest, runs: list[WorkflowRun], done: Collection[UUID], flag: int, text: str) -> None:
    changed = set(done)
    logged: Any = [run for run in runs if run.pk in changed]
    if logged:
        LogEntry.objects.log_actions(str(request.user.pk), logged, flag, text)


def _already(status: str) -> str:
    return _("already %(status)s") % {"status": label_of(status)}


def _skipped(reasons: Counter[str]) -> str:
    parts = [
        ngettext("%(count)d skipped: %(reason)s", "%(count)d skipped: %(reason)s", count)
        % {"count": count, "reason": reason}
        for reason, count in sorted(reasons.items())
    ]
    return ", ".join(parts)


def _reasons(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} ({reason})" for reason, count in sorted(reasons.items()))


_FINISHED = frozenset(WorkflowRun.FINISHED)
_RETRY = Control(
    "retry",
    gettext_lazy("Retry selected runs"),
    ngettext_lazy("Retry %(count)d run", "Retry %(count)d runs", "count"),
    frozenset(WorkflowRun.RETRYABLE),
    "has_retry_permission",
    _apply_retry,
    ngettext_lazy("%(count)d run will be retried.", "%(count)d runs will be retried.", "count"),
    ngettext_lazy("%(count)d retried", "%(count)d retried", "count"),
    forecasting.forecast,
)
_CANCEL = Control(
    "cancel",
    gettext_lazy("Cancel selected runs"),
    ngettext_lazy("Cancel %(count)d run", "Cancel %(count)d runs", "count"),
    frozenset(WorkflowRun.CANCELABLE),
    "has_cancel_permission",
    _apply_cancel,
    ngettext_lazy("%(count)d run will be canceled.", "%(count)d runs will be canceled.", "count"),
    ngettext_lazy("%(count)d canceled", "%(count)d canceled", "count"),
)
_PAUSE = Control(
    "pause",
    gettext_lazy("Pause selected runs"),
    ngettext_lazy("Pause %(count)d run", "Pause %(count)d runs", "count"),
    frozenset(WorkflowRun.PAUSABLE),
    "has_pause_permission",
    _apply_pause,
    ngettext_lazy("%(count)d run will be paused.", "%(count)d runs will be paused.", "count"),
    ngettext_lazy("%(count)d paused", "%(count)d paused", "count"),
)
_RESUME = Control(
    "resume",
    gettext_lazy("Resume selected runs"),
    ngettext_lazy("Resume %(count)d run", "Resume %(count)d runs", "count"),
    frozenset((*WorkflowRun.PAUSABLE, WorkflowRun.Status.PAUSED)),
    "has_pause_permission",
    _apply_resume,
    ngettext_lazy("%(count)d run will be resumed.", "%(count)d runs will be resumed.", "count"),
    ngettext_lazy("%(count)d resumed", "%(count)d resumed", "count"),
    along=_not_paused,
)
_RESTART = Control(
    "restart",
    gettext_lazy("Restart selected runs"),
    ngettext_lazy("Restart %(count)d run", "Restart %(count)d runs", "count"),
    _FINISHED,
    "has_start_permission",
    _apply_restart,
    ngettext_lazy(
        "%(count)d run will be restarted: a new run with the same input starts from the beginning.",
        "%(count)d runs will be restarted: new runs with the same inputs start from the beginning.",
        "count",
    ),
    ngettext_lazy("%(count)d restarted", "%(count)d restarted", "count"),
)
_DELETE = Control(
    "delete",
    gettext_lazy("Delete selected runs"),
    ngettext_lazy("Delete %(count)d run", "Delete %(count)d runs", "count"),
    _FINISHED,
    "has_delete_permission",
    _apply_delete,
    ngettext_lazy(
        "%(count)d run will be deleted, with its steps.", "%(count)d runs will be deleted, with their steps.", "count"
    ),
    ngettext_lazy("%(count)d deleted", "%(count)d deleted", "count"),
    along=deleting.forecast,
)
