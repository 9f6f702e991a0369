"""What an UPDATE sets when a run moves: it finishes, becomes ready, or is suspended. Each is spelled here, and only here.

Every way in which a run finishes uses `finishing()`: its body's return or failure, a cancel, a worker that died too often.
Every way in which it becomes ready uses `ready()`: a release, a recovery, a time that has come, a retry, a workflow that is
known again. (A run that is started is ready by the defaults of its columns.) Which columns go together in which state is
the table in `ledger/__init__.py`.

The word is *finish*, not end: a run finishes, a pass ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db.backends.base.base import BaseDatabaseWrapper

from ..core.states import Status, Undo
from . import dialect
from .tables import ENDED, HELD, IN_LINE, PARKED, PAUSE, READY, RUN, TIMED, UNKNOWN

# No suspicion against a worker, and no step in execution.
_CALM = "suspect_since_us = NULL, current_step = ''"
# A recovery leaves the checkpoints: whoever executes the steps next goes on from them.
NO_CHECKPOINT = "checkpoint = ''"
# What a run has of limits: nothing; or only the slots that it keeps until its end, by the rule of the limit.
_NO_LIMITS = "line_key = NULL, slot_1 = NULL, slot_2 = NULL, slot_queue = NULL"
_KEPT_SLOTS = (
    "slot_1 = CASE WHEN SUBSTR(limit_1, 1, 1) = 'u' THEN slot_1 END,"
    " slot_2 = CASE WHEN SUBSTR(limit_2, 1, 1) = 'u' THEN slot_2 END, slot_queue = NULL"
)
# What only a run has that has not ended: its place among the children of its parent, under its active key and in its schedule,
# the time when its timeout or its `start_within` ends it, and what it has of limits.
_GIVEN_UP = f"open_parent_id = NULL, active_key = NULL, open_schedule = NULL, expires_at_us = NULL, {_NO_LIMITS}"
# A run that no worker holds.
_RELEASED = f"worker_id = NULL, claim_token = NULL, {_CALM}"
# Of a run that is not, and is not to be, paused: what has moved out of a pause.
NO_PAUSE = "pause_reason = '', paused_by = '', paused_at = NULL"


def finishing(status: str = "%s", finished_at: str = "%s") -> str:
    """The run has ended. `status` and `finished_at` are SQL: by default two parameters, in this order.

    Its worker and its token stay, so that whoever asks again can tell a lost answer from a lost claim.
    """
    return f"status = {status}, phase = {ENDED}, finished_at = {finished_at}, {_GIVEN_UP}, {_CALM}"


# The limits of a run in the order in which it gets in line for them: the digit or letter before their names, and the columns.
_STAGES = {"1": ("limit_1", "slot_1"), "2": ("limit_2", "slot_2"), "q": ("limit_queue", "slot_queue")}


def line_after(stage: str = "", *, is_new: bool = False) -> str:
    """SQL for the limit that a run gets in line for: the first that it has no slot of, after this one; NULL: it may go on.

    A limit that is but a rate only counts for a run that begins; `is_new`: this one does, whatever its row says.
    """
    begins = "" if is_new else " AND (SUBSTR({0}, 1, 1) <> 'r' OR attempting_since_us IS NULL)"
    later = list(_STAGES)[list(_STAGES).index(stage) + 1 if stage else 0 :]
    wanted = [
        f"CASE WHEN {slot} IS NULL{begins.format(limit)} THEN SUBSTR({limit}, 3) END"
        for limit, slot in (_STAGES[name] for name in later)
    ]
    return f"COALESCE({', '.join(wanted)}, NULL)" if wanted else "NULL"


def _unless_undoing(status: str) -> str:
    """SQL for a status, but for that of a run that undoes what it has done: it is canceling until its end."""
    return f"CASE WHEN undoing IS NULL THEN '{status}' ELSE '{Status.CANCELING}' END"


def ready(since: str, *, is_new: bool = False) -> str:
    """The run may be claimed, or is in line where it is limited, unless it undoes what it has done. `since` is SQL for the
    machine time from which on it waits; `is_new`: it begins once more."""
    line = line_after(is_new=is_new) if is_new else f"CASE WHEN undoing IS NULL THEN {line_after()} END"
    return (
        f"status = {_unless_undoing(Status.PENDING)}, line_key = {line},"
        f" phase = CASE WHEN {line} IS NULL THEN {READY} ELSE {IN_LINE} END,"
        f" available_at_us = {since}, {_RELEASED}"
    )


def to_undo(since: str) -> str:
    """The run is canceled, and may be claimed to undo what it has done. For that it needs no slot of a limit, and keeps those
    that it keeps until its end; the timeout of the run doesn't count. `since` as of `ready()`."""
    return (
        f"status = '{Status.CANCELING}', line_key = NULL, phase = {READY}, available_at_us = {since}, expires_at_us = NULL,"
        f" {_KEPT_SLOTS}, {_RELEASED}"
    )


def ready_again(since: str) -> str:
    """A run that a worker holds may be claimed by another one: it keeps its slots of limits. `since` as of `ready()`."""
    return f"status = {_unless_undoing(Status.PENDING)}, phase = {READY}, available_at_us = {since}, {_RELEASED}"


def held(since: str) -> str:
    """The run has not begun, and waits until the one before it of its schedule has ended. `since` is SQL for the machine
    time."""
    return f"status = '{Status.PENDING}', phase = {HELD}, {_NO_LIMITS}, available_at_us = {since}, {_RELEASED}"


def held_by_pause(connection: BaseDatabaseWrapper) -> str:
    """SQL for: the queue or the workflow of a run `r` is paused, and nobody has let the run through."""
    return (
        f"({dialect.is_false(connection, 'r.pause_exempt')} AND EXISTS (SELECT 1 FROM {PAUSE} p WHERE"
        " (p.kind = 'queue' AND p.name = r.queue) OR (p.kind = 'workflow' AND p.name = r.workflow)))"
    )


def unknown() -> str:
    """No live worker knows the workflow of the run: it is neither ready nor in line, and holds no slot."""
    return f"phase = {UNKNOWN}, {_NO_LIMITS}"


def parked() -> str:
    """The queue or the workflow of the run is paused: it is neither ready nor in line, and holds no slot."""
    return f"phase = {PARKED}, {_NO_LIMITS}"


# What stands in `waits_for` before the name of a step whose children a run waits for; no event can be called so.
CHILDREN = "#"


def listed(names: Iterable[str]) -> str:
    """Names as `waits_for` holds them: each between two line feeds, so that a part of one is not found."""
    return "".join(f"\n{name}\n" for name in names)


def waiting(available_at: str = "%s", waits_for: str = "%s", until: str = "%s") -> str:
    """The run waits for others. It is looked at at `available_at`; the first of its waits is over at `until`. All are SQL, by
    default parameters."""
    return (
        f"status = '{Status.WAITING}', phase = {TIMED}, available_at_us = {available_at}, waits_for = {waits_for},"
        f" waits_until_us = {until}, {_KEPT_SLOTS}, {_RELEASED}, {NO_CHECKPOINT}"
    )


def canceling(available_at: str) -> str:
    """The run is canceled and held by nobody, and children of it have not ended. It is looked at at `available_at`, SQL."""
    return (
        f"status = '{Status.CANCELING}', phase = {TIMED}, available_at_us = {available_at}, expires_at_us = NULL,"
        f" line_key = NULL, {_KEPT_SLOTS}, {_RELEASED}"
    )


def has_no_open_children(connection: BaseDatabaseWrapper, run_id: UUID) -> tuple[str, list[Any]]:
    """SQL for: no child of this run is open, with its parameters. A subquery in a subquery: of the table that an UPDATE
    changes MySQL reads nothing else."""
    open_children = f"SELECT 1 FROM {RUN} c WHERE c.open_parent_id = %s LIMIT 1"
    return f"NOT EXISTS (SELECT 1 FROM ({open_children}) o)", [dialect.key(connection, run_id)]


# How a run stands that is held, and to be paused once its pass has let go.
IS_PAUSING = "pausing"


def standing(run: str = "") -> str:
    """SQL for the status of a run, but for one that is to be paused, and for one that undoes, which goes on as a running one;
    `run` is what its columns begin with."""
    return (
        f"CASE WHEN {run}status = 'running' AND {run}paused_at IS NOT NULL THEN '{IS_PAUSING}'"
        f" WHEN {is_undoing(run)} THEN '{Status.RUNNING}' ELSE {run}status END"
    )


def is_undoing(run: str = "") -> str:
    """SQL for: the run is canceling, and a pass has begun to undo what it has done."""
    return f"({run}status = '{Status.CANCELING}' AND {run}undoing = {Undo.UNDERWAY})"


def goes_on(run: str = "") -> str:
    """SQL for: whoever holds the run may go on with it; nobody has canceled it or asked for a pause."""
    return f"(({run}status = '{Status.RUNNING}' AND {run}paused_at IS NULL) OR {is_undoing(run)})"


def paused(*, is_untouched: bool = False) -> str:
    """Nobody takes the run until it is resumed. Who has paused it, when and why is for the caller to set, or set already.

    It gets out of line, and keeps the slots only that it keeps until its end, if it has begun; `is_untouched`: it has not,
    whatever its row says.
    """
    kept = _KEPT_SLOTS.replace(" THEN", " AND attempting_since_us IS NOT NULL THEN")
    limits = _NO_LIMITS if is_untouched else f"line_key = NULL, {kept}"
    return f"status = '{Status.PAUSED}', phase = {PARKED}, {limits}, {_RELEASED}"


def suspended(until: str = "%s") -> str:
    """The run sleeps. `until` is SQL for the machine time at which it is due: by default a parameter.

    No step is in execution, so the checkpoints are in the records.
    """
    return (
        f"status = {_unless_undoing(Status.SLEEPING)}, phase = {TIMED}, available_at_us = {until}, {_KEPT_SLOTS}, {_RELEASED},"
        f" {NO_CHECKPOINT}"
    )
