"""The workload W7: what a claim costs beside a crowd of finished and sleeping runs, and in a table without them."""

from __future__ import annotations

from typing import Any

from .lab import Lab
from .peers import Peer, Setting
from .scale import Scale

BATCH = 16
CROWDED = "-crowded"


def claim_cost(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> dict[str, Any]:
    """W7, ours: claims from both tables by turns, so that both see the same weather."""
    lab.reset(peer)
    lab.reset(peer, CROWDED)
    try:
        crowd = lab.call(peer, setting, "crowd", suffix=CROWDED, count=scale.crowd)
        found = lab.call(peer, setting, "claims", beside=CROWDED, count=scale.claims, batch=BATCH)
    finally:
        lab.drop(peer, CROWDED)
    return {
        **found,
        "statements_ratio": found["crowded_statements_ms"] / found["statements_ms"],
        "finished": crowd["succeeded"],
        "sleeping": crowd["sleeping"],
    }
