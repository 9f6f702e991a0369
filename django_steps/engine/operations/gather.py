"""Steps and branches side by side: each has its own record, and the group has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ...core.names import gathered_with, inside
from ...core.states import Cause
from ...definitions.requests import CallBranch, Gather
from ...errors import GroupFailed, RecordedInstanceGone, StepFailed, UnreadableValue
from ...failures import FailureRecord
from ...ledger import children
from ...ledger.waits import Waiting
from .. import fingerprints, stopping
from ..frame import MISTAKES, Frame
from ..groups import Group, Tolerance
from ..history import is_in_any
from ..units import Unit, UnitStatus
from .base import Call, Operation, Part, SideBySide, wait_for_others, wait_until

Operations = Mapping[type, Operation[Any]]


def begin(frame: Frame, request: Gather, operations: Operations, units: list[Unit]) -> Part:
    """Execute the members of a `Gather`, as far as this pass may; puts them into `units`, where they are as far as they have
    come."""
    core, replay = _gather(frame, request, operations, units), frame.replay
    if replay is None or not request.members:
        return core
    part: Part = replay.begin_group(core, frame, gathered_with(request.members[0].name))
    return part


def _gather(frame: Frame, request: Gather, operations: Operations, units: list[Unit]) -> Part:
    scope = frame.scope
    for member in request.members:
        scope.use_defined(member.name)
    group = gathered_with(request.members[0].name) if request.members else ""
    keys = member_keys([member.name for member in request.members], scope.branch)
    units += [Unit(key, member.name, member, scope, group) for key, member in zip(keys, request.members, strict=True)]
    tolerance = Tolerance(len(units), tolerates_all=request.return_exceptions)
    yield from side_by_side(frame, units, operations, None, tolerance)


def side_by_side(
    frame: Frame, units: Sequence[Unit], operations: Operations, concurrency: int | None, tolerance: Tolerance
) -> Part:
    """Execute units until the group is decided or all are over; suspends the run where only time can go on."""
    for unit in units:
        for interceptor in frame.interceptors:
            interceptor.reached(frame.claim, unit.path, frame.scope.branch)
    begun = [unit for unit in units if _look_up(frame, unit, operations[type(unit.request)])]
    first = set(map(id, begun))
    over = [unit for unit in units if unit.status is UnitStatus.OVER]
    others = [unit for unit in units if unit.status is UnitStatus.NEW and id(unit) not in first]
    group = Group([*over, *frame.host.arrange(begun, others, concurrency)], concurrency, tolerance)
    if not tolerance.is_decided and any(unit.status is not UnitStatus.OVER for unit in units):
        frame.guard.check_transaction(units[0].path)
        while (until_us := (yield SideBySide(group))) is not None:
            yield from wait_until(frame, until_us)
    if tolerance.is_decided:
        yield from _stop_children(frame, units)


def _stop_children(frame: Frame, units: Sequence[Unit]) -> Part:
    """The group is decided: cancel the runs that its members have invoked and that have not ended, and wait for their ends."""
    left = [unit.path for unit in units if unit.status is not UnitStatus.OVER]
    names = [record.name for record in frame.history.waiting_for_children() if is_in_any(record, left)]
    host, run_id = frame.host, frame.run_id
    for name in names:
        frame.state.waits.over(name)
    while names:
        yield from stopping.cancel_children(host, run_id, Cause.MAP_STOPPED, names)
        is_open = yield Call(lambda: children.first_open(host.connection(), run_id, names))
        if is_open is None:
            return
        yield from wait_for_others(frame, is_open, Waiting(step=is_open))


def _look_up(frame: Frame, unit: Unit, operation: Operation[Any]) -> bool:
    """Let a unit be what is recorded of it; whether it has begun and is not over."""
    recorded = frame.scope.look_up(unit.path, operation.kind)
    fingerprints.compare(frame, unit.request, recorded)
    if recorded is None:
        return isinstance(unit.request, CallBranch) and frame.history.has_begun(unit.path)
    if operation.is_over(frame, recorded):
        unit.recorded, unit.status = recorded, UnitStatus.OVER
        return False
    if not frame.is_async and recorded.wakes_at_us and recorded.wakes_at_us > frame.claim.now():
        unit.suspended_until, unit.status = recorded.wakes_at_us, UnitStatus.SUSPENDED
    return True


# -- What the body gets --------------------------------------------------------------------------------


def results(frame: Frame, request: Gather, units: Sequence[Unit]) -> tuple[Any, ...]:
    """The results of a gather, in the order of its members; raises `GroupFailed`."""
    for unit in units:
        if unit.recorded is not None:
            frame.scope.deliver(unit.recorded)
    if not request.return_exceptions and any(unit.has_failed for unit in units):
        raise group_failed(frame, "", units)
    return tuple(member_outcome(frame, unit, "", lambda: None) for unit in units)


def group_failed(frame: Frame, path: str, units: Sequence[Unit], what: str = "") -> GroupFailed:
    """The exception of a group of which members have failed; `path`: of its own record, or an empty text; `what`: of what they
    are members, if that is said otherwise."""
    failed: dict[str, Exception] = {}
    steps: dict[str, None] = {}
    for unit in units:
        if unit.has_failed:
            error = failed[unit.key] = failure_of(frame, unit, path)
            steps |= dict.fromkeys(frame.state.attribution.steps_it_is(error) or [unit.path])
    succeeded = dict(_readable_results(frame, units))
    what = what or (f"of {path!r}" if path else f"of {len(units)} that were gathered")
    error = GroupFailed(f"{len(failed)} {what} failed", failed, succeeded)
    frame.state.attribution.remember(error, list(steps))
    return error


def _readable_results(frame: Frame, units: Sequence[Unit]) -> Iterator[tuple[str, Any]]:
    """What the others returned, but for what can't be read any more (a deleted row, say): it is not what failed."""
    for unit in units:
        if unit.recorded is not None and not unit.has_failed:
            with suppress(RecordedInstanceGone, UnreadableValue):
                yield unit.key, frame.value(unit.recorded)


def member_outcome(frame: Frame, unit: Unit, path: str, otherwise: Callable[[], Any]) -> Any:
    """What stands in a list of results: the value, the exception, or `otherwise()` for a unit that is not over; `path` as in
    `failure_of()`."""
    if unit.recorded is None:
        return otherwise()
    return failure_of(frame, unit, path) if unit.has_failed else frame.value(unit.recorded)


def failure_of(frame: Frame, unit: Unit, path: str) -> Exception:
    """The failure of a member, with a note that says whose it is. Raises a mistake of the code: it fails the run.

    `path`: of the group's own record, or an empty text. That is an outcome of this failure, too: where a body raises the
    failure, a retry has to decide the group anew.
    """
    assert unit.recorded is not None
    attribution = frame.state.attribution
    error = frame.failure(unit.recorded)
    if isinstance(error, MISTAKES):
        raise error
    if not isinstance(error, Exception):
        original, record = error, FailureRecord.read(unit.recorded.error or "")
        error = StepFailed(record.type, record.message)
        attribution.remember(error, attribution.steps_it_is(original), unit.path)
    if path:
        attribution.remember(error, [*attribution.steps_it_is(error), path], unit.path)
    error.add_note(f"This is the failure of {unit.path!r}.")
    return error


def member_keys(paths: Sequence[str], branch: str) -> list[str]:
    """What gathered steps and branches are called where they were defined; beside a step of its name a branch is `name#`."""
    names = [inside(branch, path) for path in paths]
    taken = set(names)
    return [name if (short := name.removesuffix("#")) in taken else short for name in names]
