"""Lets the shop's functions run in a step and outside of one, from a view or a shell, alike."""

from __future__ import annotations

from django_steps import StepsError, current_step


def idempotency_key(otherwise: str) -> str:
    """The key of the step that is being executed; outside a step what the caller names."""
    try:
        return current_step().idempotency_key
    except StepsError:
        return otherwise


def where() -> dict[str, object]:
    """The run and the step that are being executed, as the shop's log keeps them; empty outside a step."""
    try:
        step = current_step()
    except StepsError:
        return {}
    return {"run_id": step.run_id, "step": step.name}
