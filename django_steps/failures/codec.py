"""Exceptions ⇄ records, faithfully: what a body catches is the same exception on every pass.

A record is JSON text: type, message and traceback for people, nodes to rebuild the exception from (see `nodes.py`), and the
steps whose failures it holds. An exception that can't be rebuilt is a `StepFailed` from the first pass on. Nothing here
raises, whatever an exception object does: a failure that can't be recorded would leave a run without an end.
"""

from __future__ import annotations

import json
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from ..core.names import MAX_LENGTH, without_keys
from ..errors import GroupFailed, NonRetryableError, StepFailed
from ..values.classes import shown_name
from .builder import Node, build
from .nodes import describe, text_of

MAX_RECORD_BYTES = 256 * 1024
_MAX_TRACEBACK_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 32 * 1024
_MAX_NESTED_MESSAGE_BYTES = 4 * 1024
# What the columns beside a record hold, in characters.
MAX_TYPE_LENGTH, MAX_STEP_LENGTH = 255, MAX_LENGTH + 20
_NAMED = re.compile(r'"step":\s*(?:null|"(?:[^"\\]|\\.)*"),\s*"steps":\s*\[(?:[^"\\\]]|"(?:[^"\\]|\\.)*")*\]\}\Z')
_OWN_FILES = f"{Path(__file__).parent.parent}{os.sep}"


@dataclass(frozen=True)
class FailureRecord:
    """A failure as a row holds it; `text` is the JSON.

    - `type`: `module.Qualname` of the exception's class; `message`, `traceback`: text for people, cut where it is long. The
      message is `str()` of the exception; that of a `GroupFailed` names its first failure.
    - `step`: the one that is shown as having failed; `steps`: all those whose failures it is, as a group may hold several.
    - `kind`: of a group that only holds the failures of others the class of the first of them; else empty.
    - `is_retryable`: whether a retry policy is to be asked at all; false for a `NonRetryableError`.
    - `nodes`: what the exception is rebuilt from; of the first one, type and message are those of the record.
    """

    type: str
    message: str = ""
    traceback: str = ""
    step: str | None = None
    steps: tuple[str, ...] = ()
    kind: str = ""
    is_retryable: bool = True
    nodes: Sequence[Node] = ({},)

    @classmethod
    def of(cls, exc: BaseException, steps: Sequence[str] = ()) -> FailureRecord:
        """The record of an exception, of at most 256 KiB without the names of the steps."""
        shown = cls(
            type=_printable(_type(exc)),
            message=_clipped(_shown_text(exc), _MAX_MESSAGE_BYTES),
            traceback=_traceback(exc),
            kind=_printable(_first_type(exc)),
            # What takes its place where it can't be rebuilt is none.
            is_retryable=not issubclass(type(exc), NonRetryableError),
        )
        for chain in (True, False):
            try:
                nodes = describe(exc, lambda nested: _message(nested, _MAX_NESTED_MESSAGE_BYTES), chain=chain)
            except BaseException:
                continue
            del nodes[0]["type"], nodes[0]["message"]
            record = replace(shown, nodes=nodes)
            if len(record.text) <= MAX_RECORD_BYTES:
                return record.with_steps(steps) if steps else record
        return shown.with_steps(steps)

    @classmethod
    def read(cls, text: str) -> FailureRecord:
        """What `text` holds; of a damaged record, what is left of it."""
        try:
            return cls._read(json.loads(text))
        except Exception:
            return cls("unreadable record", _clipped(str(text), _MAX_NESTED_MESSAGE_BYTES))

    @classmethod
    def _read(cls, data: dict[str, Any]) -> FailureRecord:
        steps, nodes, step = data.get("steps"), data.get("nodes"), data.get("step")
        return cls(
            type=str(data.get("type", "")),
            message=str(data.get("message", "")),
            traceback=str(data.get("traceback", "")),
            step=None if step is None else str(step),
            steps=tuple(map(str, steps)) if isinstance(steps, list) else (),
            kind=str(data.get("kind", "")),
            is_retryable=data.get("retryable") is not False,
            nodes=nodes if isinstance(nodes, list) else ({},),
        )

    @cached_property
    def text(self) -> str:
        """The record as JSON."""
        data: dict[str, Any] = {"type": self.type, "message": self.message, "traceback": self.traceback}
        if not self.is_retryable:
            data["retryable"] = False
        if self.kind:
            data["kind"] = self.kind
        # The steps come last, where `steps_named_at_the_end` finds them.
        data |= {"nodes": self.nodes, "step": self.step, "steps": self.steps}
        return json.dumps(data, separators=(",", ":"))

    @property
    def columns(self) -> tuple[str, str]:
        """What the columns beside the record of a run hold: the class of what went wrong, and the shown step without keys."""
        return _fitting(self.kind or self.type), without_keys(_printable(self.step or ""))[:MAX_STEP_LENGTH]

    def with_steps(self, steps: Sequence[str]) -> FailureRecord:
        """The same record, of the failures of these steps. The first is shown."""
        return replace(self, step=steps[0] if steps else None, steps=tuple(steps))

    def rebuild(self) -> BaseException:
        """A new exception like the recorded one, or `StepFailed` with its type and message."""
        try:
            first, *others = self.nodes
            return build([{**first, "type": self.type, "message": self.message}, *others])[0]
        except Exception:
            return StepFailed(self.type, self.message)

    def summary(self) -> dict[str, Any]:
        """What to show of it: `type`, `message`, `traceback` and `step` (a name, or None)."""
        return {"type": self.type, "message": self.message, "traceback": self.traceback, "step": self.step}

    def shortened(self, message: int, traceback: int) -> str:
        """What to show of it as JSON, with so many characters of the message and the end of the traceback."""
        shown = {"message": self.message[:message], "traceback": self.traceback[-traceback:]}
        return json.dumps({"type": self.type, "step": self.step, **shown})


# -- The texts in the columns --------------------------------------------------------------------


def record(exc: BaseException) -> str:
    """The exception as JSON text of at most 256 KiB."""
    return FailureRecord.of(exc).text


def rebuild(text: str) -> BaseException:
    """A new exception like the recorded one, or `StepFailed` with its type and message.

    >>> rebuild(record(KeyError("user")))
    KeyError('user')
    """
    return FailureRecord.read(text).rebuild()


def is_retryable(text: str) -> bool:
    """Whether a retry policy is to be asked at all: not about the record of a `NonRetryableError`."""
    return FailureRecord.read(text).is_retryable


def summary(text: str | None) -> dict[str, Any] | None:
    """What to show of a record: its `type`, `message`, `traceback` and `step` (a name, or None)."""
    return None if text is None else FailureRecord.read(text).summary()


def columns(text: str | None) -> tuple[str, str]:
    """What the columns `error_type` and `failed_step` of a run say of a record: its kind, which is the same for all items of
    a map; empty without one."""
    return ("", "") if text is None else FailureRecord.read(text).columns


def type_of(text: str) -> str:
    """What the column `error_type` of a step says of a record: the class of the exception."""
    return _fitting(FailureRecord.read(text).type)


def with_steps(text: str, steps: Sequence[str]) -> str:
    """The same record, naming the steps whose failures it holds: a group may hold several. The first is shown."""
    return FailureRecord.read(text).with_steps(steps).text


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
        return shown_name(type(exc))
    except BaseException:
        return "Exception"


def _first_type(exc: BaseException) -> str:
    """The class of the first failure in a group that only holds it; empty for all others."""
    try:
        first = exc
        while isinstance(first, GroupFailed) or type(first) in (ExceptionGroup, BaseExceptionGroup):
            first = first.exceptions[0]  # type: ignore[attr-defined]
        if first is exc:
            return ""
        return first.type_name if isinstance(first, StepFailed) else _type(first)
    except BaseException:  # a subclass of users, which breaks what looks at it
        return ""


def _fitting(kind: str) -> str:
    # Of a long type the end says more: the name of the class.
    return _printable(kind)[-MAX_TYPE_LENGTH:]


def _message(exc: BaseException, max_bytes: int) -> str:
    return _clipped(text_of(exc), max_bytes)


def _shown_text(exc: BaseException) -> str:
    """`str(exc)`; of a `GroupFailed` also what its first failure says, as lists show nothing else of it."""
    try:
        if not isinstance(exc, GroupFailed):
            return text_of(exc)
        first: BaseException = exc
        while isinstance(first, GroupFailed):
            first = first.exceptions[0]
        separator = ": " if len(exc.exceptions) == 1 else ", first: "
        return f"{exc.message}{separator}{_type_and_text(first)}"
    except BaseException:  # a subclass of users, which breaks what looks at it
        return text_of(exc)


def _type_and_text(exc: BaseException) -> str:
    if isinstance(exc, StepFailed):
        kind, text = exc.type_name.rpartition(".")[2], exc.message
    else:
        kind, text = type(exc).__name__, text_of(exc)
    return f"{kind}: {text}" if text else kind


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


def users_traceback(exc: BaseException) -> TracebackType | None:
    """The traceback of an exception from the first frame of users' code on; all of it where there is none."""
    whole: TracebackType | None = _own_traceback(exc)
    found = whole
    while found is not None and not is_users_code(found.tb_frame.f_code.co_filename):
        found = found.tb_next
    return found or whole


def is_users_code(file: str) -> bool:
    """Whether a file is none of this package's."""
    return not file.startswith(_OWN_FILES)


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
    text = _printable(text)
    keep = len(text)
    shown = text
    while len(json.dumps(shown)) > max_bytes:
        keep = keep * 3 // 4
        shown = f"{text[: keep // 2]}\n… {len(text) - keep:,} characters left out …\n{text[-(keep - keep // 2) :]}"
    return shown


def _printable(text: str) -> str:
    """The text without what no database and no response takes: lone surrogates and NULs."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
