"""What a run in line waits for, and how it stands with limits, in words."""

from __future__ import annotations

from django.db import router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from ..core.limit import shown
from ..ledger import circles, database, limits, lines
from ..ledger.circles import Circle
from ..ledger.limits import Standing
from ..models import WorkflowRun
from .text import clipped

_LONGEST_NAME = 60  # characters
_NAMED = 5  # limits of a circle, and runs
_MINUTE_US, _DAY_US = 60_000_000, 86_400_000_000


def is_in_line(run: WorkflowRun) -> bool:
    """Whether a run would be executed but for a limit."""
    return bool(run.phase == WorkflowRun.Phase.IN_LINE and run.line_key)


def waits_for(run: WorkflowRun) -> str:
    """What a run in line waits for, by its own columns: `waits for a slot of “sync 7”`."""
    return _("waits for a slot of “%(limit)s”") % {"limit": clipped(shown(run.line_key), _LONGEST_NAME)}


def names_of(run: WorkflowRun) -> list[str]:
    """The limits of a run: of its workflow, with the key, and of its queue."""
    names = lines.names(run.limit_1, run.limit_2, run.limit_queue)
    return [clipped(shown(name), _LONGEST_NAME) for name in names]


def standing_of(run: WorkflowRun) -> Standing | None:
    """How it stands with the limit that a run is in line for; None for others. Two queries."""
    if not is_in_line(run):
        return None
    return limits.standing(_connection(run), run.line_key)


def _connection(run: WorkflowRun) -> BaseDatabaseWrapper:
    return database.connection_for(run._state.db or router.db_for_read(WorkflowRun))


def name_of(standing: Standing) -> str:
    """The limit: a workflow, with the key, or a queue."""
    return clipped(shown(standing.name), _LONGEST_NAME)


def taken(standing: Standing) -> str:
    """How many slots are taken: `1 of 1`; of a limit that is but a rate, empty."""
    if standing.at_once is None:
        return ""
    return _("%(held)d of %(at_once)d") % {"held": standing.held, "at_once": standing.at_once}


def rate(standing: Standing) -> str:
    """How many runs may begin: `100 a minute`; empty where there is no rate."""
    interval = standing.interval_us
    if interval is None:
        return ""
    if interval <= _MINUTE_US:
        return _("%(count)s a minute") % {
            "count": f"{_MINUTE_US / interval:.10g}" if not _MINUTE_US % interval else f"{_MINUTE_US / interval:.1f}"
        }
    return _("%(count)s a day") % {"count": f"{_DAY_US / interval:.1f}".removesuffix(".0")}


def line(standing: Standing) -> str:
    """A limit as a run's page says it: `a slot of “sync 7”: 1 of 1, taken by 0198…`."""
    parts = [taken(standing), rate(standing)]
    if standing.holders and standing.at_once is not None:
        parts.append(_("taken by %(runs)s") % {"runs": ", ".join(map(str, standing.holders))})
    return _("a slot of “%(limit)s”: %(said)s") % {"limit": name_of(standing), "said": ", ".join(filter(None, parts))}


def circle_of(run: WorkflowRun) -> str:
    """Why a run in line can't go on and what to do, if limits wait for each other; empty for others."""
    found = circles.of_limit(_connection(run), run.line_key) if is_in_line(run) else None
    return "" if found is None else circle(found)


def circle(found: Circle) -> str:
    """Limits that wait for each other: `“a” → “b” → “a”. …`, and what to do."""
    names = [_("“%(limit)s”") % {"limit": clipped(shown(name), _LONGEST_NAME)} for name in found.names]
    shown_names = [*names[:_NAMED], *(["…"] if len(names) > _NAMED else []), names[0]]
    runs = [str(run_id) for run_id in dict.fromkeys(found.holders)][:_NAMED]
    text = _(
        "Limits wait for each other: %(limits)s. The runs that hold the slots of each wait for a slot of the next, so none of"
        " them goes on. Cancel %(runs)s, or let more runs go on at once by one of these limits."
    )
    return text % {"limits": " → ".join(shown_names), "runs": _(" or ").join(runs)}
