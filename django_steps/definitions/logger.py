"""The `logger` argument of a body: a standard adapter that writes no line twice.

While a pass only replays steps, earlier passes have written the log lines already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any
from uuid import UUID

from ..core.context import active_step


class WorkflowLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """Merges `run_id`, `workflow` and `step` into the `extra` of every record."""

    def __init__(self, workflow: str, run_id: UUID, is_replaying: Callable[[], bool]) -> None:
        super().__init__(logging.getLogger(f"django_steps.workflow.{workflow}"), {})
        self._fields = {"run_id": str(run_id), "workflow": workflow}
        self._is_replaying = is_replaying

    def isEnabledFor(self, level: int) -> bool:
        """Whether a record of this level would be written now."""
        return (active_step.get() is not None or not self._is_replaying()) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields of the run; the caller's own `extra` stays."""
        step = active_step.get()
        fields = {**self._fields, "step": step.name if step else None}
        kwargs["extra"] = {**fields, **(kwargs.get("extra") or {})}
        return msg, kwargs
