"""What came later than what in a run. Positions and `after` decide it, never times: clocks tie and step back.

- A record's *position* is its place in the order in which outcomes were recorded. The final record of a step that was tried
  before has a new one, higher than all others; until then it keeps the position of its first record.
- Its *after* is the highest position whose outcome the body, or the branch that called the step, had been given by then; -1
  for none.
- B is *later* than A if `B.after >= A.position`: the body knew A's outcome when it called B. A step that a later deploy
  put before A is recorded after A failed, and is not later: A is called again without the body having seen the failure.
- Branches that are executed side by side don't see each other's outcomes. So where B was called in a branch that A is not
  in, it counts what was known where that branch was called: its *entry*.
- A failure is *handled* if another step is later than it.
- The position of a step that an async body canceled counts as known once the cancellation has reached the body. It was
  *noticed* if another step is later than it: the body has gone on without its outcome. Siblings that a task group canceled
  for a failure were called before that failure was known, and so are not later than it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import FailureWasHandled
from . import contexts


class Level(NamedTuple):
    """A branch that a record is in: its path, the group that it is a member of (or an empty text), and its entry."""

    branch: str
    group: str
    entry: int


class Place(NamedTuple):
    """Where a record stands in its run. `levels`: the branches around it, the outermost first; `group`: whose member it is."""

    name: str
    position: int
    after: int
    levels: tuple[Level, ...] = ()
    group: str = ""

    @classmethod
    def read(cls, name: str, position: int, after: int, context: str | None) -> Place:
        """The place of a record, from what its columns hold."""
        if not context:
            return cls(name, position, after)
        said = contexts.read(context)
        try:
            levels = tuple(Level(*level) for level in said.get("levels", ()))
            return cls(name, position, after, levels, str(said.get("group", "")))
        except TypeError:  # damaged
            return cls(name, position, after)

    def is_later(self, other: Place) -> bool:
        """Whether the outcome of `other` was known where this was called."""
        depth = 0
        for mine, its in zip(self.levels, other.levels, strict=False):
            if mine.branch != its.branch:
                break
            depth += 1
        known = self.levels[depth].entry if depth < len(self.levels) else self.after
        return known >= other.position

    def paths(self) -> set[str]:
        """The steps, branches and groups whose record this is, or within which it is: all for which `is_in()` is true."""
        around = {path for level in self.levels for path in (level.branch, level.group)}
        return {self.name, self.group, *around} - {""}

    def is_in(self, path: str) -> bool:
        """Whether this is the record of the step, branch or map at this path, or a record within it."""
        if self.name == path or self.group == path:
            return True
        return any(path in (level.branch, level.group) for level in self.levels)


def details(levels: Sequence[Level], group: str) -> dict[str, Any]:
    """What the context of a record says of its place; most have nothing to say."""
    said: dict[str, Any] = {}
    if levels:
        said["levels"] = levels
    if group:
        said["group"] = group
    return said


@lru_cache(maxsize=64)
def place_text(levels: tuple[Level, ...], group: str) -> str | None:
    """The text of a context that says only this: the same for all items of a map."""
    return contexts.write(details(levels, group))


def context_of(levels: Sequence[Level], group: str, said: Mapping[str, Any] | None = None) -> str | None:
    """The text of a context that says this, and nothing else but `said`."""
    return contexts.write({**(said or {}), **details(levels, group)})


def failures(places: Iterable[Place], steps: Collection[str]) -> list[str]:
    """Those of `steps` that are recorded, in order; `FailureWasHandled` if another step is later than one of them."""
    ordered = sorted(places, key=lambda place: place.position)
    steps = set(steps)
    # Of several in one branch the first one decides.
    first: dict[tuple[Level, ...], Place] = {}
    found, others = [], []
    for place in ordered:
        if place.name in steps:
            first.setdefault(place.levels, place)
            found.append(place.name)
        else:
            others.append(place)
    known = _most_known(others)
    for failed in first.values():
        if _is_known(failed, known):
            raise FailureWasHandled(failed.name, [place.name for place in others if place.is_later(failed)])
    return found


def unnoticed(places: Iterable[Place], canceled: Collection[str]) -> list[str]:
    """Those of `canceled` that none of the places is later than, in order: no step was called without their outcomes."""
    places = sorted(places, key=lambda place: place.position)
    known = _most_known(places)
    return [place.name for place in places if place.name in canceled and not _is_known(place, known)]


def _is_known(place: Place, known: Mapping[str, int]) -> bool:
    """Whether anything is later than this, by what `_most_known()` says of others. It is never later than itself."""
    branches = ("", *(level.branch for level in place.levels))
    return any(known.get(branch, -1) >= place.position for branch in branches)


def _most_known(places: Iterable[Place]) -> dict[str, int]:
    """The highest position that was known where any of these was called, by the branch that called it or a branch around it;
    the body is an empty text.

    So one look answers for a failure what `is_later()` answers for one pair: what is known in a branch grows inwards, so
    that a branch that both are in says no more than the innermost of those.
    """
    known: dict[str, int] = {}
    for place in places:
        branch = ""
        for level in place.levels:
            known[branch] = max(known.get(branch, -1), level.entry)
            branch = level.branch
        known[branch] = max(known.get(branch, -1), place.after)
    return known


class Reset(NamedTuple):
    """What is reset where a run is to go on from a step, a branch or a map: the names of the records to delete, those among
    them that are later than it, and the groups in which failures are reset."""

    names: set[str]
    later: set[str]
    groups: set[str]


def reset_with(places: Sequence[Place], path: str) -> Reset | None:
    """What is reset where a run is to go on from `path`; None: nothing is recorded at that path.

    What is deleted is itself and what is in it, what is later, and the outcomes of the branches and groups that it is in.
    """
    inside = [place for place in places if place.is_in(path)]
    if not inside:
        return None
    first = min(inside, key=lambda place: place.position)
    itself = next((place for place in inside if place.name == path), first)
    levels = _levels_around(itself, path)
    groups = {level.group for level in levels} | ({itself.group} if itself.name == path else _group_of(itself, path))
    groups.discard("")
    later = {place.name for place in places if place.is_later(first)}
    names = {place.name for place in inside} | later | {level.branch for level in levels} | groups
    return Reset(names, later, groups)


def _group_of(place: Place, path: str) -> set[str]:
    """The group of the branch at `path`, of a record within it."""
    return {level.group for level in place.levels if level.branch == path}


def _levels_around(place: Place, path: str) -> tuple[Level, ...]:
    """The branches that `path` is in, of a record at or within it."""
    if place.name == path:
        return place.levels
    for depth, level in enumerate(place.levels):
        if path in (level.branch, level.group):
            return place.levels[:depth]
    return place.levels
