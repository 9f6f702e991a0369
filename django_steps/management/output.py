"""How the commands show things: tables that fit the terminal, times, durations, progress.

Nothing here knows what a run is.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from django.core.management.base import OutputWrapper
from django.utils import timezone

GAP = "  "
_CUT = "…"
_NOT_SHOWN = "\N{REPLACEMENT CHARACTER}"


def width_of(stream: OutputWrapper) -> int | None:
    """How many columns there are; None where the output isn't shown on a terminal, and nothing has to be cut."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], width: int | None = None, shrink: Sequence[int] = ()
) -> list[str]:
    """The lines of a table. Where it is wider than `width`, the columns in `shrink` are cut, in that order."""
    cells = [[one_line(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for column in shrink:
        excess = 0 if width is None else sum(widths) + len(GAP) * (len(widths) - 1) - width
        if excess > 0:
            widths[column] = max(len(cells[0][column]), 8, widths[column] - excess)
    return [
        GAP.join(clip(cell, length).ljust(length) for cell, length in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def pairs(items: Iterable[tuple[str, str]], width: int | None = None) -> list[str]:
    """Lines of a name and a value each, the values below each other, wrapped; those without a value are left out."""
    shown = [(name, one_line(value)) for name, value in items if value]
    longest = max((len(name) for name, _ in shown), default=0)
    lines = []
    for name, value in shown:
        wrapped = [value] if width is None else wrap(value, max(width - longest - len(GAP), 20), break_on_hyphens=False)
        lines += [f"{title.ljust(longest)}{GAP}{part}" for title, part in zip_longest([name], wrapped, fillvalue="")]
    return lines


def clip(text: str, length: int) -> str:
    """The text, cut to so many characters."""
    return text if len(text) <= length else text[: max(length - 1, 0)] + _CUT


def moment(value: datetime | None) -> str:
    """A time as short as it can be said: the time today, the day this year, with the year before."""
    if value is None:
        return ""
    now = timezone.now()
    if timezone.is_aware(value):
        value, now = timezone.localtime(value), timezone.localtime(now)
    if value.date() == now.date():
        return value.strftime("%H:%M:%S")
    return value.strftime("%m-%d %H:%M" if value.year == now.year else "%Y-%m-%d")


def full_moment(value: datetime | None) -> str:
    """A time with its day and its zone."""
    if value is None:
        return ""
    if timezone.is_aware(value):
        value = timezone.localtime(value)
    return value.strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()


def lasting(value: timedelta | None) -> str:
    """How long something took: `12 ms`, `1.23 s`, `4m 05s`, `2h 03m`, `3d 04h`."""
    if value is None:
        return ""
    seconds = max(value.total_seconds(), 0.0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // part:02}{smaller}"
    return f"{whole // 60}m {whole % 60:02}s"


def between(start: datetime | None, end: datetime | None) -> timedelta | None:
    """The time from one moment to another; None where one of them isn't known."""
    return None if start is None or end is None else end - start


def one_line(value: Any) -> str:
    """Text as one line that can't disturb a terminal."""
    return printable(" ".join(str(value).split()))


def printable(line: str) -> str:
    """A line without control characters."""
    return line if line.isprintable() else "".join(c if c.isprintable() else _NOT_SHOWN for c in line)


class Progress:
    """Says how far bulk work is, on a terminal only: `with Progress(self.stdout) as progress: progress.show(1, 2)`."""

    _INTERVAL = 0.2  # seconds between two updates

    def __init__(self, stream: OutputWrapper) -> None:
        self._stream = stream
        self._shown_at = 0.0
        self._length = 0
        self._is_on = stream.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Show the text in place of the last one, unless that was just now."""
        if not self._is_on or time.monotonic() - self._shown_at < self._INTERVAL:
            return
        self._write(text)
        self._shown_at = time.monotonic()

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._length:
            self._write("")
            self._stream.write("\r", ending="")
            self._length = 0

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text.ljust(self._length)}", ending="")
        self._stream.flush()
        self._length = len(text)
