"""The tables: runs, their recorded steps, the workers. Rows are read here and changed through controls.

Not here: the SQL (`ledger`), and how a run is executed (`engine`).
"""

from .run import WorkflowRun
from .step import StepRecord
from .worker import Worker

__all__ = ["StepRecord", "Worker", "WorkflowRun"]
