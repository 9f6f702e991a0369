"""How the commands lay things out: tables that fit the terminal, wrapped pairs, progress.

It knows the terminal and nothing of runs. How durations and moments read is in `durations.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from django.core.management.base import OutputWrapper

from .text import clipped

GAP = "  "
_NARROWEST = 8  # columns that are always left of a cell
_ROOM_FOR_NOTES = 40
_DEEPEST = 8  # levels of a tree that are indented
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Paint = Callable[[str], str]
_NOT_SHOWN = "\N{REPLACEMENT CHARACTER}"


def width_of(stream: OutputWrapper) -> int | None:
    """How many columns there are; None where the output isn't shown on a terminal, and nothing has to be cut."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    *,
    shrink: int = 0,
    paint: Mapping[str, Paint] | None = None,
    levels: Sequence[int] = (),
) -> list[str]:
    """The lines of a table. Where it is wider than `width`, the column `shrink` is cut; `paint` colours whole cells.

    `levels` says how deep the first cell of each row is indented.
    """
    cells = [[one_line(cell) for cell in row] for row in [header, *rows]]
    for row, level in zip(cells[1:], levels, strict=False):
        row[0] = GAP * min(level, _DEEPEST) + row[0]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    excess = 0 if width is None else sum(widths) + len(GAP) * (len(widths) - 1) - width
    if excess > 0:
        widths[shrink] = max(_NARROWEST, widths[shrink] - excess)
    return [
        GAP.join(_cell(cell, length, paint or {}) for cell, length in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def with_notes(lines: Sequence[str], notes: Sequence[str], width: int | None = None) -> list[str]:
    """A table (header included) with a note to each row: beside it where there is room, below it where there isn't."""
    notes = [one_line(note) for note in notes]
    longest = max(map(visible_length, lines))
    room = None if width is None else width - longest - len(GAP)
    is_beside = room is None or room >= min(_ROOM_FOR_NOTES, max(map(len, notes), default=0))
    shown = [lines[0]]
    for line, note in zip(lines[1:], notes, strict=True):
        if not note:
            shown.append(line)
        elif is_beside:
            padding = " " * (longest - visible_length(line))
            shown.append(f"{line}{padding}{GAP}{note if room is None else clipped(note, room)}")
        else:
            shown += [line, GAP + clipped(note, max((width or 0) - len(GAP), _NARROWEST))]
    return shown


def visible_length(text: str) -> int:
    """How many columns text takes that may be coloured."""
    return len(_COLOURS.sub("", text))


def _cell(text: str, length: int, paint: Mapping[str, Paint]) -> str:
    shown = text if len(text) <= length else text[: max(length - 1, 0)] + "…"
    return paint.get(text, str)(shown) + " " * (length - len(shown))


def pairs(items: Iterable[tuple[str, str]], width: int | None = None) -> list[str]:
    """Lines of a name and a value each, the values below each other, wrapped; those without a value are left out."""
    shown = [(name, one_line(value)) for name, value in items if value]
    longest = max((len(name) for name, _ in shown), default=0)
    lines = []
    for name, value in shown:
        wrapped = [value] if width is None else wrap(value, max(width - longest - len(GAP), 20), break_on_hyphens=False)
        lines += [f"{title.ljust(longest)}{GAP}{part}" for title, part in zip_longest([name], wrapped, fillvalue="")]
    return lines


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
