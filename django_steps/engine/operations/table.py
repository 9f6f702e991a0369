"""Which operation carries out which request."""

from __future__ import annotations

from typing import Any

from ...definitions.requests import CallBranch, Map, Poll, RunStep, Sleep
from .base import Operation
from .branch import BranchOperation
from .map import MapOperation
from .poll import PollOperation
from .sleep import SleepOperation
from .step import StepOperation

OPERATIONS: dict[type, Operation[Any]] = {
    RunStep: StepOperation(),
    Poll: PollOperation(),
    Sleep: SleepOperation(),
    CallBranch: BranchOperation(),
    Map: MapOperation(),
}
