"""What a failed run can be listed with: the type and the message from the beginning of its recorded failure.

The beginning may be cut off anywhere, so it is searched and not parsed: megabytes of tracebacks stay in the database.
"""

from __future__ import annotations

import json
import re

_TYPE = re.compile(r'"type":\s*"((?:[^"\\]|\\.)*)"')
_MESSAGE = re.compile(r'"message":\s*"((?:[^"\\]|\\.)*)')
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?$")


def type_and_message(start: str) -> tuple[str, str]:
    """The dotted type and the message, as far as they are in `start`; empty where they are not.

    >>> type_and_message('{"type":"builtins.ValueError","message":"card decl')
    ('builtins.ValueError', 'card decl')
    """
    return _text(_TYPE.search(start)), _text(_MESSAGE.search(start))


def _text(match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    try:
        return str(json.loads(f'"{_HALF_ESCAPE.sub("", match[1])}"', strict=False))
    except ValueError:
        return ""
