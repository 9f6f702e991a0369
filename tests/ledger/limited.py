"""What a worker does with limited runs, by calls of the ledger."""

from __future__ import annotations

from typing import Any

from django.db import connection

from django_steps.ledger import claims, lines
from django_steps.ledger.claims import Claim
from tests.staging import make_terms

NARROW = {"QUEUES": {"narrow": {"at_once": 1}}}


def take(limit: int = 100, **terms: Any) -> list[Claim]:
    """Claim as a worker does."""
    claimed = claims.claim(connection, make_terms(**terms), limit)
    begun = {name for claim in claimed.runs if claim.is_new_attempt for name in lines.with_rate(*claim.limits)}
    lines.promote(connection, claimed.lines | begun)
    return claimed.runs


def left(claim: Claim) -> None:
    """What a worker does when a pass has ended."""
    lines.promote(connection, lines.names(*claim.limits))
