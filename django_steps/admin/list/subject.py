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

from ...models import WorkflowRun
from ...presentation import own_keys
from ...presentation.text import clipped, middle_cut, portable
from ...presentation.values import UNREADABLE, WITH_MEMBERS, Mask, plain
from ...values.search import MASK
from ...values.types import TAG

READ = 600  # characters of an input
_LONGEST_KEY = 40
_MOST_VALUES, _LONGEST_VALUE = 3, 40

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|["\[\]{},]')
_TAGGED = re.compile(rf'\{{\s*"{re.escape(TAG)}"\s*:\s*"(\w+)"')


def of(run: WorkflowRun, input_start: str | None) -> str:
    """A line about the run; `input_start` are the first `READ` characters of its input. Empty if nothing is to be said."""
    if key := key_of(run):
        return middle_cut(key, _LONGEST_KEY)
    return excerpt(input_start or "", Mask.of(run))


def names_of(run: WorkflowRun) -> list[str]:
    """By what people know a run whose columns are all loaded: what it is about, if that is known, and its id."""
    about = of(run, run.input_text[:READ])
    return [*([about] if about else []), short_id(run)]


def short_id(run: WorkflowRun) -> str:
    """The last group of the id: what differs between runs of the same moment."""
    return f"…{str(run.pk)[-12:]}"


def title_of(run: WorkflowRun) -> str:
    """A run by its columns that are never big: its workflow, and its key or the end of its id."""
    return f"{clipped(run.workflow, _LONGEST_KEY)} {middle_cut(key_of(run), _LONGEST_KEY) or short_id(run)}"


def key_of(run: WorkflowRun) -> str:
    """The key that the run was started with; empty if it has none, or one that these pages made."""
    return "" if run.key is None or own_keys.is_own(run.key) else run.key


def excerpt(start: str, mask: Mask) -> str:
    """`order_id: 7, email: a@b.c` from the beginning of a recorded input.

    >>> excerpt('{"order_id":7,"token":"x","items":[1,2],"note":"cut o', Mask(["token"]))
    'order_id: 7'
    """
    try:
        value = plain(_closed(start), mask)
    except UNREADABLE:
        return ""
    shown = (f"{name}: {text}" if name else text for name, text in _values(value))
    return portable(", ".join(islice(shown, _MOST_VALUES)))


def _values(node: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The plain values, with the dotted names of their keys; lists are left out."""
    if isinstance(node, dict):
        for key, item in node.items():
            yield from _values(item, f"{name}.{key}" if name else key)
    elif isinstance(node, (str, int, float)) and node not in ("", MASK):
        text = node if isinstance(node, str) else json.dumps(node)
        yield clipped(name, _LONGEST_VALUE), clipped(text, _LONGEST_VALUE)


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
            opaque.append(any(opaque[-1:]) or (tag is not None and tag[1] not in WITH_MEMBERS))
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
