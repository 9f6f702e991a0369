"""W14: the memory of an idle worker, beside that of a process which has only set up Django and asked the database once."""

from __future__ import annotations

import time
from collections.abc import Callable

from .lab import Lab
from .peers import Peer, Setting
from .processes import PeerFailed, WorkerProcess
from .scale import Scale

# What is set up in the process that is compared with: the same settings, or Django's own apps only.
_PROJECT: dict[str, str] = {}
_DJANGO = {"BENCHMARK_BARE": "1"}


def idle_memory(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> dict[str, float]:
    """One process after the other, each once it does nothing more: MiB that are resident, and its share of what it has
    together with other processes (`pss`)."""
    lab.reset(peer)
    with lab.observer(peer) as observer, lab.workers(peer, setting) as workers:
        worker = _settled(workers[0], lambda: observer.workers() > 0, scale)
    figures = {"worker_mib": worker["rss"], "worker_pss_mib": worker["pss"], "threads": worker["threads"]}
    for name, environment in (("project", _PROJECT), ("django", _DJANGO)):
        lab.reset(peer)
        with lab.process(peer, setting, lab.driver(peer, "idle"), environment) as process:
            found = _settled(process, lambda: bool(lab.notes()), scale)
        figures |= {f"{name}_mib": found["rss"], f"{name}_pss_mib": found["pss"]}
    return figures


def _settled(process: WorkerProcess, has_begun: Callable[[], bool], scale: Scale) -> dict[str, float]:
    """Its memory once it has begun and does nothing more: to be idle alone may also mean that it waits for a processor."""
    deadline = time.monotonic() + scale.patience
    while not has_begun():
        if not process.is_alive:
            raise PeerFailed(f"The process died: {process.tail()}")
        if time.monotonic() > deadline:
            raise PeerFailed(f"The process has not begun within {scale.patience:.0f} s.")
        time.sleep(0.1)
    process.settle()
    found = {**process.memory(), **process.share_of_memory()}
    if "rss" not in found or "pss" not in found:
        raise PeerFailed("The memory of a process can't be read here.")
    return found
