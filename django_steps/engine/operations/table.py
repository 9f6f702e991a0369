"""Which operation carries out which request."""

from __future__ import annotations

from typing import Any

from ...definitions.requests import (
    CallBranch,
    Invoke,
    Map,
    MapRuns,
    Patch,
    Poll,
    RunStep,
    Sleep,
    StartRun,
    WaitForEvent,
)
from .base import Operation
from .branch import BranchOperation
from .event import EventOperation
from .invoke import InvokeOperation
from .map import MapOperation
from .map_runs import MapRunsOperation
from .patch import PatchOperation
from .poll import PollOperation
from .sleep import SleepOperation
from .start import StartOperation
from .step import StepOperation
from .undo import OPERATION, RunUndo

OPERATIONS: dict[type, Operation[Any]] = {
    RunStep: StepOperation(),
    RunUndo: OPERATION,
    Poll: PollOperation(),
    Sleep: SleepOperation(),
    WaitForEvent: EventOperation(),
    Patch: PatchOperation(),
    CallBranch: BranchOperation(),
    Map: MapOperation(),
    MapRuns: MapRunsOperation(),
    Invoke: InvokeOperation(),
    StartRun: StartOperation(),
}
