"""Exceptions ⇄ records, faithfully, and which step a failure belongs to. The JSON of a failure is known here only.

- `codec`: the record of a failure, as an object and as the text in the columns; `attempt_log`: those of earlier attempts
- `nodes`: describing an exception; `builder`: making it anew; `arguments`: what it may hold besides what results may
- `attribution`: which steps' failures an exception is

Not here: whether something that failed is tried again (`core/retries.py`), and how people read an error (`presentation`).
"""

from .attempt_log import append_attempt, count_postponements
from .codec import (
    FailureRecord,
    columns,
    is_retryable,
    is_users_code,
    rebuild,
    record,
    steps_named_at_the_end,
    summary,
    type_of,
    users_traceback,
    with_steps,
)

__all__ = [
    "FailureRecord",
    "append_attempt",
    "columns",
    "count_postponements",
    "is_retryable",
    "is_users_code",
    "rebuild",
    "record",
    "steps_named_at_the_end",
    "summary",
    "type_of",
    "users_traceback",
    "with_steps",
]
