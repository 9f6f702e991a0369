"""What a replay says of a run: it fits the code, or what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.names import without_keys
from ..core.states import Status
from ..engine.execution import Pass
from ..engine.replay import Replay
from ..errors import PassEnded
from ..ledger.histories import Recorded
from ..values.classes import shown_name
from .recordings import Recording
from .writes import WriteRefused

# A run of these may have failed before somebody canceled it.
_AFTER_A_FAILURE = (Status.FAILED, Status.CANCELING, Status.CANCELED)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a run does not fit.

    - `kind`: `unreached`, `executes`, `arguments`, `refused`, `raises`, `mistake`, `unknown` or `slow`.
    - `step`: the path of a record or step, or an empty text.
    """

    kind: str
    step: str
    text: str


@dataclass(slots=True)
class Verdict:
    """What became of a recording. `next`: the steps that it goes on with, by path, with their kinds."""

    recording: Recording
    next: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the code that is checked out goes on where the run is."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The verdict as plain JSON types."""
        problems = [{"kind": one.kind, "step": one.step or None, "text": one.text} for one in self.problems]
        return {
            "run": self.recording.name,
            "workflow": self.recording.workflow,
            "version": self.recording.version,
            "status": self.recording.status,
            "fits": self.fits,
            "next": [{"step": step, "kind": kind} for step, kind in self.next.items()],
            "problems": problems,
        }


def judge(
    recording: Recording, current: Pass, replay: Replay, error: BaseException | None, refused: Sequence[WriteRefused]
) -> Verdict:
    """What a pass that only replayed has shown."""
    state = current.state
    verdict = Verdict(recording, replay.next)
    problems = verdict.problems
    problems += [Problem("refused", "", str(one)) for one in refused]
    if state.mistake is not None:
        problems.append(Problem("mistake", "", str(state.mistake)))
        return verdict
    problems += [Problem("mistake", "", str(mistake)) for mistake in replay.mistakes]
    problems += [
        Problem("unreached", record.name, f"does not come to {record.name!r} any more, a recorded {record.kind}")
        for record in _unreached(current, replay)
    ]
    if problems and not refused:
        problems += [
            Problem("executes", step, f"would execute {step!r}, a new {kind}, before it comes to them")
            for step, kind in replay.next.items()
            if current.history.find(step) is None
        ]
    problems += [
        Problem("arguments", step, f"calls {step!r}, a recorded {record.kind}, with other arguments")
        for step, record in state.changed.items()
    ]
    if error is not None and state.ending is None and not refused and not _has_failed_so(recording, current, error):
        problems.append(Problem("raises", "", f"raises {shown_name(type(error))}: {error}"))
    return verdict


def _unreached(current: Pass, replay: Replay) -> list[Recorded]:
    """What the body has not come to, and neither have its branches, as far as each could go."""
    found = {record.name: record for record in current.state.unreached}
    for branch in {"", *replay.left}:
        found |= {record.name: record for record in current.history.unreached_in(branch)}
    return sorted(found.values(), key=lambda record: record.position)


def _has_failed_so(recording: Recording, current: Pass, error: BaseException) -> bool:
    """Whether the run has ended by this very failure, or is ending after it."""
    if recording.status in _AFTER_A_FAILURE and current.state.attribution.steps_of(error):
        return True
    return isinstance(error, PassEnded) or (
        recording.status == Status.FAILED and recording.error_type == shown_name(type(error))
    )


def unknown(recording: Recording, error: Exception) -> Verdict:
    """The code has no such workflow any more, or not in this version."""
    return Verdict(recording, problems=[Problem("unknown", "", str(error))])


def broken(recording: Recording, error: Exception) -> Verdict:
    """It could not be replayed."""
    text = f"can't be replayed: {shown_name(type(error))}: {error}"
    return Verdict(recording, problems=[Problem("raises", "", text)])


def slow(recording: Recording, seconds: float) -> Verdict:
    """The body has not come to an end in time."""
    text = f"has not come to a step within {seconds:g} seconds: the body waits for something outside of its steps"
    return Verdict(recording, problems=[Problem("slow", "", text)])


def same_problems(verdict: Verdict) -> tuple[str, ...]:
    """The texts of the problems of a run but for the keys of items, each once: the same for all runs that have the same."""
    texts = (one.text.replace(repr(one.step), repr(without_keys(one.step))) for one in verdict.problems)
    return tuple(dict.fromkeys(texts))
