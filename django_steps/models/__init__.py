"""The tables: runs, their recorded steps, events, the workers. Rows are read here and changed through controls.

Not here: the SQL (`ledger`), and how a run is executed (`engine`).
"""

from .event import WorkflowEvent
from .limit import WorkflowLimit
from .log import WorkflowLog
from .pause import WorkflowPause
from .run import WorkflowRun
from .schedule import WorkflowSchedule
from .step import StepRecord
from .tag import WorkflowTag
from .worker import Worker

__all__ = [
    "StepRecord",
    "Worker",
    "WorkflowEvent",
    "WorkflowLimit",
    "WorkflowLog",
    "WorkflowPause",
    "WorkflowRun",
    "WorkflowSchedule",
    "WorkflowTag",
]


def _name_publicly() -> None:
    """Records name a class by its module: for what is in the models that is this one, where users import them from."""
    models = (
        WorkflowRun,
        StepRecord,
        Worker,
        WorkflowEvent,
        WorkflowLimit,
        WorkflowLog,
        WorkflowPause,
        WorkflowSchedule,
        WorkflowTag,
    )
    for model in models:
        for name in ("DoesNotExist", "MultipleObjectsReturned", "Status", "Kind", "Source"):
            if (found := getattr(model, name, None)) is not None:
                found.__module__, found.__qualname__ = __name__, f"{model.__name__}.{name}"


_name_publicly()
