"""Text that fits: in one line, with an ellipsis for what is left out, without what a stream can't carry."""

from __future__ import annotations


def clipped(text: str, length: int) -> str:
    """The text in one line, with an ellipsis for what is beyond `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: max(length - 1, 0)]}…"


def middle_cut(text: str, length: int) -> str:
    """The text in one line without its middle: keys often differ in their ends."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    tail = length // 2
    return f"{line[: length - tail - 1]}…{line[-tail:]}"


def portable(text: str) -> str:
    """Text that every response and every stream can carry: lone surrogates and NULs are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
