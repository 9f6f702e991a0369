"""Records that do not fit the body any more: a pass has not come to them, or has called them with other arguments.

An earlier version of the body has made them, or the body decides by something that changes. They are marked for the pages, and
what is left behind is said in the log once; a mark goes when a pass finds all well again. A run whose body fits pays nothing
but a look at its own history.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Set
from typing import NamedTuple

from django.db import DatabaseError

from ..ledger import contexts, marks
from ..ledger.histories import Recorded
from ..ledger.marks import Mark
from .ending import Ended, Ending
from .frame import Frame
from .host import Host

logger = logging.getLogger("django_steps")

_KEYS = (contexts.UNREACHED, contexts.CHANGED_ARGUMENTS)
_SHOWN = 5  # names, in a line of the log


class Found(NamedTuple):
    """What a pass has found: the records that it has not come to and that are not marked yet, and what is to be marked."""

    new: list[str]
    marks: list[Mark]


def look(frame: Frame, ending: Ending) -> Found | None:
    """What is to be said of the records of a run at the end of a pass; None for nothing, as nearly always."""
    history = frame.history
    if not history.has_loaded or not _went_to_the_end(frame, ending):
        return None
    unreached = [record.name for record in [*frame.state.unreached, *history.unreached_in("")]]
    marked = history.marked(_KEYS)
    known = marked[contexts.UNREACHED]
    found = [
        *_to_mark(frame, contexts.UNREACHED, set(unreached), known),
        *_to_mark(frame, contexts.CHANGED_ARGUMENTS, set(frame.state.changed), marked[contexts.CHANGED_ARGUMENTS]),
    ]
    return Found([name for name in unreached if name not in known], found) if found else None


def say(frame: Frame, host: Host, found: Found) -> None:
    """Mark what was found, and say in the log what is new. Blocks. The pass has ended by now, whatever comes of this."""
    try:
        host.write(lambda: marks.write(host.connection(), frame.run_id, found.marks))
    except DatabaseError:
        logger.exception("The records of run %s could not be marked.", frame.run_id)
    if not found.new:
        return
    for interceptor in frame.interceptors:
        interceptor.unreached(frame.claim, found.new)
    names = ", ".join(map(repr, found.new[:_SHOWN])) + ("…" if len(found.new) > _SHOWN else "")
    logger.warning(
        "Run %s of %r has recorded %s, to which its body does not come any more: an earlier version of the body has made it,"
        " or the body decides by something that changes, or fails before that. manage.py replayworkflows %s says more.",
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
    if ending.reset is not None:  # the body has raised, maybe before it came to them, and is tried again
        return False
    return ending.how in (Ended.SUCCEEDED, Ended.FAILED, Ended.SUSPENDED)


def _to_mark(frame: Frame, key: str, names: Set[str], marked: Mapping[str, Recorded]) -> Iterator[Mark]:
    """What is to be marked by this key, and what not any more."""
    for name in names - marked.keys():
        yield _mark(frame, name, key, is_set=True)
    for name in (marked.keys() & frame.history.reached) - names:
        yield _mark(frame, name, key, is_set=False)


def _mark(frame: Frame, name: str, key: str, *, is_set: bool) -> Mark:
    record = frame.history.recorded(name)  # as it is by now: it may have been recorded anew, or marked by another key
    text = contexts.write({**contexts.read(record.context), key: True if is_set else None})
    frame.history.mark(record, text)
    return Mark(name, record.context, text)
