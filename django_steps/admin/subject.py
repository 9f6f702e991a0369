"""What a run is about, in a few words: its key, or else the first plain values of its input.

Made from the first characters of the recorded input, which may be cut off anywhere: megabytes are neither fetched nor
read. What the workflow masks is left out, and so is everything where this process doesn't know the workflow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..models import WorkflowRun
from ..values.search import MASK
from ..values.types import TAG
from . import display, own_keys

READ = 600  # characters of an input
_LONGEST_KEY = 40
_MOST_VALUES, _LONGEST_VALUE = 3, 40

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|["\[\]{},]')
_TAGGED = re.compile(rf'\{{\s*"{re.escape(TAG)}"\s*:\s*"(\w+)"')


def of(run: WorkflowRun, input_start: str | None) -> str:
    """A line about the run; `input_start` are the first `READ` characters of its input. Empty if nothing is to be said."""
    if key := key_of(run):
        return middle_cut(key, _LONGEST_KEY)
    return excerpt(input_start or "", display.Mask.of(run))


def key_of(run: WorkflowRun) -> str:
    """The key that somebody gave the run; empty if nobody did."""
    return "" if run.key is None or own_keys.is_own(run.key) else run.key


def middle_cut(text: str, length: int) -> str:
    """The text in one line without its middle: keys often differ in their ends."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    tail = length // 2
    return f"{line[: length - tail - 1]}…{line[-tail:]}"


def excerpt(start: str, mask: display.Mask) -> str:
    """`order_id: 7, email: a@b.c` from the beginning of a recorded input.

    >>> excerpt('{"order_id":7,"token":"x","items":[1,2],"note":"cut o', display.Mask(["token"]))
    'order_id: 7'
    """
    try:
        value = display.plain(_closed(start), mask)
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    shown = (f"{name}: {text}" if name else text for name, text in _values(value))
    return display.printable(", ".join(islice(shown, _MOST_VALUES)))


def _values(node: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The plain values, with the dotted names of their keys; lists are left out."""
    if isinstance(node, dict):
        for key, item in node.items():
            yield from _values(item, f"{name}.{key}" if name else key)
    elif isinstance(node, (str, int, float)) and node not in ("", MASK):
        text = node if isinstance(node, str) else json.dumps(node)
        yield display.clipped(name, _LONGEST_VALUE), display.clipped(text, _LONGEST_VALUE)


def _closed(start: str) -> str:
    """The beginning of a JSON text as JSON, without the value at which it is cut off.

    Objects and arrays that have begun are closed. Of tagged ones only those with named members are: of half a date or
    decimal nothing true can be shown.
    """
    closers: list[str] = []
    opaque: list[bool] = []  # for each open bracket, whether what is in it must be complete
    end, closing = 0, ""
    for match in _TOKEN.finditer(start):
        token, at = match[0], match.start()
        if token == '"':  # a string that doesn't end: what is in it is text
            break
        if token in "[{":
            tag = _TAGGED.match(start, at)
            closers.append("]" if token == "[" else "}")
            opaque.append(any(opaque[-1:]) or (tag is not None and tag[1] not in display.WITH_MEMBERS))
            stop = match.end()
        elif token in "]}":
            if not closers or closers.pop() != token:
                return ""
            opaque.pop()
            stop = match.end()
            if not closers:
                return start[:stop]
        elif token == ",":
            stop = at
        else:
            continue
        if not any(opaque[-1:]):
            end, closing = stop, "".join(reversed(closers))
    return start[:end] + closing if end else start
