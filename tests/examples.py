"""How many random examples a model is tried with, and whether enough has happened to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from tests.conftest import ELSEWHERE


def examples(count: int) -> int:
    """So many on SQLite, and fewer on the databases whose every statement takes longer; ALL=1: so many on all of them."""
    return count * 2 // 5 if ELSEWHERE else count


def assert_enough(counts: Counter[str], kinds: Collection[str], more_than: int) -> None:
    """That each kind of interruption came to its point more often than this; among fewer examples, all kinds together."""
    if ELSEWHERE:
        assert sum(counts.values()) > examples(more_than * len(kinds)), counts
    else:
        assert all(counts[kind] > more_than for kind in kinds), counts
