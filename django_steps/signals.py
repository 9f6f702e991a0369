"""Signals, sent with `sender=WorkflowRun` and `run` after the commit.

They come from the worker's process; a receiver that raises is logged and harms nothing. Signals of steps also have `step`, its
name; what else a signal carries stands beside it. Receivers that are connected while a pass is executed are heard from the
run's next pass on.
"""

from django.dispatch import Signal

run_first_claimed = Signal()
run_succeeded = Signal()
run_failed = Signal()  # only when final
run_canceled = Signal()
# `until`, a datetime: it sleeps, or an attempt of a step or of the run is due later. Or it waits for others, and `until` is
# when that times out: None for never.
run_suspended = Signal()

pass_started = Signal()  # the body is about to be called
pass_ended = Signal()  # `how`: succeeded, failed, suspended, canceled, released or lost

step_started = Signal()  # an attempt is about to be executed; `attempt` counts from 1
step_succeeded = Signal()
step_failed = Signal()  # every attempt that failed
# The plain function of a step has lasted longer than its `timeout`, and can't be interrupted. `attempt` counts from 1; `stack`,
# text, is where it is. Sent while it goes on.
step_overdue = Signal()
