"""Recorded values, errors, times and durations as people read them.

Values are read as text, never decoded: that would import classes and load rows, and must work for a row that this code
can't read any more. Masks hide the values of keys, in inputs and results; messages and tracebacks of errors are shown
as they were recorded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from datetime import datetime, timedelta
from datetime import timezone as fixed_offset
from typing import Any
from urllib.parse import urlencode

from django.utils import timezone
from django.utils.duration import duration_iso_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..definitions import get_workflow
from ..errors import UnknownWorkflow
from ..models import WorkflowRun
from ..values.search import MASK
from ..values.types import TAG

WITH_MEMBERS = {"namedtuple", "dataclass", "pydantic"}  # the tags of values whose members have names
_TYPE = re.compile(r'"type":\s*"((?:[^"\\]|\\.)*)"')
_MESSAGE = re.compile(r'"message":\s*"((?:[^"\\]|\\.)*)')
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?$")


class Mask:
    """Which keys of a run's values are hidden; all of them where this process doesn't know the workflow."""

    def __init__(self, keys: Collection[str] | None) -> None:
        self.keys = None if keys is None else frozenset(keys)

    @classmethod
    def of(cls, run: WorkflowRun) -> Mask:
        try:
            return cls(get_workflow(run.workflow, run.version).mask)
        except UnknownWorkflow:
            return cls(None)

    @property
    def hides_everything(self) -> bool:
        return self.keys is None

    @property
    def hides_anything(self) -> bool:
        return self.keys is None or bool(self.keys)

    def hides(self, key: Any) -> bool:
        return self.keys is not None and key in self.keys


def readable(text: str | None, mask: Mask, indent: int | None = 2) -> str:
    """Recorded text as JSON of plain types, indented or in one line; empty for None."""
    if text is None:
        return ""
    try:
        shown = json.dumps(plain(text, mask), indent=indent, ensure_ascii=False)
    except (ValueError, TypeError, LookupError, RecursionError):
        return _("This value can't be read.") if mask.hides_anything else printable(text)
    return printable(shown)


def plain(text: str, mask: Mask) -> Any:
    """Recorded text as plain JSON types, masked. Raises `ValueError`, `TypeError` or `LookupError` if it is no record."""
    return _plain(json.loads(text), mask)


def printable(text: str) -> str:
    """Text that every response can carry: lone surrogates and NULs are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def clipped(text: str, length: int) -> str:
    """The text in one line, with an ellipsis for what is beyond `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def error_line(start: str | None) -> str:
    """`Type: message` in one line, from the first characters of a recorded error, cut off anywhere."""
    if not start:
        return ""
    return error_text(_text(_TYPE.search(start)), _text(_MESSAGE.search(start)))


def error_text(kind: str, message: str) -> str:
    """`Type: message` in one line, of the parts of a recorded error."""
    if not kind:
        return _("unreadable record")
    name = kind.rpartition(".")[2]
    return printable(f"{name}: {clipped(message, 200)}" if message else name)


def moment(value: datetime | None) -> SafeString | str:
    """A time of the project's time zone to the second, with what machines read beside it."""
    if value is None:
        return "-"
    return format_html(
        '<time class="steps-moment" datetime="{}"><span>{}</span> <span>{}</span></time>',
        value.isoformat(),
        f"{local_time(value):%Y-%m-%d}",
        f"{local_time(value):%H:%M:%S}",
    )


def duration(value: timedelta | float | None) -> str:
    """A duration in two units at most: `350 ms`, `1.2 s`, `2 min 5 s`, `3 h 10 min`, `4 d 2 h`."""
    if value is None:
        return "-"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 0.9995:
        return _("%(ms)d ms") % {"ms": round(max(seconds, 0) * 1000)}
    if seconds < 59.95:
        return _("%(s).1f s") % {"s": seconds}
    whole = round(seconds)
    if whole < 3600:
        return _("%(min)d min %(s)d s") % {"min": whole // 60, "s": whole % 60}
    if whole < 86400:
        return _("%(h)d h %(min)d min") % {"h": whole // 3600, "min": whole % 3600 // 60}
    return _("%(d)d d %(h)d h") % {"d": whole // 86400, "h": whole % 86400 // 3600}


def step_counts(steps: int, sleeps: int) -> str:
    """`5 steps, 2 sleeps`: what was recorded, by kind; sleeps only where there are any."""
    parts = [ngettext("%d step", "%d steps", steps) % steps]
    if sleeps:
        parts.append(ngettext("%d sleep", "%d sleeps", sleeps) % sleeps)
    return ", ".join(parts)


def local_time(value: datetime) -> datetime:
    """The time in the current time zone; naive ones are local already."""
    return timezone.localtime(value) if timezone.is_aware(value) else value


def query(**parameters: Any) -> str:
    """The parameters as they stand behind the `?` of an address."""
    return urlencode(parameters)


def status_word(status: str, label: Any) -> SafeString:
    """A status as a coloured word."""
    return format_html('<span class="steps-status steps-status-{}">{}</span>', status, label)


def progress_bar(done: int | None, total: int | None) -> SafeString | str:
    """How far a body said it is; empty if it said nothing."""
    if done is None or not total:
        return ""
    label = _("%(done)d of %(total)d") % {"done": done, "total": total}
    return format_html(
        '<progress class="steps-progress" value="{}" max="{}" aria-label="{}"></progress> <span>{}</span>',
        f"{done}",
        f"{total}",
        label,
        label,
    )


# -- Recorded text → plain JSON --------------------------------------------------------------------


def _plain(node: Any, mask: Mask) -> Any:
    if isinstance(node, list):
        return [_plain(item, mask) for item in node]
    if isinstance(node, dict):
        return _plain_members(node, mask) if TAG not in node else _plain_tagged(node, mask)
    return MASK if mask.hides_everything and node is not None else node


def _plain_members(members: dict[str, Any], mask: Mask) -> dict[str, Any]:
    return {key: MASK if mask.hides(key) else _plain(item, mask) for key, item in members.items()}


def _plain_tagged(node: dict[str, Any], mask: Mask) -> Any:
    kind, value = node[TAG], node.get("v")
    if kind == "dict":
        return _plain_members({_key_text(key): item for key, item in value or []}, mask)
    if kind in WITH_MEMBERS:
        return _plain_members((value or {}) | (node.get("extra") or {}), mask)
    if kind in ("tuple", "set", "frozenset"):
        return [_plain(item, mask) for item in value or []]
    if mask.hides_everything:
        return MASK
    if kind == "model":
        return _plain_members({"model": node.get("of"), "pk": node.get("pk")}, mask)
    if kind == "timedelta":
        days, seconds, microseconds = value or (0, 0, 0)
        return duration_iso_string(timedelta(days, seconds, microseconds))
    if kind == "str":
        return "".join(value or [])
    if kind in ("Enum", "Flag"):
        return f"{str(node.get('of')).rpartition(':')[2]}.{value}"
    if "tz" in node:
        return f"{value} {_zone(node['tz'])}"
    return _plain(value, mask) if "v" in node else _plain_members(node, mask)


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    plain = _plain(key, Mask(()))
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def _zone(node: Any) -> str:
    if isinstance(node, str):
        return node
    offset, *name = node
    return str(name[0] if name else fixed_offset(timedelta(microseconds=offset)))


def _text(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    try:
        return str(json.loads(f'"{_HALF_ESCAPE.sub("", match[1])}"', strict=False))
    except ValueError:
        return ""
