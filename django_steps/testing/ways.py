"""The way of a pass: what its body and its branches came to. On the next pass it has to be the same.

Branches are executed in any order, so each has a way of its own. The items of a map that is not finished may be in any
order, too, but have to be the same ones: the results of those that are missing would be lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

_SHOWN = 5

_WHY = (
    " After every suspension it is called again from the top, so what it decides must follow from its input and from what"
    " its steps returned. Put what changes (the time, random numbers, reading the database) into a step."
)


class Way:
    """What one pass comes to. `before` is the way of the pass before; None where it doesn't matter. The order in which an async
    body comes to its steps is free."""

    def __init__(self, workflow: str, before: Way | None, is_async: bool = False) -> None:
        self._workflow, self._is_async = workflow, is_async
        # By the path of the branch, an empty text for the body; and the items of maps by the map's path.
        self._expected: Mapping[str, list[str]] = before._names if before else {}
        self._expected_items: Mapping[str, set[str]] = {**before._expected_items, **before._items} if before else {}
        # What a branch came to that this pass did not call, because others came first, stays known.
        self._names: dict[str, list[str]] = {**self._expected, "": []}
        self._items: dict[str, set[str]] = {}
        # Of an async body: all that earlier passes came to.
        self._ever: dict[str, dict[str, None]] = dict(before._ever) if before else {}
        for branch, came_to in self._expected.items() if is_async else ():
            self._ever[branch] = self._ever.get(branch, {}) | dict.fromkeys(came_to)

    def enter(self, branch: str) -> None:
        """A branch is called, maybe a second time in this pass."""
        self._names[branch] = []

    def come_to(self, name: str, branch: str) -> str | None:
        """The body or a branch comes to an operation. What is wrong with that, if anything is."""
        map_name, _, key = name.rpartition("#")
        if map_name and key and "/" not in key:
            self._items.setdefault(map_name, set()).add(key)
            return None
        names = self._names[branch]
        names.append(name)
        if self._is_async:
            return None
        place = len(names) - 1
        expected = self._expected.get(branch, ())
        if place < len(expected) and expected[place] != name:
            return self._deviation(branch, place, f"came to {name!r}")
        return None

    def end(self, branch: str = "") -> str | None:
        """The body or a branch has returned. What is wrong with that, if anything is."""
        if self._is_async:
            return self._missing(branch)
        place = len(self._names[branch])
        return self._deviation(branch, place, "returned") if place < len(self._expected.get(branch, ())) else None

    def finish_map(self, name: str) -> str | None:
        """A map is recorded. What is wrong with its items, if anything is: from now on it doesn't look at them."""
        self._items.setdefault(name, set())
        return self.changed_items()

    def changed_items(self) -> str | None:
        """What is wrong with the items of the maps that this pass came to, if anything is."""
        for name, items in self._items.items():
            before = self._expected_items.get(name, items)
            if before != items:
                changed = (("missing", before - items), ("new", items - before))
                changes = [f"{word}: {_shown(some)}" for word, some in changed if some]
                return (
                    f"Map {name!r} of {self._workflow!r} is not repeatable: on the pass before it had other items"
                    f" ({'; '.join(changes)}). Until it has ended it is called again after every suspension, and the results of"
                    " items that are missing then are lost. Take the items from the input, or from what a step returned."
                )
        return None

    def _missing(self, branch: str) -> str | None:
        """In an async body the order is free, but what it came to before has to come again."""
        names = set(self._names[branch])
        missing = next((name for name in self._ever.get(branch, ()) if name not in names), None)
        if missing is None:
            return None
        what = f"Branch {branch!r}" if branch else "The body"
        return (
            f"{what} of {self._workflow!r} is not repeatable: on an earlier pass it came to {missing!r}, and now it returned"
            f" without.{_WHY}"
        )

    def _deviation(self, branch: str, place: int, did: str) -> str:
        what = f"Branch {branch!r}" if branch else "The body"
        return (
            f"{what} of {self._workflow!r} is not repeatable: on the pass before it came to"
            f" {self._expected[branch][place]!r} here, and now it {did}.{_WHY}"
        )


def _shown(keys: Collection[str]) -> str:
    some = sorted(keys)
    return ", ".join(map(repr, some[:_SHOWN])) + (", …" if len(some) > _SHOWN else "")
