"""What came later than what in a run. Positions and `after` decide it, never times: clocks tie and step back.

- A record's *position* is its place in the order in which outcomes were recorded. The final record of a step that was tried
  before has a new one, higher than all others; until then it keeps the position of its first record.
- Its *after* is the highest position whose outcome the body had been given when it called the step; -1 for none.
- B is *later* than A if `B.after >= A.position`: the body knew A's outcome when it called B. A step that a later deploy
  put before A is recorded after A failed, and is not later: A is called again without the body having seen the failure.
- A failure is *handled* if another step is later than it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..errors import FailureWasHandled

Place = tuple[str, int, int]  # the name of a record, its position, its `after`

# SQL for: is later than the record at a position, which is the parameter.
IS_LATER = "after >= %s"


def failures(places: Iterable[Place], steps: Collection[str]) -> list[str]:
    """Those of `steps` that are recorded, in order; `FailureWasHandled` if another step is later than the first of them."""
    ordered = sorted(places, key=lambda place: place[1])
    failed = [(name, position) for name, position, _ in ordered if name in steps]
    if not failed:
        return []
    first, position = failed[0]
    later = [name for name, _, after in ordered if name not in steps and after >= position]
    if later:
        raise FailureWasHandled(first, later)
    return [name for name, _ in failed]
