"""The context of a record: JSON of what only records of its kind and status have to say. What may stand in it is known here.

- `delay_us`: of a step that is tried again, the planned wait before the next attempt.
- `since_us`: of a step whose policy has `give_up_after`, when its first attempt began; of a sleep in an async body, when it was
  reached.
- `checkpoint`: `[number, text]`, the last checkpoint of a step that has not succeeded; see `engine/checkpoints.py`.
- `checks`: of a poll, how many checks it has made; `counted_before`: how many attempts there were before the present check,
  which is tried again.
- `levels`: of a record in branches, `[path, group, entry]` for each branch around it; `group`: whose member it is. What they
  are for is in `order.py`.
- `reached_us`, `deadline_us`: of a poll, and of what waits for others, when it was first reached, and when it is over.
- `events`: of a wait, the names of the events that it takes; `type`: how the class is called that their payloads have to fit;
  `event`: the `name`, `id`, `by` and `sent_us` of the one that it has taken; `timed_out`: that none came in time, or that a
  child has not ended in time.
- `child`: of a step that invokes a run, and of an item of a map over a workflow that failed, the id of that run.
- `undo`: that the step has an undo, and succeeded; or had returned when an async body canceled it.
- `unreached`: the last pass has not come to this record, which an earlier version of the body has made
  (`engine/marks.py`); `changed_arguments`: it was called with other arguments than those that are recorded.
- `children`, `keys`: of a map over a workflow that waits, how many items there were, and a digest of their keys; `window`: that
  it starts no more children than may be active; `stops_after_failures`, `stops_after_successes`: how many ends decide it. The
  last three say whether the end of a child concerns its parent although others have not ended (`cascades.py`).

Times and durations are in microseconds.
"""

from __future__ import annotations

import json
from typing import Any

UNREACHED, CHANGED_ARGUMENTS = "unreached", "changed_arguments"
UNDO = "undo"

# What a reset leaves: a retry goes on from the checkpoint, the place of a record stays, and the clock of a poll goes on.
_OUTLASTS_RESET = ("checkpoint", "levels", "group", "reached_us", "deadline_us", "child")


def read(text: str | None) -> dict[str, Any]:
    """What a context says; nothing where it is damaged, since a row must not keep others from being read."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write(details: dict[str, Any]) -> str | None:
    """The text of a context; what is None is left out, and None is the text of nothing."""
    said = {key: value for key, value in details.items() if value is not None}
    return json.dumps(said) if said else None


def number(details: dict[str, Any], key: str) -> int | None:
    """A whole number that a context holds; None where there is none."""
    value = details.get(key)
    return value if type(value) is int else None


def after_reset(text: str | None) -> str | None:
    """The context of a record that is to be executed again."""
    details = read(text)
    return write({key: details.get(key) for key in _OUTLASTS_RESET})
