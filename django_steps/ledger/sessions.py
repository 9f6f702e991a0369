"""Which statements change the session of a connection: settings, a role, locks, temporary tables, another database.

And those that end a transaction. They are recognized by their text, on every database. Not here: what becomes of such a
session (`engine/connections.py`).
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
    """The statements in a text, literals and comments being left empty: a semicolon in one of these ends no statement, nor
    does one in the body of a function or a trigger."""
    return _QUOTED.sub(_emptied, text).split(";") if ";" in text and not _WITH_BODY.match(text) else [text]


def _emptied(found: re.Match[str]) -> str:
    return " " if found[0].startswith(("--", "/*")) else "''"


def opens_transaction(statement: str) -> bool | None:
    """Whether a statement begins a transaction, or ends one (False); None for others."""
    found = _CONTROL.match(statement)
    return None if found is None else found["opens"] is not None


def commits_implicitly(statement: str) -> bool:
    """Whether a statement ends the transaction on MySQL and MariaDB, although it says nothing of it."""
    return _IMPLICIT.match(statement) is not None


_QUOTED = re.compile(
    r"'(?:[^'\\]|''|\\.)*'|\"(?:[^\"\\]|\"\"|\\.)*\"|`[^`]*`|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.DOTALL
)
_SPACE = r"(?:\s|/\*(?:[^*]|\*(?!/))*\*/|--[^\n]*\n)*"
_WITH_BODY = re.compile(_SPACE + r"CREATE\b[^;('\"`]*\b(?:TRIGGER|FUNCTION|PROCEDURE|EVENT|PACKAGE)\b", re.IGNORECASE)
_CONTROL = re.compile(
    _SPACE
    + r"(?:(?P<opens>BEGIN|START\s+TRANSACTION)\b|COMMIT\b(?!\s+PREPARED\b)|END\b|ABORT\b|PREPARE\s+TRANSACTION\b"
    r"|ROLLBACK\b(?!\s+PREPARED\b|(?:\s+(?:WORK|TRANSACTION))?\s+TO\b))",
    re.IGNORECASE,
)
_IMPLICIT = re.compile(
    _SPACE + r"(?:BEGIN\b|START\s+TRANSACTION\b|(?:CREATE|DROP|ALTER)\s+(?!TEMPORARY\b)|TRUNCATE\b|RENAME\s|GRANT\b"
    r"|REVOKE\b|LOCK\s+TABLES?\b|SET\s+(?:(?:SESSION|LOCAL)\s+|@@(?:session\.|local\.)?)?autocommit\b)",
    re.IGNORECASE,
)
_CHANGE = re.compile(
    _SPACE + r"(?:"
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
