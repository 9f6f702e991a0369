"""The same for each of many items, side by side. Each item has its own record; how it all ended is a record, too.

A finished map gives the same results whatever items it is called with. While it is unfinished, items are matched by their
keys: new ones execute, and the records of those that are missing stay unused.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ... import failures, values
from ...core.unfinished import UNFINISHED
from ...definitions.keys import item_segment
from ...definitions.requests import CallBranch, Invoke, Map, RunStep
from ...ledger.histories import Recorded
from ...ledger.records import StepWrite
from .. import fingerprints
from ..ending import Ended, Ending
from ..frame import Frame
from ..groups import Tolerance
from ..units import Unit, UnitStatus
from .base import Core, Operation, Record
from .branch import BranchOperation
from .gather import Operations, failure_of, group_failed, member_outcome, side_by_side
from .step import StepOperation

logger = logging.getLogger("django_steps")

_MEMBERS: Operations = {RunStep: StepOperation(), CallBranch: BranchOperation()}
_KINDS: dict[type, str] = {CallBranch: "branch", Invoke: "invoke"}  # of the records of members
_SHOWN = 5  # keys, in a warning


class MapOperation(Operation[Map]):
    """The record says which items there were, in order, and what became of each: the decision, once it is made."""

    kind = "map"

    def recorded_as(self, frame: Frame, request: Map) -> str:
        frame.scope.reserve(request.name)
        return request.name

    def is_over(self, frame: Frame, recorded: Recorded) -> bool:
        return recorded.is_final

    def core(self, frame: Frame, request: Map, name: str, recorded: Recorded | None) -> Core:
        request.check_successes()
        started_at, after = frame.claim.now(), frame.scope.after(name)
        units = [Unit(key, member.name, member, frame.scope, name) for key, member in request.members.items()]
        tolerance = Tolerance(
            len(units), request.max_failures, request.min_successes, tolerates_all=request.return_exceptions
        )
        yield from side_by_side(frame, units, _MEMBERS, request.concurrency, tolerance)
        write, error = decision(frame, name, units, tolerance)
        write.started_at, write.after = started_at, after
        frame.ensure_held((yield Record(write)))
        final = frame.add(write, error)
        if frame.host.suspends_always:
            frame.end(Ending(Ended.RELEASED))
        return final

    def outcome(self, frame: Frame, request: Map, recorded: Recorded) -> list[Any]:
        units = _recorded_units(frame, request, recorded)
        for unit in units:
            if unit.recorded is not None:
                frame.scope.deliver(unit.recorded)
        if recorded.status == "failed":
            raise group_failed(frame, recorded.name, units)
        return [member_outcome(frame, unit, recorded.name, lambda: UNFINISHED) for unit in units]


def decision(
    frame: Frame, name: str, units: Sequence[Unit], tolerance: Tolerance
) -> tuple[StepWrite, Exception | None]:
    """The record of a map that is decided, and its exception if it has failed."""
    error, text = None, None
    if not tolerance.has_failed:
        for unit in units:
            if unit.has_failed:
                failure_of(frame, unit, name)  # raises a mistake of the code, which no list holds
    else:
        error = group_failed(frame, name, units)
        text = failures.with_steps(failures.record(error), frame.state.attribution.steps_it_is(error))
    kind = _KINDS.get(type(units[0].request), "step") if units else "step"
    said = {"kind": kind, "keys": [unit.key for unit in units], "states": "".join(map(_letter, units))}
    write = frame.write_of(
        name,
        MapOperation.kind,
        "succeeded" if error is None else "failed",
        position=frame.history.next_position(),
        output=values.encode(said),
        error=text,
        started_at=0,
        finished_at=frame.claim.now(),
    )
    return write, error


def _letter(unit: Unit) -> str:
    """Succeeded, failed, or unfinished."""
    if unit.recorded is None:
        return "u"
    return "f" if unit.has_failed else "s"


def _recorded_units(frame: Frame, request: Map, recorded: Recorded) -> list[Unit]:
    """The members of a finished map as its record names them."""
    decision = frame.value(recorded)
    keys, kind = decision["keys"], decision["kind"]
    _warn_of_other_items(frame, request, keys)
    units = []
    for key, letter in zip(keys, decision["states"], strict=True):
        unit = Unit(key, f"{recorded.name}#{item_segment(key)}", None, frame.scope, recorded.name)
        if letter != "u":
            unit.recorded, unit.status = frame.scope.look_up(unit.path, kind), UnitStatus.OVER
            if unit.recorded is None:  # it was reset since the history was loaded
                frame.end(Ending(Ended.LOST))
            fingerprints.compare(frame, request.members.get(key), unit.recorded)
        units.append(unit)
    return units


def _warn_of_other_items(frame: Frame, request: Map, keys: Sequence[str]) -> None:
    given = list(request.members)
    if given == list(keys):
        return
    before, now = set(keys), set(given)
    added, missing = [key for key in given if key not in before], [key for key in keys if key not in now]
    what = "they are in another order"
    if added or missing:
        what = "; ".join(
            f"{word}: {', '.join(map(repr, some[:_SHOWN]))}{'…' if len(some) > _SHOWN else ''}"
            for word, some in (("new", added), ("missing", missing))
            if some
        )
    logger.warning(
        "Map %r of run %s has ended with other items than it is called with now (%s). Its recorded results are used.",
        request.name,
        frame.run_id,
        what,
    )
