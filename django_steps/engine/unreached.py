"""Records that a pass has not come to: an earlier version of the body has made them, or the body decides differently each time.

They are said in the log once, and marked for the pages; the mark goes when a pass comes to them again. A run whose body comes
to all of them pays nothing but a look at its own history.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from ..ledger import contexts, marks
from ..ledger.histories import Recorded
from ..ledger.marks import Mark
from .ending import Ended, Ending
from .frame import Frame
from .host import Host

logger = logging.getLogger("django_steps")

_SHOWN = 5  # names, in a line of the log


class Found(NamedTuple):
    """What a pass has found: the records that it has not come to and that are not marked yet, and what is to be marked."""

    new: list[str]
    marks: list[Mark]


def look(frame: Frame, ending: Ending) -> Found | None:
    """What is to be said of the records of a run at the end of a pass; None for nothing, as nearly always."""
    if not frame.history.has_loaded or not _went_to_the_end(frame, ending):
        return None
    unreached = [*frame.state.unreached, *frame.history.unreached_in("")]
    marked = frame.history.marked(contexts.UNREACHED)
    new = [record for record in unreached if record not in marked]
    again = [record for record in marked if record.name in frame.history.reached]
    if not new and not again:
        return None
    return Found(
        [record.name for record in new],
        [_mark(frame, record, is_set=True) for record in new]
        + [_mark(frame, record, is_set=False) for record in again],
    )


def say(frame: Frame, host: Host, found: Found) -> None:
    """Mark what was found, and say in the log what is new. Blocks."""
    host.write(lambda: marks.write(host.connection(), frame.run_id, found.marks))
    if not found.new:
        return
    for interceptor in frame.interceptors:
        interceptor.unreached(frame.claim, found.new)
    names = ", ".join(map(repr, found.new[:_SHOWN])) + ("…" if len(found.new) > _SHOWN else "")
    logger.warning(
        "Run %s of %r has recorded %s, to which its body does not come any more: an earlier version of the body has made it, or"
        " the body decides by something that changes. manage.py replayworkflows %s says more.",
        frame.run_id,
        frame.claim.workflow,
        names,
        frame.run_id,
    )


def _went_to_the_end(frame: Frame, ending: Ending) -> bool:
    """Whether the body has come as far as it could: nothing has cut the pass short."""
    cut = frame.state.ending
    if frame.state.mistake is not None or (cut is not None and cut.how is not Ended.SUSPENDED):
        return False
    return ending.how in (Ended.SUCCEEDED, Ended.FAILED, Ended.SUSPENDED)


def _mark(frame: Frame, record: Recorded, *, is_set: bool) -> Mark:
    details = contexts.read(record.context)
    text = contexts.write({**details, contexts.UNREACHED: True if is_set else None})
    frame.history.mark(record, text)
    return Mark(record.name, record.context, text)
