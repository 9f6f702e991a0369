"""Processes that kill themselves at the worst moments: between the commit of an event, or of the end of a child, and the
wake-up, and between the commit of a suspension and the last look.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

from django_steps.ledger import cascades, events, waits
from django_steps.worker import maintenance

from . import evidence

# How likely it is each time; and after how many seconds the nets under it are drawn up, where that is not a minute.
CHANCE, NET = "FAULTS_DIES", "FAULTS_NET"
SHORT = 2.0
# The label and the names of what is noted: a process killed itself before this, and a last look has found something.
HERE, DIED, FOUND = "here", "died", "found"


def environment(chance: float, *, net: float | None = None) -> dict[str, str]:
    """What a process needs for that."""
    return {CHANCE: str(chance), **({NET: str(net)} if net is not None else {})}


def install() -> None:
    """As the environment of this process says."""
    if net := float(os.environ.get(NET, "0")):
        waits.NET_US = int(net * 1_000_000)  # type: ignore[misc]
        waits.CHILDREN_NET_US = 2 * waits.NET_US  # type: ignore[misc]
        maintenance._INTERVAL = net / 2
    if CHANCE in os.environ:
        chance = float(os.environ[CHANCE])
        events.tell = _after_death(events.tell, chance)
        cascades.tell_parents = _after_death(cascades.tell_parents, chance)
        waits.look_again = _after_death(_noting(waits.look_again), chance)


def _after_death(function: Callable[..., Any], chance: float) -> Callable[..., Any]:
    @wraps(function)
    def dying(*given: Any) -> Any:
        if random.random() < chance:
            evidence.note(HERE, DIED, function.__name__)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given)

    return dying


def _noting(look_again: Callable[..., bool]) -> Callable[..., bool]:
    @wraps(look_again)
    def noting(*given: Any) -> bool:
        if found := look_again(*given):
            evidence.note(HERE, FOUND, "something")
        return found

    return noting
