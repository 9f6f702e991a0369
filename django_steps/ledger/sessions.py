"""Which statements change the session of a connection: settings, a role, locks, temporary tables, another database.

They are recognized by their text, on every database. Not here: what becomes of such a session (`engine/connections.py`).
"""

from __future__ import annotations

import re
from typing import Any


def text_of(sql: Any) -> str:
    """What may be executed and is no string: psycopg's composed statements."""
    try:
        return str(sql.as_string(None))
    except Exception:
        return str(sql)


def may_change(text: str) -> bool:
    """Whether a statement may change the session beyond its transaction."""
    return (
        _CHANGE.match(text) is not None
        or (
            ("_lock" in text or "_LOCK" in text or "set_config" in text) and _CHANGING_FUNCTION.search(text) is not None
        )
        or (";" in text and any(_CHANGE.match(part) for part in statements(text)))
    )


def statements(text: str) -> list[str]:
    """The statements in a text, literals and comments being left empty: a semicolon in one of these ends no statement."""
    return _QUOTED.sub("''", text).split(";") if ";" in text else [text]


_QUOTED = re.compile(
    r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"|`[^`]*`|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL
)
_CHANGE = re.compile(
    r"(?:\s|/\*(?:[^*]|\*(?!/))*\*/|--[^\n]*\n)*(?:"
    r"SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)|RESET\b|DISCARD\b|USE\b|LISTEN\b|LOAD\s+'|ATTACH\b|DETACH\b"
    r"|LOCK\s+TABLES?\b(?!.*\bMODE\b)|FLUSH\s+TABLES\b|CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:LOCAL|GLOBAL)\s+)?TEMP"
    r"|PREPARE\s+(?!django_steps_)|DECLARE\b.*\bWITH\s+HOLD\b|ALTER\s+SESSION\b"
    r"|PRAGMA\s+[\w.\"]+\s*(?:=|\((?<!_info\()(?<!_xinfo\()(?<!_list\()(?<!_check\()))",
    re.IGNORECASE | re.DOTALL,
)
# Those that hold a lock until the session ends, and the setting that is not for the transaction alone.
_CHANGING_FUNCTION = re.compile(
    r"\b(?:pg_(?:try_)?advisory_lock(?:_shared)?\s*\(|GET_LOCK\s*\(|set_config\s*\((?!.*,\s*(?:true|'t(?:rue)?')\s*\)))",
    re.IGNORECASE | re.DOTALL,
)
