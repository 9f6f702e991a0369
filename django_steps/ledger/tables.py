"""The names of the tables, and the phases of a run."""

from __future__ import annotations

from ..core.states import Phase

RUN = "django_steps_workflowrun"
STEP = "django_steps_steprecord"
EVENT = "django_steps_workflowevent"
WORKER = "django_steps_worker"
LIMIT = "django_steps_workflowlimit"
SCHEDULE = "django_steps_workflowschedule"
PAUSE = "django_steps_workflowpause"
TAG = "django_steps_workflowtag"
LOG = "django_steps_workflowlog"

# The phases of a run, apart from its status: they alone decide where a claim looks for it.
READY, TIMED, ENDED, UNKNOWN = Phase.READY, Phase.TIMED, Phase.ENDED, Phase.UNKNOWN
PARKED, IN_LINE, HELD = Phase.PARKED, Phase.IN_LINE, Phase.HELD
