"""The `logger` argument of a body: a standard adapter that writes no line twice.

While a pass only replays steps, earlier passes have written the log lines already.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol
from uuid import UUID

from ..core.context import active_step

LOGGERS = "django_steps.workflow."  # and the name of the workflow


class Lines(Protocol):
    """What keeps lines with their run: those from a level up."""

    level: int

    def take(self, record: logging.LogRecord) -> None: ...


class WorkflowLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """Merges `run_id`, `workflow` and `step` into the `extra` of every record.

    What `lines` keeps is made although the root's level is higher, as it is where nobody has set one; the handlers of the
    project don't get it then.
    """

    def __init__(
        self, workflow: str, run_id: UUID, is_replaying: Callable[[], bool], lines: Lines | None = None
    ) -> None:
        super().__init__(logging.getLogger(f"{LOGGERS}{workflow}"), {})
        self._fields = {"run_id": str(run_id), "workflow": workflow}
        self._is_replaying, self._lines = is_replaying, lines

    def isEnabledFor(self, level: int) -> bool:
        """Whether a record of this level would be written now."""
        if active_step.get() is None and self._is_replaying():
            return False
        return super().isEnabledFor(level) or self._is_kept(level)

    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Write a line, as every logger does."""
        if not self.isEnabledFor(level):
            return
        msg, kwargs = self.process(msg, kwargs)  # type: ignore[assignment]
        if self.logger.isEnabledFor(level):
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # not this line
            self.logger.log(level, msg, *args, **kwargs)
        elif self._lines is not None:
            raised = _raised(kwargs.get("exc_info"))
            self._lines.take(
                self.logger.makeRecord(self.logger.name, level, "", 0, msg, args, raised, extra=kwargs["extra"])
            )

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields of the run; the caller's own `extra` stays."""
        step = active_step.get()
        fields = {**self._fields, "step": step.name if step else None}
        kwargs["extra"] = {**fields, **(kwargs.get("extra") or {})}
        return msg, kwargs

    def _is_kept(self, level: int) -> bool:
        """Whether a line is kept that the level of the root, and nothing else, would leave out."""
        if self._lines is None or level < self._lines.level or self.logger.manager.disable >= level:
            return False
        logger: logging.Logger | None = self.logger
        while logger is not None and logger.parent is not None:
            if logger.level:
                return level >= logger.level
            logger = logger.parent
        return True


def _raised(exc_info: Any) -> Any:
    if isinstance(exc_info, BaseException):
        return type(exc_info), exc_info, exc_info.__traceback__
    return sys.exc_info() if exc_info and not isinstance(exc_info, tuple) else exc_info
