"""The workload W7: what a claim costs beside a crowd of finished and sleeping runs, and in a table without them."""

from __future__ import annotations

import statistics
from typing import Any

from .lab import Lab
from .peers import Peer, Setting
from .scale import Scale

BATCH = 16
_TURNS = 3
_CROWDED = "-crowd"


def claim_cost(lab: Lab, peer: Peer, setting: Setting, scale: Scale) -> dict[str, Any]:
    """W7, ours: the two tables by turns, so that both see the same weather."""
    lab.reset(peer)
    lab.reset(peer, _CROWDED)
    crowd = lab.call(peer, setting, "crowd", suffix=_CROWDED, count=scale.crowd)
    times: dict[tuple[str, str], list[float]] = {}
    plans: list[str] = []
    for turn in range(_TURNS):
        for suffix in ("", _CROWDED):
            is_last = suffix == _CROWDED and turn == _TURNS - 1
            count = max(1, scale.claims // _TURNS)
            answer = lab.call(peer, setting, "claims", suffix=suffix, count=count, batch=BATCH, explain=is_last)
            for what in ("claims", "looks"):
                times.setdefault((what, suffix), []).extend(answer[what])
            plans = answer.get("plans", plans)
    claim, crowded_claim = (statistics.median(times["claims", suffix]) for suffix in ("", _CROWDED))
    look, crowded_look = (statistics.median(times["looks", suffix]) for suffix in ("", _CROWDED))
    return {
        "claim_ms": claim,
        "crowded_claim_ms": crowded_claim,
        "claim_ratio": crowded_claim / claim,
        "look_ms": look,
        "crowded_look_ms": crowded_look,
        "finished": crowd["succeeded"],
        "sleeping": crowd["sleeping"],
        "plans": plans,
    }
