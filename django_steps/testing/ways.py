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
    """What one pass comes to. `before` is the way of the pass before; None where it doesn't matter."""

    def __init__(self, workflow: str, before: Way | None) -> None:
        self._workflow = workflow
        # By the path of the branch, an empty text for the body; and the items of maps by the map's path.
        self._expected: Mapping[str, list[str]] = before._names if before else {}
        self._expected_items: Mapping[str, set[str]] = {**before._expected_items, **before._items} if before else {}
        # What a branch came to that this pass did not call, because others came first, stays known.
        self._names: dict[str, list[str]] = {**self._expected, "": []}
        self._items: dict[str, set[str]] = {}

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
        place = len(names) - 1
        expected = self._expected.get(branch, ())
        if place < len(expected) and expected[place] != name:
            return self._deviation(branch, place, f"came to {name!r}")
        return None

    def end(self, branch: str = "") -> str | None:
        """The body or a branch has returned. What is wrong with that, if anything is."""
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

    def _deviation(self, branch: str, place: int, did: str) -> str:
        what = f"Branch {branch!r}" if branch else "The body"
        return (
            f"{what} of {self._workflow!r} is not repeatable: on the pass before it came to"
            f" {self._expected[branch][place]!r} here, and now it {did}.{_WHY}"
        )


def _shown(keys: Collection[str]) -> str:
    some = sorted(keys)
    return ", ".join(map(repr, some[:_SHOWN])) + (", …" if len(some) > _SHOWN else "")
