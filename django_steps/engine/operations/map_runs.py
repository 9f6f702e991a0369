"""A map over a workflow: a run for each item, spread over all workers.

The children are started in chunks; the last of them to end wakes the parent, which copies their outcomes into records of its
own, in the transaction of the map's record. How many have ended is counted from their rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ... import failures
from ...core.states import FINISHED, Cause, Status, StepStatus
from ...definitions.keys import item_segment
from ...definitions.requests import Invoke, MapRuns
from ...ledger import children, contexts, histories, mapped, order
from ...ledger.children import Found
from ...ledger.histories import Recorded
from ...ledger.inserts import NewRun
from ...ledger.records import Outcome, StepWrite, record_with
from ...ledger.waits import Waiting
from .. import stopping
from ..ending import Ended, Ending
from ..frame import Frame
from ..groups import Tolerance
from ..history import as_recorded
from ..host import Host
from ..units import Unit, UnitStatus
from .base import Call, Commit, Core, Effect, Part, wait_for_others
from .invoke import DEEPEST, InvokeOperation, child_of, failure_of, too_deep
from .map import MapOperation, decision


class MapRunsOperation(MapOperation):
    """Until the map is decided its record waits for the children."""

    def core(self, frame: Frame, request: Any, name: str, recorded: Recorded | None) -> Core:
        request.check_successes()
        for member in request.members.values():
            for interceptor in frame.interceptors:
                interceptor.reached(frame.claim, member.name, frame.scope.branch)
        frame.state.waits.over(name)
        if frame.claim.depth >= DEEPEST:
            raise too_deep(frame)
        call = _Call(frame, request, name, recorded)
        if recorded is None:
            yield from call.begin()
        final = yield from call.conclude()
        if frame.host.suspends_always:
            frame.end(Ending(Ended.RELEASED))
        return final


class _Look(NamedTuple):
    """How the children of a map stand: how many there are by status, how many have not ended, how many of those that ended
    badly are to be retried, and what the map makes of that."""

    counts: dict[str, int]
    active: int
    stale: int
    tolerance: Tolerance


class _Call:
    """One call of a map over a workflow, in one pass."""

    def __init__(self, frame: Frame, request: MapRuns, name: str, recorded: Recorded | None) -> None:
        self._frame, self._request, self._name, self._recorded = frame, request, name, recorded
        said = contexts.read(recorded.context) if recorded is not None else {}
        self._started_at = contexts.number(said, "reached_us") or frame.claim.now()
        self._after = frame.scope.after(name) if recorded is None else recorded.after
        self._number = len(request.members)
        self._segments = [item_segment(key) for key in request.members]
        self._keys = sha256("\n".join(self._segments).encode()).hexdigest()[:16]
        # Otherwise the list is another one than when the map began.
        self._has_same_keys = recorded is None or said.get("keys") == self._keys
        timeout_us = next((m.timeout_us for m in request.members.values() if isinstance(m, Invoke)), None)
        self._timeout_us = timeout_us
        self._deadline_us = None if timeout_us is None else self._started_at + timeout_us

    # -- Starting children ------------------------------------------------------------------------

    def begin(self) -> Part:
        """Record that the map waits, together with its first children."""
        frame, host = self._frame, self._frame.host
        first = self._children(list(self._request.members))[: self._room({})]  # all, so that each input is looked at
        write = self._waiting()
        chunk = first[: children.CHUNK]
        frame.ensure_held((yield Commit(write, lambda: _with_children(host.connection(), write, chunk))))
        self._recorded = frame.add(write)
        yield from self._insert(first[children.CHUNK :])

    def _children(self, keys: Sequence[str]) -> list[NewRun]:
        members = self._request.members
        found = []
        for key in keys:
            member = members[key]
            assert isinstance(member, Invoke)
            found.append(child_of(self._frame, member, self._name, item_segment(key)))
        return found

    def _insert(self, new: Sequence[NewRun]) -> Part:
        frame, host = self._frame, self._frame.host
        run_id, token = frame.run_id, frame.claim.token
        for start in range(0, len(new), children.CHUNK):
            chunk = new[start : start + children.CHUNK]
            insert = partial(children.insert_more, parent=run_id, token=token, children=chunk)
            frame.ensure_held((yield _on_connection(host, insert)))

    def _room(self, counts: dict[str, int]) -> int:
        """How many more children may be started now."""
        concurrency = self._request.concurrency
        if concurrency is None:
            return self._number
        return max(0, concurrency - _active(counts))

    # -- Waiting for them -------------------------------------------------------------------------

    def conclude(self) -> Core:
        """Wait until the map is decided and all its children have ended, and record how that was."""
        frame, name = self._frame, self._name
        while True:
            looked_at = frame.claim.now()
            look = yield from self._look()
            is_decided = look.tolerance.is_decided
            if not is_decided and (yield from self._begun_more(look)):
                continue
            deadline_us = yield from self._next_deadline()
            is_late = deadline_us is not None and looked_at >= deadline_us
            if look.active and (is_decided or is_late):
                yield from self._cancel(None if is_decided else deadline_us)
                if not (yield from self._has_open()):
                    continue
            if look.active:
                until_us = None if is_late else deadline_us
                yield from wait_for_others(frame, name, Waiting(step=name, until_us=until_us))
                continue
            final = yield from self._end(look.stale)
            if final is not None:
                return final

    def _look(self) -> Generator[Effect, Any, _Look]:
        frame, host, name = self._frame, self._frame.host, self._name
        counts, number_open = yield Call(lambda: children.counts(host.connection(), frame.run_id, name))
        stale = 0
        if _unsuccessful(counts):
            stale = yield Call(lambda: children.count_to_retry(host.connection(), frame.run_id, name))
        tolerance = self._tolerance((yield from self._of_members(counts)), stale)
        frame.state.map_progress = self._progress(counts)
        look = _Look(counts, _active(counts), stale, tolerance)
        if look.active > number_open:  # somebody has retried some, who did not know that they are waited for
            yield Call(lambda: children.open_again(host.connection(), frame.run_id, name))
        return look

    def _begun_more(self, look: _Look) -> Generator[Effect, Any, bool]:
        """Let children begin, or go on, as far as there is room; whether there were any."""
        room = self._room(look.counts)
        if look.stale and room:
            yield from self._retry(room)
            return True
        return bool(room and (yield from self._insert_missing(look.counts, room)))

    def _has_open(self) -> Generator[Effect, Any, bool]:
        host, run_id, steps = self._frame.host, self._frame.run_id, [self._name]
        return (yield Call(lambda: children.first_open(host.connection(), run_id, steps))) is not None

    def _of_members(self, counts: Mapping[str, int]) -> Generator[Effect, Any, Mapping[str, int]]:
        """Of how many children there are, by status, those of the items that there are now: others are only waited for."""
        if self._has_same_keys:
            return counts
        host, run_id, name = self._frame.host, self._frame.run_id, self._name
        present = yield Call(lambda: children.items(host.connection(), run_id, name))
        return self._counted(present)

    def _counted(self, present: Mapping[str, str]) -> Counter[str]:
        return Counter(present[item] for item in self._segments if item in present)

    def _tolerance(self, counts: Mapping[str, int], stale: int) -> Tolerance:
        """How the map stands; `stale` ends of children don't count, since they are to be retried."""
        request = self._request
        tolerance = Tolerance(
            self._number, request.max_failures, request.min_successes, tolerates_all=request.return_exceptions
        )
        for _ in range(_unsuccessful(counts) - stale):
            tolerance.note(has_failed=True)
        for _ in range(counts.get(Status.SUCCEEDED, 0)):
            tolerance.note(has_failed=False)
        return tolerance

    def _progress(self, counts: dict[str, int]) -> tuple[int, int] | None:
        if self._frame.unit is not None or self._frame.scope.branch:
            return self._frame.state.map_progress
        return sum(number for status, number in counts.items() if status in FINISHED), self._number

    def _retry(self, room: int) -> Part:
        """Let children go on that failed before the parent was retried, or were canceled with it."""
        frame, host, name = self._frame, self._frame.host, self._name
        run_id, token = frame.run_id, frame.claim.token
        found = yield Call(lambda: children.to_retry(host.connection(), run_id, name, min(room, children.CHUNK)))
        for start in range(0, len(found), children.RETRIED_AT_ONCE):
            some = found[start : start + children.RETRIED_AT_ONCE]
            retry = partial(children.retry, parent=run_id, token=token, step=name, children=some)
            frame.ensure_held((yield _on_connection(host, retry)))

    def _insert_missing(self, counts: Mapping[str, int], room: int) -> Generator[Effect, Any, bool]:
        """Start children that are not there: those beyond `concurrency`, what a crash has kept from being started, or items
        that are new; whether there were any."""
        frame, host, name = self._frame, self._frame.host, self._name
        if self._has_same_keys and sum(counts.values()) >= self._number:
            return False
        present = yield Call(lambda: children.items(host.connection(), frame.run_id, name))
        missing = [key for key in self._request.members if item_segment(key) not in present]
        yield from self._insert(self._children(missing[:room]))
        return bool(missing)

    def _next_deadline(self) -> Generator[Effect, Any, int | None]:
        """When the time of the first child is over. They all begin at once, unless `concurrency` bounds them."""
        if self._timeout_us is None or self._request.concurrency is None:
            return self._deadline_us
        host, run_id, name = self._frame.host, self._frame.run_id, self._name
        started_us = yield Call(lambda: children.oldest_open(host.connection(), run_id, name))
        return self._deadline_us if started_us is None else max(started_us, self._started_at) + self._timeout_us

    def _cancel(self, deadline_us: int | None) -> Part:
        """Cancel the children whose time was over at a deadline, or all since the map is decided."""
        host, run_id, steps = self._frame.host, self._frame.run_id, [self._name]
        if deadline_us is None:
            yield from stopping.cancel_children(host, run_id, Cause.MAP_STOPPED, steps)
        elif self._request.concurrency is None or self._timeout_us is None:
            yield from stopping.cancel_children(host, run_id, Cause.TIMED_OUT, steps)
        else:
            yield from stopping.cancel_children(
                host, run_id, Cause.TIMED_OUT, steps, started_by_us=deadline_us - self._timeout_us
            )

    # -- The end ----------------------------------------------------------------------------------

    def _end(self, stale: int) -> Generator[Effect, Any, Recorded | None]:
        """Record the outcomes of the children and of the map, in one transaction; None if they have changed meanwhile."""
        frame, host, name = self._frame, self._frame.host, self._name
        run_id, history = frame.run_id, frame.history
        statuses = yield Call(lambda: children.items(host.connection(), run_id, name))
        failed = yield Call(lambda: mapped.failed(host.connection(), run_id, name))
        position = history.next_position()
        failures_by_path = {
            f"{name}#{item}": self._failure(f"{name}#{item}", child, position) for item, child in failed
        }
        units = [self._unit(key, statuses, failures_by_path, position) for key in self._request.members]
        write, error = decision(frame, name, units, self._tolerance(self._counted(statuses), stale))
        write.started_at, write.after, write.replaces = self._started_at, self._after, True
        number = len(failed) + sum(status == Status.SUCCEEDED for status in statuses.values())
        context = order.context_of(frame.scope.levels, name)
        copy = partial(mapped.record_results, write=write, failures=list(failures_by_path.values()), context=context)
        try:
            outcome = yield Commit(write, lambda: copy(host.connection(), number=number))
            if outcome is None:
                return None
            frame.ensure_held(outcome)
            history.expect(write.position)  # what is recorded later is delivered later, also while this is read
            recorded = yield Call(lambda: histories.load(host.connection(), {run_id: position - 1})[run_id])
        finally:
            history.settle(position)
            history.settle(write.position)
        for record in recorded:
            history.add(record)
        return frame.add(write, error)

    def _unit(self, key: str, statuses: dict[str, str], failed: dict[str, StepWrite], position: int) -> Unit:
        """An item as it has ended; without a record if it has no outcome."""
        path = f"{self._name}#{item_segment(key)}"
        unit = Unit(key, path, self._request.members[key], self._frame.scope, self._name)
        if path in failed:
            unit.recorded, unit.status = as_recorded(failed[path]), UnitStatus.OVER
        elif statuses.get(item_segment(key)) == Status.SUCCEEDED:
            unit.recorded, unit.status = as_recorded(self._write(path, StepStatus.SUCCEEDED, position)), UnitStatus.OVER
        return unit

    def _failure(self, path: str, child: Found, position: int) -> StepWrite:
        text = failures.with_steps(failures.record(failure_of(child, path)), [path])
        return self._write(path, StepStatus.FAILED, position, child=child.run_id.hex, error=text)

    def _write(
        self, path: str, status: str, position: int, *, child: str | None = None, error: str | None = None
    ) -> StepWrite:
        """The record of an item."""
        frame = self._frame
        return StepWrite(
            run_id=frame.run_id,
            token=frame.claim.token,
            name=path,
            kind=InvokeOperation.kind,
            branch=frame.scope.branch,
            position=position,
            after=self._after,
            status=status,
            error=error,
            context=order.context_of(frame.scope.levels, self._name, {"child": child}),
            started_at=self._started_at,
            finished_at=frame.claim.now(),
        )

    def _waiting(self) -> StepWrite:
        """The record that the map waits for its children, with what concerns their ends."""
        request, frame = self._request, self._frame
        successes, failures_ = request.min_successes, None
        if not request.return_exceptions:
            most = request.max_failures if request.max_failures is not None else 0 if successes is None else None
            failures_ = self._number - (successes or 0) + 1 if most is None else most + 1
        return frame.write_of(
            self._name,
            MapRunsOperation.kind,
            StepStatus.WAITING,
            {
                "children": self._number,
                "keys": self._keys,
                "reached_us": self._started_at,
                "deadline_us": self._deadline_us,
                "window": True if request.concurrency is not None else None,
                "stops_after_failures": failures_,
                "stops_after_successes": successes,
            },
            position=frame.history.next_position(),
            after=self._after,
            started_at=self._started_at,
        )


def _active(counts: Mapping[str, int]) -> int:
    return sum(number for status, number in counts.items() if status not in FINISHED)


def _unsuccessful(counts: Mapping[str, int]) -> int:
    return counts.get(Status.FAILED, 0) + counts.get(Status.CANCELED, 0)


def _on_connection(host: Host, statement: Callable[..., Any]) -> Call:
    return Call(lambda: statement(host.connection()))


def _with_children(connection: BaseDatabaseWrapper, write: StepWrite, new: Sequence[NewRun]) -> Outcome | None:
    return record_with(connection, write, lambda: children.insert(connection, new))
