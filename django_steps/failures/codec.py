"""Exceptions ⇄ records, faithfully: what a body catches is the same exception on every pass.

A record is JSON text: type, message and traceback for people, and nodes to rebuild the exception from (see
`exception_nodes.py`). An exception that can't be rebuilt is a `StepFailed` from the first pass on. No function here
raises, whatever an exception object does: a failure that can't be recorded would leave a run without an end.
"""

from __future__ import annotations

import json
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import NonRetryableError, StepFailed
from .builder import build
from .nodes import describe, text_of, type_name

MAX_RECORD_BYTES = 256 * 1024
_MAX_TRACEBACK_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 32 * 1024
_MAX_NESTED_MESSAGE_BYTES = 4 * 1024
_NOTHING_SHOWN = {"type": "", "message": "", "traceback": "", "step": None}
_NAMED = re.compile(r'"step": (?:null|"(?:[^"\\]|\\.)*"), "steps": \[(?:[^"\\\]]|"(?:[^"\\]|\\.)*")*\]\}\Z')
_OWN_FILES = f"{Path(__file__).parent.parent}{os.sep}"


def record(exc: BaseException) -> str:
    """The exception as JSON text of at most 256 KiB: `type`, `message`, `traceback`, and what rebuilding needs."""
    shown: dict[str, Any] = {
        "type": _type(exc),
        "message": _message(exc, _MAX_MESSAGE_BYTES),
        "traceback": _traceback(exc),
    }
    if issubclass(type(exc), NonRetryableError):  # what takes its place where it can't be rebuilt is none
        shown["retryable"] = False
    for chain in (True, False):
        try:
            nodes = describe(exc, lambda nested: _message(nested, _MAX_NESTED_MESSAGE_BYTES), chain=chain)
        except BaseException:
            continue
        # Of the first node the record itself says these.
        del nodes[0]["type"], nodes[0]["message"]
        text = json.dumps(shown | {"nodes": nodes}, separators=(",", ":"))
        if len(text) <= MAX_RECORD_BYTES:
            return text
    return json.dumps(shown | {"nodes": [{}]})


def rebuild(text: str) -> BaseException:
    """A new exception like the recorded one, or `StepFailed` with its type and message.

    >>> rebuild(record(KeyError("user")))
    KeyError('user')
    """
    shown = summary(text) or {}
    try:
        first, *others = json.loads(text)["nodes"]
        return build([first | shown, *others])[0]
    except Exception:
        return StepFailed(shown["type"], shown["message"])


def is_retryable(text: str) -> bool:
    """Whether a retry policy is to be asked at all: not about the record of a `NonRetryableError`."""
    try:
        return json.loads(text).get("retryable") is not False
    except Exception:
        return True


def summary(text: str | None) -> dict[str, Any] | None:
    """What to show of a record: its `type`, `message`, `traceback` and `step` (a name, or None)."""
    if text is None:
        return None
    try:
        data = json.loads(text)
        return {key: data.get(key, default) for key, default in _NOTHING_SHOWN.items()}
    except Exception:
        return _NOTHING_SHOWN | {"type": "unreadable record", "message": _clipped(str(text), _MAX_NESTED_MESSAGE_BYTES)}


def with_steps(text: str, steps: list[str]) -> str:
    """The same record, naming the steps whose failures it holds: a group may hold several. The first is shown."""
    try:
        data = dict(json.loads(text).items())
    except Exception:
        data = (summary(text) or {}) | {"nodes": [{}]}
    # They come last, where `steps_named_at_the_end` finds them.
    for name in ("step", "steps"):
        data.pop(name, None)
    return json.dumps({**data, "step": steps[0] if steps else None, "steps": steps})


def steps_named_at_the_end(text: str) -> tuple[list[str], str | None]:
    """What `with_steps` has written: the steps, and the one that is shown; of a record, or of the end of a long one.

    No steps and None where the end doesn't name them.

    >>> steps_named_at_the_end(with_steps(record(KeyError("user")), ["charge"])[-100:])
    (['charge'], 'charge')
    """
    match = _NAMED.search(text)
    try:
        named = json.loads("{" + match[0]) if match else {}
    except ValueError:
        named = {}
    return named.get("steps", []), named.get("step")


# -- Texts for people ----------------------------------------------------------------------------


def _type(exc: BaseException) -> str:
    try:
        return type_name(type(exc))
    except BaseException:
        return "Exception"


def _message(exc: BaseException, max_bytes: int) -> str:
    return _clipped(text_of(exc), max_bytes)


def _traceback(exc: BaseException) -> str:
    try:
        report = traceback.TracebackException.from_exception(exc, compact=True)
        for part in _parts(report):
            # Only the frames of users' code, where there are any.
            part.stack[:] = [frame for frame in part.stack if not frame.filename.startswith(_OWN_FILES)] or part.stack
        text = "".join(report.format())
    except BaseException:
        # Its class breaks what looks at it; where it happened is known all the same.
        text = "".join(traceback.format_tb(_own_traceback(exc)))
    return _clipped(text, _MAX_TRACEBACK_BYTES)


def _own_traceback(exc: BaseException) -> Any:
    return vars(BaseException)["__traceback__"].__get__(exc)


def _parts(report: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    waiting = [report]
    while waiting:
        part = waiting.pop()
        yield part
        waiting += [other for other in (part.__cause__, part.__context__, *(part.exceptions or ())) if other]


def _clipped(text: str, max_bytes: int) -> str:
    """The text as it can be shown anywhere, without its middle if it is too long as JSON."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    keep = len(text)
    shown = text
    while len(json.dumps(shown)) > max_bytes:
        keep = keep * 3 // 4
        shown = f"{text[: keep // 2]}\n… {len(text) - keep:,} characters left out …\n{text[-(keep - keep // 2) :]}"
    return shown
