"""Signals, sent with `sender=WorkflowRun` and `run` (for steps also `step`, its name) after the commit.

They come from the worker's process; a receiver that raises is logged and harms nothing.
"""

from django.dispatch import Signal

run_first_claimed = Signal()
run_succeeded = Signal()
run_failed = Signal()  # only when final
run_canceled = Signal()
step_succeeded = Signal()
step_failed = Signal()  # every attempt that failed
