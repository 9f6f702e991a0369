"""Standard output and error of a command line: any encoding takes every line, and a reader that has gone is no error.

Not here: what the lines say, and how they are laid out (`presentation`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

_READER_GONE = 1  # the exit code: nobody knows how much was read


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """For the time of a command: what an encoding (ASCII, cp1252) doesn't have is escaped, and a broken pipe ends it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        flush()
    except BrokenPipeError:
        discard()
        sys.exit(_READER_GONE)
    except SystemExit:
        with suppress(OSError):
            flush()
            raise
        discard()
        raise


def flush() -> None:
    """Write what is buffered, so that a reader that has gone is noticed here and not by the interpreter at its end."""
    sys.stdout.flush()


def discard() -> None:
    """Throw away what is still to be written to standard output, as the documentation of Python says."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
