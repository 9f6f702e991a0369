"""Whether a call has the arguments with which it was recorded: a loop whose steps are named by an index, a list that has
shifted, a clock in a body show themselves by that.

How arguments become a number is in `values/fingerprints.py`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from ..core.names import without_keys
from ..definitions.requests import CallBranch, Invoke, Poll, RunStep, StartRun
from ..errors import HistoryMismatch
from ..ledger.histories import Recorded
from ..values.fingerprints import fingerprint
from .frame import Frame

logger = logging.getLogger("django_steps")

# What this process has warned of: workflows and paths without keys and numbers, so that a loop is one of them.
warned: set[tuple[str, str]] = set()
_MOST_WARNED = 1000


def _of_call(request: RunStep | CallBranch) -> int | None:
    return fingerprint(request.args, request.kwargs)


def _of_input(request: Invoke | StartRun) -> int | None:
    return None if request.input is None else fingerprint((request.input,), {})


_OF: dict[type, Callable[[Any], int | None]] = {
    RunStep: _of_call,
    Poll: _of_call,
    CallBranch: _of_call,
    Invoke: _of_input,
    StartRun: _of_input,
}


def compare(frame: Frame, request: Any, recorded: Recorded | None) -> None:
    """Note the fingerprint of a call, for the record that it may make, and compare it with what is recorded of the call.

    It is taken before anything is executed, which could change the arguments; once for all attempts.
    """
    take = _OF.get(type(request))
    if take is None or frame.host.limits.on_changed_arguments == "ignore":
        return
    known = None if recorded is None else recorded.arguments
    if recorded is not None and recorded.is_final and known is None:
        return
    request.fingerprint = take(request)
    if recorded is not None and known is not None and request.fingerprint not in (None, known):
        changed_arguments(frame, recorded)


def changed_arguments(frame: Frame, recorded: Recorded) -> None:
    """A call has other arguments than those it was recorded with: a warning, or a mistake of the code, by the setting. A pass
    that only replays finds out what else there is."""
    frame.state.changed[recorded.name] = recorded
    if frame.replay is not None:
        return
    if frame.host.limits.on_changed_arguments == "fail":
        raise HistoryMismatch(_message(frame, recorded))
    what = frame.claim.workflow, re.sub(r"\d+", "#", without_keys(recorded.name))
    if what in warned:
        return
    if len(warned) >= _MOST_WARNED:
        warned.clear()
    warned.add(what)
    logger.warning("%s (Said once for this step in each process.)", _message(frame, recorded))


def _message(frame: Frame, recorded: Recorded) -> str:
    what = "It gets the recorded outcome of the other call all the same"
    if not recorded.is_final:
        what = "What is executed next gets the new ones"
        if recorded.kind == "invoke":
            what = "The run that it has started keeps its input"
    return (
        f"The {recorded.kind} {recorded.name!r} of run {frame.run_id} ({frame.claim.workflow}) is called with other arguments "
        f"than when it was recorded. {what}. In a loop, name it by the key of the item and not by its index, since a list may "
        "shift. Keep the time, random numbers and queries inside steps. If you have changed the call, let runs in flight go "
        "the old way by step.patched() or by a new version of the workflow; or give the new call another name. "
        f"retry(from_step={recorded.name!r}) executes it again with the new arguments. "
        'DJANGO_STEPS["ON_CHANGED_ARGUMENTS"] says whether this is ignored, warned of, or an error.'
    )
