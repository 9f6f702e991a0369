"""Failures by kind: counts of the newest failed runs, the list of each kind, and a page that retries all of one."""

from __future__ import annotations

from typing import Any, NamedTuple

from django.core.exceptions import PermissionDenied
from django.db import router
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ...core import clock
from ...ledger import database, reports
from ...models import WorkflowRun
from ...models.failing import at_step, with_error
from ...presentation.errors import short_types
from ...presentation.text import clipped
from .. import html
from ..actions import bulk
from ..base import RunAdminBase
from ..list.failures import NONE, parameters_of

COUNTED = 10_000  # failed runs, the newest
_SHOWN = 20  # kinds
_LONGEST_NAME = 80  # characters


class Failures(NamedTuple):
    """Runs that failed in the same way. `retry_url` is empty where the user may not retry; `is_all`: whether one retry of
    them is of all."""

    workflow: str
    error: str
    error_type: str
    step: str
    runs: int
    last: SafeString | str
    url: str
    retry_url: str
    is_all: bool


def context(admin: RunAdminBase, request: HttpRequest) -> dict[str, Any]:
    """What the overview shows of failures."""
    kinds = reports.failure_kinds(database.connection_for(router.db_for_read(WorkflowRun)), newest=COUNTED)
    shown, others = kinds[:_SHOWN], kinds[_SHOWN:]
    is_cut = sum(kind.runs for kind in kinds) >= COUNTED
    names = short_types(kind.error_type for kind in kinds)
    may_retry = admin.has_retry_permission(request)
    return {
        "failures": [_row(admin, kind, names[kind.error_type], may_retry, is_cut) for kind in shown],
        "failures_counted": COUNTED if is_cut else 0,
        "other_failures": (len(others), sum(kind.runs for kind in others)),
        "may_retry": may_retry,
        "retried_at_once": bulk.AT_MOST,
    }


def _row(admin: RunAdminBase, kind: reports.FailureKind, error: str, may_retry: bool, is_cut: bool) -> Failures:
    asked = html.query(**parameters_of(*kind[:3]))
    return Failures(
        clipped(kind.workflow, _LONGEST_NAME),
        clipped(error, _LONGEST_NAME),
        kind.error_type,
        clipped(kind.failed_step, _LONGEST_NAME),
        kind.runs,
        html.moment(clock.to_datetime(kind.last)),
        f"{admin.url_of('changelist')}?status__exact=failed&{asked}",
        f"{admin.url_of('retry_failures')}?{asked}" if may_retry else "",
        not is_cut and kind.runs <= bulk.AT_MOST,
    )


def retry_page(admin: RunAdminBase, request: HttpRequest) -> HttpResponse:
    """Retry all runs of a kind: the page asks, and its POST does it."""
    if not admin.has_retry_permission(request):
        raise PermissionDenied
    asked = {name: request.GET.get(name, "") for name in ("workflow", "error_type", "failed_step")}
    if not all(asked.values()) or "\0" in "".join(asked.values()):
        raise Http404(_("The address names no kind of failures."))
    error, step = ("" if asked[name] == NONE else asked[name] for name in ("error_type", "failed_step"))
    failed = admin.get_queryset(request).filter(
        workflow=asked["workflow"], status=WorkflowRun.Status.FAILED, finished_at__isnull=False
    )
    subtitle = " · ".join(filter(None, [asked["workflow"], *short_types([error]).values(), step]))
    return bulk.retry_page(
        admin,
        request,
        at_step(with_error(failed, error), step),
        back_url=admin.url_of("overview"),
        title=_("Retry what failed in the same way"),
        subtitle=clipped(subtitle, 3 * _LONGEST_NAME),
    )
