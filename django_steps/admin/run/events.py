"""The events on the page of a run: what was sent, by whom, what has become of it, and discarding what no wait has taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.http import HttpRequest
from django.utils.translation import gettext as _

from ...ledger.relatives import COUNTED, Around
from ...models import WorkflowRun
from ...presentation import events
from ...presentation.text import clipped
from ...presentation.values import Mask, readable
from .. import html
from ..base import RunAdminBase
from .step_rows import SHOWN

PER_PAGE = 50
ANCHOR = "steps-events-title"
_FEW = 5  # events that are unfolded at first
_LINE = 100  # characters of a payload that are shown unfolded


class Row(NamedTuple):
    """An event."""

    number: int
    name: str
    payload: str
    line: str
    size: int  # of a payload that is too large to be shown here
    whole_url: str
    sent: Any
    by: str
    event_id: str
    is_by_key: bool
    state: str  # what has become of it, where no step has taken it
    step: str
    step_url: str
    taken: Any
    discard_url: str

    @property
    def is_folded(self) -> bool:
        return len(self.line) > _LINE

    @property
    def first_line(self) -> str:
        return clipped(self.line, _LINE)


class Section(NamedTuple):
    """The events of a run, a page of them."""

    counts: str
    rows: list[Row]
    is_open: bool
    links: list[tuple[str, str]]
    first: int
    last: int
    total: int


def section(
    admin: RunAdminBase,
    request: HttpRequest,
    run: WorkflowRun,
    mask: Mask,
    around: Around,
    step_ids: Mapping[str, str],
) -> Section | None:
    """The events of a run, two queries; None without one where there are none. `step_ids` are the rows of steps by path."""
    if not around.events:
        return None
    total = min(around.events, COUNTED)
    pages = -(-total // PER_PAGE)
    page = min(_number(request.GET.get("events")) or 1, pages)
    start = (page - 1) * PER_PAGE
    may_discard = admin.has_send_event_permission(request, run)
    only = _number(request.GET.get("event"))
    if only is None:
        found = events.of_run(run, start, min(PER_PAGE, total - start), SHOWN)
    else:  # whose payload is shown however large it is
        found, start, pages = events.of_run(run, 0, 1, 1 << 30, only=only), 0, 1
    rows = [_row(admin, run, mask, event, step_ids, may_discard) for event in found]
    return Section(
        counts=events.counted(around.events, around.untaken),
        rows=rows,
        is_open=bool(around.untaken) or bool({"event", "events"} & set(request.GET)) or total <= _FEW,
        links=[(label, _address(number)) for label, number in _pages(page, pages)],
        first=start + 1,
        last=start + len(rows),
        total=total,
    )


def _row(
    admin: RunAdminBase, run: WorkflowRun, mask: Mask, event: Any, step_ids: Mapping[str, str], may_discard: bool
) -> Row:
    is_shown = event.shown_payload is not None
    row_id = step_ids.get(event.consumed_by or "")
    return Row(
        number=event.pk,
        name=event.name,
        payload=readable(event.shown_payload, mask),
        line=readable(event.shown_payload, mask, indent=None),
        size=0 if is_shown else event.size,
        whole_url=f"?event={event.pk}#{ANCHOR}",
        sent=html.moment(event.sent_at),
        by=event.by,
        event_id=event.event_id or "",
        is_by_key=event.run_id is None,
        state="" if event.is_consumed else _("discarded") if event.is_discarded else _("not taken"),
        step=event.consumed_by or "",
        step_url=f"#{row_id}" if row_id else "",
        taken=html.moment(event.consumed_at) if event.consumed_at else "",
        discard_url=admin.url_of("discard_event", run.pk, event.pk) if may_discard and not event.consumed_at else "",
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and 0 < int(text[:18]) < 10**15 else None


def _pages(page: int, pages: int) -> list[tuple[str, int]]:
    links = []
    if page > 2:
        links.append((_("first"), 1))
    if page > 1:
        links.append((_("previous"), page - 1))
    if page < pages:
        links.append((_("next"), page + 1))
    if page + 1 < pages:
        links.append((_("last"), pages))
    return links


def _address(page: int) -> str:
    return f"?events={page}#{ANCHOR}"
