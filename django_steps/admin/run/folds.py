"""Which part of the tree of records the page of a run shows: a page of the body's steps, and of each branch and group in
it the first members, or those that were asked for. However large the tree is, the page is not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from django.core.paginator import Page, Paginator
from django.http import HttpRequest

from ...models import StepRecord
from ...presentation.tree import Node, chain_to
from .. import html

PER_PAGE = 100
PER_FOLD = 50  # members of a branch or group
MOST = 300  # rows of a page; what is asked for is shown beyond that, too


@dataclass
class Shown:
    """A node of the tree, and the members of it that are shown: those from number `start` on, counted from 0."""

    node: Node
    is_asked_for: bool = False
    start: int = 0
    members: list[Shown] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether it is unfolded at first: something in it has not gone well, or it was asked for."""
        return bool(self.members) and (self.is_asked_for or not self.node.is_smooth)


def choose(request: HttpRequest, root: Node, *, is_live: bool) -> tuple[Page[Node], list[Shown]]:
    """The page of the body's steps and what is shown of each: `?steps=` is its number, `?in=` the path of a branch or group
    to show the members of, from number `?from=` on."""
    chain = chain_to(root, request.GET["in"]) if request.GET.get("in") else []
    page = _page(request, root, chain, is_live=is_live)
    shown = [Shown(node, node in chain) for node in page]
    _fill(shown, chain, _number(request.GET.get("from")) - 1)
    return page, shown


def _page(request: HttpRequest, root: Node, chain: list[Node], *, is_live: bool) -> Page[Node]:
    """The page with what is asked for; else the one with the first failed step; else the last of a run that goes on, and
    the first of one that has ended."""
    nodes = root.members
    default = max(len(nodes) - 1, 0) if is_live else 0
    if chain:
        default = nodes.index(chain[0])
    else:
        failed = StepRecord.Status.FAILED
        default = next((index for index, node in enumerate(nodes) if node.status == failed), default)
    asked = None if chain else request.GET.get("steps")
    return Paginator(nodes, PER_PAGE).get_page(asked or 1 + default // PER_PAGE)


def _fill(shown: list[Shown], chain: list[Node], start: int) -> None:
    """Give each branch and group its members, as long as there is room: what is asked for first, then what didn't go well,
    and the outer ones before the inner."""
    room, numbers = MOST - len(shown), count()
    waiting: list[tuple[bool, bool, int, int, Shown]] = []

    def wait(members: list[Shown], depth: int) -> None:
        for member in members:
            if member.node.members:
                heappush(waiting, (not member.is_asked_for, member.node.is_smooth, depth, next(numbers), member))

    wait(shown, 0)
    while waiting:
        _is_late, _is_smooth, depth, _count, parent = heappop(waiting)
        members = parent.node.in_order()
        most = PER_FOLD
        if parent.is_asked_for:
            asked = chain[depth + 1] if depth + 1 < len(chain) else None
            index = min(max(start, 0), len(members) - 1) if asked is None else members.index(asked)
            parent.start = index // PER_FOLD * PER_FOLD
        else:
            most = min(most, max(room, 0))
        some = members[parent.start : parent.start + most]
        room -= len(some)
        parent.members = [Shown(node, node in chain) for node in some]
        wait(parent.members, depth + 1)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 1


# -- Where it is on the page --------------------------------------------------------------------------


def mark(node: Node) -> str:
    """What tells a branch or group apart in ids of the page. The position of its record isn't known before its end."""
    return hashlib.blake2s(node.path.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def row_id(node: Node) -> str:
    """The id of the row of a node. Items of a map of child runs are recorded at once, and share their position."""
    if node.is_container or node.record is None or node.kind == StepRecord.Kind.INVOKE:
        return f"row-{mark(node)}"
    return f"step-{node.record.position}"


def address(node: Node, start: int = 0) -> str:
    """The address of a branch or group with its members from number `start` on, counted from 0."""
    return f"?{query_of(node, start)}#{row_id(node)}"


def query_of(node: Node, start: int = 0) -> str:
    """The parameters of that address."""
    return html.query(**{"in": node.path, **({"from": start + 1} if start else {})})
