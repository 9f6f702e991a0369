"""Undoing: the undo of each step that has succeeded is executed as a step, one after the other, the newest first.

Which those are the scopes know, by what the body and its branches have come to in this pass. A branch that is over is not
called any more, and neither is one that its group has left; where something in it is to be undone, its function is called once
more, and only replays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...core.names import inside, undo_of
from ...core.states import UNDO, StepStatus
from ...definitions.requests import CallBranch, RunStep, Undo
from ...definitions.undos import arguments_of
from ...errors import RecordedInstanceGone, StepsError
from ...ledger import contexts, undone
from ...ledger.histories import Recorded
from ...ledger.order import Place
from ..frame import Frame
from ..groups import Group, Tolerance
from ..replay import Replay
from ..scopes import Scope
from ..units import Unit
from .attempts import Attempt
from .base import Call, Effect, Part, SideBySide
from .gather import group_failed
from .step import StepOperation


@dataclass(slots=True)
class RunUndo(RunStep):
    """Execute the undo of a step."""


class _Attempt(Attempt):
    kind = UNDO


class UndoOperation(StepOperation):
    """Its name is that of the step, and what nothing else is called."""

    kind = UNDO
    attempt = _Attempt


OPERATION = UndoOperation()
logger = logging.getLogger("django_steps")


class Target(NamedTuple):
    """A step that is to be undone: as it was called, and its record."""

    request: RunStep
    recorded: Recorded

    @property
    def name(self) -> str:
        """What its undo is recorded under."""
        return undo_of(self.request.name)


def begin(frame: Frame, request: Undo, units: list[Unit]) -> Part:
    """Undo what this body or branch has done, as far as this pass may; puts the undos into `units`."""
    targets = _take((yield from _targets(frame)), frame.scope)
    has_begun = any(frame.history.find(target.name) is not None for target in targets)
    if request.reason and targets and not has_begun and frame.replay is None:
        logger.info("Run %s undoes what it has done: %s", frame.run_id, request.reason)
    yield from carry_out(frame, targets, units)


def _take(targets: Sequence[Target], scope: Scope) -> list[Target]:
    """Those of these that are still to be undone, which are this call's from now on. Another task of an async body may have
    taken some while this one found out what there is."""
    by_path = {target.request.name: target for target in targets}
    taken = []
    for place in _scopes(scope):
        for path in [path for path in place.undoable if path in by_path]:
            target = by_path[path]
            del place.undoable[path]
            place.undone[path] = target.request
            taken.append(target)
    return taken


def results(frame: Frame, units: Sequence[Unit]) -> None:
    """What the body gets; raises `GroupFailed`."""
    for unit in units:
        if unit.recorded is not None:
            frame.scope.deliver(unit.recorded)
    if any(unit.has_failed for unit in units):
        raise group_failed(frame, "", units, f"of {len(units)} that were undone")


def carry_out(frame: Frame, targets: Sequence[Target], units: list[Unit], *, again: bool = False) -> Part:
    """Execute the undos of these, the newest first; `again`: also those that the body had canceled."""
    scope = frame.scope
    for target in sorted(targets, key=lambda target: target.recorded.position, reverse=True):
        name = target.name
        scope.reserve_undo(name)
        for interceptor in frame.interceptors:
            interceptor.reached(frame.claim, name, scope.branch)
        recorded = scope.look_up(name, UNDO)
        key = inside(scope.branch, target.request.name)
        unit = Unit(key, name, RunUndo(name, _nothing, (), {}), scope, "")
        units.append(unit)
        if recorded is None or not recorded.is_final or (again and recorded.status == StepStatus.CANCELED):
            frame.guard.check_transaction(name)
            unit.request = yield from _request(frame, target)
            recorded = yield from OPERATION.begin(frame, unit.request, name, recorded)
        unit.recorded = recorded


def _nothing() -> None:
    """Stands for an undo that is not executed any more."""


def _request(frame: Frame, target: Target) -> Generator[Effect, Any, RunUndo]:
    request, recorded = target.request, target.recorded
    undo = request.options.undo
    assert undo is not None
    try:
        if frame.is_async:
            result = yield Call(lambda: frame.value(recorded))
        else:
            result = frame.value(recorded)
        args, kwargs = arguments_of(request.name, undo, request.args, request.kwargs)
    except (StepsError, TypeError, RecordedInstanceGone) as error:  # a deleted row, say
        return RunUndo(target.name, _raising(error), (), {}, request.options)
    return RunUndo(target.name, undo, (result, *args), kwargs, request.options)


def _raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


# -- What is to be undone ------------------------------------------------------------------------------


def _targets(frame: Frame) -> Generator[Effect, Any, list[Target]]:
    """The steps that have succeeded, have an undo, and were not undone by an earlier call: here and in the branches below."""
    # Also those in which all is undone by now: this call comes to the records of their undos.
    yield from _enter_branches(frame, frame.scope, _around(_with_undo(frame)))
    scopes = list(_scopes(frame.scope))
    # In an async body others may go on meanwhile: what was recorded since is for the next call.
    known = max(scope.delivered for scope in scopes) if frame.is_async else None
    return [target for scope in scopes for target in _of(frame, scope.undoable, known)]


def _of(frame: Frame, requests: dict[str, RunStep], known: int | None = None) -> Iterator[Target]:
    for path, request in requests.items():
        recorded = frame.history.find(path)
        if recorded is None or not _is_done(recorded):
            continue
        if known is None or recorded.position <= known:
            yield Target(request, recorded)


def all_targets(frame: Frame) -> Generator[Effect, Any, list[Target]]:
    """The steps that have succeeded, have an undo, and are not undone, whether the body has tried to or not."""
    yield from _enter_branches(frame, frame.scope, _around(marked(frame)))
    found = {
        target.request.name: target
        for scope in _scopes(frame.scope)
        for target in _of(frame, {**scope.undone, **scope.undoable})
    }
    return [target for path, target in found.items() if not is_undone(frame, path)]


def _with_undo(frame: Frame) -> list[Recorded]:
    return list(frame.history.marked([contexts.UNDO])[contexts.UNDO].values())


def marked(frame: Frame) -> list[Recorded]:
    """The records of steps that have an undo, and are not undone."""
    return [record for record in _with_undo(frame) if _is_done(record) and not is_undone(frame, record.name)]


def _is_done(record: Recorded) -> bool:
    """Whether a step has done what its undo takes back: it has succeeded, or had returned when an async body canceled it."""
    if record.status == StepStatus.CANCELED:
        return contexts.UNDO in contexts.read(record.context)
    return record.status == StepStatus.SUCCEEDED


def is_undone(frame: Frame, path: str) -> bool:
    """Whether the undo of a step has succeeded."""
    recorded = frame.history.find(undo_of(path))
    return recorded is not None and recorded.status == StepStatus.SUCCEEDED


def before_own_error(frame: Frame, steps: Sequence[str]) -> bool:
    """Whether the body, or a branch that made it fail, has undone something and then failed by an error of its own; `steps`:
    whose failures the error is. Called once more it could take another way, on which nothing is undone."""
    find = frame.history.find
    undos = [find(undo_of(record.name)) for record in _with_undo(frame) if is_undone(frame, record.name)]
    return bool(undos) and bool(undone.before_own_error(_places(undos), _places(map(find, steps))))


def _places(records: Iterable[Recorded | None]) -> list[Place]:
    return [Place.read(one.name, one.position, one.after, one.context) for one in records if one is not None]


def _scopes(scope: Scope) -> Iterator[Scope]:
    """A scope, and those of the branches below."""
    yield scope
    for inner in scope.inners.values():
        if isinstance(inner, Scope):
            yield from _scopes(inner)


# -- Branches that are not called any more -------------------------------------------------------------


class _Entering(Group):
    """One branch that only replays. It is left as soon as it goes no further."""

    def take(self, now_us: int, *, alone: bool = False) -> Unit | None:
        unit = super().take(now_us, alone=alone)
        if unit is not None:
            self.tolerance.is_decided = True
        return unit

    def may_leave(self, *, is_unfolding: bool) -> bool:
        return not is_unfolding


def _around(records: Iterable[Recorded]) -> set[str]:
    """The paths of the branches that any of these records is in, among others."""
    return set().union(*(place.paths() for place in _places(records)))


def _enter_branches(frame: Frame, scope: Scope, wanted: Set[str]) -> Part:
    """Call the branches at these paths once more that were not called in this pass."""
    for path, inner in list(scope.inners.items()):
        if isinstance(inner, CallBranch):
            if path not in wanted:
                continue
            entered = yield from _enter(frame, scope, inner)
            if entered is not None and scope.inners[path] is inner:  # another task may have entered it meanwhile
                scope.inners[path] = entered
            inner = scope.inners[path]
            if isinstance(inner, CallBranch):
                continue
        yield from _enter_branches(frame, inner, wanted)


def _enter(frame: Frame, scope: Scope, request: CallBranch) -> Generator[Effect, Any, Scope | None]:
    """The scope of a branch that was called once more."""
    replaying = scope.replaying(Replay())
    around = Unit(request.name, request.name, request, replaying, "")
    around.outer = frame.unit
    caller = Frame(frame.state, frame.host, replaying, around, frame.connections)
    unit = Unit(request.name, request.name, request, replaying, "")
    yield SideBySide(_Entering([unit], None, Tolerance(1)), caller)
    entered = replaying.inners.get(request.name)
    return entered if isinstance(entered, Scope) else None
