"""Holds what the database says against what was really done, for runs of the kinds in `workflows.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection

from django_steps.ledger import database
from django_steps.models import StepRecord, WorkflowRun
from tests.app.models import Effect
from tests.staging import eventually

from . import evidence, workflows
from .evidence import Line

# A database's clock may show whole milliseconds only.
CLOCK_TICK = 2_000  # microseconds


@dataclass(frozen=True)
class Kind:
    """What a run of one workflow comes to, whatever happens on the way: (name, status, attempts) of each record, in order
    unless some are executed side by side."""

    workflow: Any
    records: tuple[tuple[str, str, int], ...]
    atomic: frozenset[str] = frozenset()
    status: str = "succeeded"
    is_ordered: bool = True


# A sleep's record keeps saying that it waits.
_SLEEPS = {"short", "long"}


def _done(*names: str) -> tuple[tuple[str, str, int], ...]:
    return tuple((name, "waiting" if name.rpartition("/")[2] in _SLEEPS else "succeeded", 1) for name in names)


_PARCELS = [f"parcel#{number}" for number in range(3)]
_BOOKED = [f"{parcel}/book" for parcel in _PARCELS]
_ATOMIC_ITEMS = [f"atomic#{number}" for number in range(4)]


KINDS = (
    Kind(workflows.plain, _done(*(f"plain_{number}" for number in range(4)))),
    Kind(
        workflows.atomic,
        _done(*(f"atomic_{number}" for number in range(4))),
        frozenset(f"atomic_{number}" for number in range(4)),
    ),
    Kind(workflows.sleeping, _done("before", "short", "between", "long", "after"), frozenset({"between"})),
    Kind(
        workflows.retrying,
        (*_done("before"), ("stubborn", "succeeded", 3), ("stubborn_atomic", "succeeded", 2)),
        frozenset({"stubborn_atomic"}),
    ),
    Kind(
        workflows.caught,
        (*_done("charge"), ("ship", "failed", 1), *_done("refund", "long", "tell")),
        frozenset({"charge", "refund"}),
    ),
    Kind(
        workflows.mapped,
        _done(
            *_BOOKED,
            *(f"{parcel}/short" for parcel in _PARCELS),
            *(f"{parcel}/label" for parcel in _PARCELS),
            *_PARCELS,
            *(f"item#{number}" for number in range(4)),
            *_ATOMIC_ITEMS,
            "parcel",
            "item",
            "atomic",
        ),
        frozenset([*_BOOKED, *_ATOMIC_ITEMS]),
        is_ordered=False,
    ),
    Kind(
        workflows.asynchronous,
        (
            *_done(
                *("one", "two", "three", "four", "winner", "last", "parcel", "item", *_PARCELS),
                *(f"{parcel}/{name}" for parcel in _PARCELS for name in ("book", "short", "label")),
                *(f"item#{number}" for number in range(4)),
            ),
            ("loser", "canceled", 1),
        ),
        frozenset({"three", "last"}),
        is_ordered=False,
    ),
    Kind(workflows.failing, (*_done("before"), ("fatal", "failed", 2)), frozenset({"before"}), status="failed"),
)


def writing_kind(steps: int) -> Kind:
    """What a run of `workflows.writing` comes to."""
    names = [f"write_{number}" for number in range(steps)]
    return Kind(workflows.writing, _done(*names), frozenset(names[::2]))


@dataclass
class Tally:
    """What was looked at, for the report."""

    runs: int = 0
    steps: int = 0
    executions: int = 0

    @property
    def repeated(self) -> int:
        """Executions that were cut short and so had to be repeated."""
        return self.executions - self.steps


class Started:
    """The runs that a test has started, and the evidence that they leave behind."""

    def __init__(self, path: Path, pause: float = 0.02) -> None:
        self.path, self.pause = path, pause
        self.kinds: dict[str, Kind] = {}
        self.ids: dict[str, Any] = {}

    def start(self, kind: Kind, **input: Any) -> WorkflowRun:
        label = f"run{len(self.kinds)}"
        run: WorkflowRun = kind.workflow.start({"label": label, "pause": self.pause, **input})
        self.kinds[label], self.ids[label] = kind, run.pk
        return run

    def start_mixed(self, count: int) -> None:
        for _ in range(count):
            self.start(KINDS[len(self.kinds) % len(KINDS)])

    def unfinished(self) -> int:
        return WorkflowRun.objects.active().filter(pk__in=list(self.ids.values())).count()

    def are_finished(self) -> bool:
        return not self.unfinished()

    def finish(self, timeout: float = 60.0) -> None:
        """Wait until all have ended. If they don't, the error says where each of the others is."""
        try:
            eventually(self.are_finished, timeout)
        except AssertionError:
            others = "\n".join(self._where_the_others_are())
            raise AssertionError(f"not finished within {timeout} seconds, of {len(self.ids)} runs:\n{others}") from None

    def _where_the_others_are(self) -> Iterable[str]:
        now, lines = database.read_clock(connection), evidence.read(self.path)
        labels = {run_id: label for label, run_id in self.ids.items()}
        for run in WorkflowRun.objects.active().filter(pk__in=labels).select_related("worker").order_by("pk"):
            label = labels[run.pk]
            yield (
                f"{label} ({run.workflow}, {run.pk}) is {run.status}, phase {run.phase}, token {run.claim_token},"
                f" due in {(run.available_at_us - now) / 1_000_000} s, recoveries {run.recoveries}"
            )
            if run.worker:
                seen = (now - run.worker.last_seen_us) / 1_000_000
                yield f"  held by {run.worker} (pid {run.worker.pid}, {run.worker.executor}), seen {seen} s ago"
            yield f"  recorded {[(record.name, record.status) for record in run.steps.order_by('position')]}"
            yield f"  last evidence {lines[label][-3:]}"

    def check(self) -> Tally:
        """Every run ended as its kind does: nothing lost, nothing twice, nothing skipped."""
        tally = Tally()
        lines = evidence.read(self.path)
        tick = CLOCK_TICK + evidence.set_forward(self.path)
        effects = Counter(Effect.objects.values_list("run", "name"))
        runs = WorkflowRun.objects.in_bulk(list(self.ids.values()))
        for label, kind in self.kinds.items():
            run = runs[self.ids[label]]
            assert run.status == kind.status, f"{label} ({kind.workflow.name}) is {run.status}: {run.error}"
            check_run(label, kind, list(run.steps.order_by("position")), lines[label], tally, tick)
            for name in kind.atomic:
                assert effects.pop((label, name), 0) == 1, f"{label}: the effect of {name} is not there exactly once"
        # What an atomic step wrote in an attempt that failed must be gone, too.
        assert not effects, f"effects of steps that were rolled back: {effects}"
        return tally


def check_run(label: str, kind: Kind, records: list[StepRecord], lines: list[Line], tally: Tally, tick: int) -> None:
    """One run's records against the evidence; `tick`: microseconds by which times may differ."""
    recorded = tuple((record.name, _status(record), record.attempts) for record in records)
    is_expected = recorded == kind.records if kind.is_ordered else sorted(recorded) == sorted(kind.records)
    assert is_expected, f"{label} ({kind.workflow.name}) recorded {recorded}"
    for record in records:
        if record.kind in ("branch", "map"):  # what their records say is in those of their steps
            continue
        seen = [line for line in lines if line.event == "saw" and line.step == record.name]
        assert seen, f"{label}: the body never saw {record.name}"
        if record.kind == "sleep":
            early = [ahead for line in seen if (ahead := (record.wakes_at_us or 0) - int(line.token)) > tick]
            assert not early, f"{label}: {record.name} was cut short by {early} microseconds"
        elif record.status == "canceled":
            check_not_executed_after(label, record, seen, lines)
        else:
            tally.executions += check_step(label, record, seen, lines)
            tally.steps += record.attempts
    tally.runs += 1


def check_step(label: str, record: StepRecord, seen: Iterable[Line], lines: list[Line]) -> int:
    """One step's record against the evidence; how often it was executed."""
    executed = [line for line in lines if line.event == "execute" and line.step == record.name]
    assert executed, f"{label}: {record.name} is recorded, but was never executed"
    token = record.output if record.status == "succeeded" else (record.error or {}).get("message")
    assert executed[-1].token == token, f"{label}: {record.name} was executed after it was recorded"
    assert {line.token for line in seen} == {token}, f"{label}: bodies saw different outcomes of {record.name}"
    attempts = [line.attempt for line in executed]
    assert attempts == sorted(attempts), f"{label}: {record.name} repeated an attempt that had failed: {attempts}"
    assert set(attempts) == set(range(1, record.attempts + 1)), f"{label}: {record.name} skipped an attempt: {attempts}"
    check_not_executed_after(label, record, seen, lines)
    return len(executed)


def check_not_executed_after(label: str, record: StepRecord, seen: Iterable[Line], lines: list[Line]) -> None:
    """Once the body has gone on, a step is never executed again."""
    seen = list(seen)
    first_seen = next(index for index, line in enumerate(lines) if line in seen)
    late = [line for line in lines[first_seen:] if line.event == "execute" and line.step == record.name]
    assert not late, f"{label}: {record.name} was executed again after the body had gone on"


def _status(record: StepRecord) -> str:
    """That of a sleep depends on whether anything else was waited for when it ended."""
    return "waiting" if record.kind == "sleep" and record.status == "succeeded" else str(record.status)


def check_seen(recorded: dict[tuple[str, str], str], lines: dict[str, list[Line]]) -> list[str]:
    """What bodies went on with and the database doesn't hold, given as `{(label, step): token}`."""
    return [
        f"{label} went on after {line.step}, which is not recorded"
        for label, run_lines in lines.items()
        for line in run_lines
        if line.event == "saw" and recorded.get((label, line.step)) != line.token
    ]
