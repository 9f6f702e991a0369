"""The names of the tables, and the phases of a run."""

from __future__ import annotations

from ..core.states import Phase

RUN = "django_steps_workflowrun"
STEP = "django_steps_steprecord"
WORKER = "django_steps_worker"

# The phases of a run, apart from its status: they alone decide where a claim looks for it.
READY, TIMED, ENDED, UNKNOWN = Phase.READY, Phase.TIMED, Phase.ENDED, Phase.UNKNOWN
