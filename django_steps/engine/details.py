"""What a body says of itself by `run.update_details()` and `run.set_tags()`, on its way into the row of the run.

It is written by the next record of the body or branch that says it, or by one of the branches within: in the same
transaction, so that a later pass which finds that record knows that it is written (`Scope.is_behind`). A step says
something with its own record. Whatever is left goes with the write that suspends or ends the run.

Until such a write is known to be committed, every other one carries it as well. Each writes all that has been said, and
asks for it while it has the run's row locked. So whichever of two comes last, the row holds what was said last. Of tags only
those are written that were said, so that what operators give the run meanwhile stays.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from typing import Any

from .. import values
from ..core.tags import NONE, Changes, Tags, changed, check_number
from ..errors import UnserializableValue, ValueTooLarge
from ..values.types import TAG

# What was said, by key: as JSON has it.
Nodes = Mapping[str, Any]
NOTHING: Nodes = {}


class _Saying:
    """One call of `update_details()` or `set_tags()`. `teller`: the path of the branch or the step that has said it, empty for
    the body; `tags`: the names of those that were said."""

    __slots__ = ("is_taken", "nodes", "tags", "teller")

    def __init__(self, teller: str, nodes: Nodes, tags: Collection[str] = ()) -> None:
        self.teller, self.nodes, self.tags, self.is_taken = teller, nodes, tags, False


class Details:
    """What the run of a pass says of itself. `stored`, `stored_tags`: what its row holds when the pass begins.

    May be used from any thread.
    """

    def __init__(self, stored: str = "", stored_tags: Tags = NONE) -> None:
        self._stored = stored
        self._stored_tags = stored_tags
        # What was said of tags in this pass; a name that comes again stands for what was said last.
        self._said_tags: dict[str, str | None] = {}
        # What the row holds once what is on its way is committed; made when it is first asked for, which most runs never do.
        self._nodes: dict[str, Any] | None = None
        self._pending: list[_Saying] = []
        self._lock = threading.Lock()

    def say(self, teller: str, nodes: Nodes, max_bytes: int) -> None:
        """Something is said for the first time. Raises `ValueTooLarge` if all that the run says has more than `max_bytes`."""
        with self._lock:
            text = as_text({**self._with_pending(), **nodes})
            check_size(text, max_bytes)
            self._pending.append(_Saying(teller, nodes))

    def say_tags(self, teller: str, changes: Changes) -> None:
        """The same of tags. Raises `ValueError` if the run has too many then."""
        with self._lock:
            check_number(changed(self._stored_tags, {**self._said_tags, **changes}))
            self._said_tags.update(changes)
            self._pending.append(_Saying(teller, NOTHING, tuple(changes)))

    def tags(self) -> Tags:
        """The tags that the run has with what was said in this pass."""
        with self._lock:
            return changed(self._stored_tags, self._said_tags)

    def pending_tags(self, sayings: Collection[_Saying] | None = None) -> Changes:
        """What was said last of the tags that are in these sayings (None: in all that are not known to be written)."""
        with self._lock:
            some = self._pending if sayings is None else sayings
            return {name: self._said_tags[name] for saying in some for name in saying.tags}

    def carried_by(self, tellers: Collection[str]) -> Carried | None:
        """What a record carries that is made for these; None if nothing waits."""
        with self._lock:
            waiting = [saying for saying in self._pending if saying.teller in tellers]
            if not waiting:
                return None
            has_nodes = any(saying.nodes for saying in waiting)
            return Carried(self, tellers, len(as_text(self._with_pending())) if has_nodes else 0)

    def rest(self) -> str | None:
        """What the row has to hold where the pass suspends or ends its run; None: what it holds now. Not of tags."""
        if not self._pending:
            return None
        return self.take(None)[0]

    def take(self, tellers: Collection[str] | None) -> tuple[str | None, list[_Saying]]:
        """What the row has to hold with what these (None: all) have said, None: what it holds now; and that part of it that was
        pending."""
        with self._lock:
            taken = [saying for saying in self._pending if tellers is None or saying.teller in tellers]
            if not any(saying.nodes for saying in taken):
                return None, taken
            nodes = self._known()
            for saying in taken:
                if not saying.is_taken:
                    saying.is_taken = True
                    nodes.update(saying.nodes)
            return as_text(nodes), taken

    def are_written(self, sayings: Collection[_Saying]) -> None:
        """These are committed."""
        with self._lock:
            self._pending = [saying for saying in self._pending if saying not in sayings]

    @property
    def are_pending(self) -> bool:
        """Whether anything is not known to be committed."""
        return bool(self._pending)

    def _known(self) -> dict[str, Any]:
        if self._nodes is None:
            self._nodes = _read(self._stored)
        return self._nodes

    def _with_pending(self) -> dict[str, Any]:
        nodes = self._known().copy()
        for saying in self._pending:
            if not saying.is_taken:
                nodes.update(saying.nodes)
        return nodes


class Carried:
    """What one record carries."""

    __slots__ = ("_details", "_taken", "_tellers", "size")

    def __init__(self, details: Details, tellers: Collection[str], size: int) -> None:
        self._details, self._tellers, self.size = details, tellers, size
        self._taken: list[_Saying] = []

    def text(self) -> str | None:
        """What the row of the run has to hold; None: what it holds now."""
        text, self._taken = self._details.take(self._tellers)
        return text

    def tags(self) -> Changes:
        """The tags that were said with it."""
        return self._details.pending_tags(self._taken)

    def is_written(self) -> None:
        """The record is committed."""
        self._details.are_written(self._taken)


def packed(given: Mapping[str, Any], max_bytes: int) -> Nodes:
    """What is given to `update_details()`, as JSON has it. Raises `UnserializableValue`, `ValueTooLarge`."""
    nodes = json.loads(values.encode(given, root="details", max_bytes=max_bytes))
    if TAG in nodes:  # the whole is no JSON object then
        raise UnserializableValue("details: a name is a text that can be a key in JSON, and not '$'.")
    found: Nodes = nodes
    return found


def as_text(nodes: Nodes) -> str:
    """The text that the row of a run holds; `values.decode()` reads it."""
    return json.dumps(nodes, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def check_size(text: str, max_bytes: int) -> None:
    """Raise `ValueTooLarge` if what a run says of itself is too long."""
    if len(text) > max_bytes:
        raise ValueTooLarge(
            f"The details of the run have {len(text):,} bytes together when encoded, and the limit is {max_bytes:,} "
            '(DJANGO_STEPS["MAX_VALUE_BYTES"]). Store what is long, and give its primary key.'
        )


def _read(stored: str) -> dict[str, Any]:
    """What a row holds; nothing of what is damaged."""
    try:
        found = json.loads(stored) if stored else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and TAG not in found else {}
