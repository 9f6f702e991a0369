"""Who is measured: how each is driven, and the SQL that reads from its own tables which runs are finished.

How they are installed is in `install.py`, what is done with them in `workloads.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Database = Literal["postgresql", "sqlite", "mysql"]


@dataclass(frozen=True)
class Setting:
    """One way to set up a worker."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the driver's `work`
    synchronous: str = "NORMAL"  # SQLite's durability; ours only
    share: float = 1.0  # of the usual number of runs, where all of them would take minutes


@dataclass(frozen=True)
class Peer:
    """One engine on one database."""

    name: str
    title: str
    database: Database
    runtime: str  # an environment of `install.py`
    package: str
    driver: str
    finished: str  # SELECT id, started, finished: seconds since 1970, or ISO texts in UTC
    default: Setting = Setting("default")
    best: Setting = Setting("default")  # of several runs at a time
    quickest_to_notice: Setting | None = None  # of new work when idle, where another setting is better at it
    more: tuple[Setting, ...] = ()  # further settings, for W1
    crowded: tuple[Setting, ...] = ()  # for many async bodies at a time; none: it has no such bodies
    most_steps: int = 1000  # in one run
    has_steps: bool = True  # False: a plain queue, a job stands for a step
    only: tuple[str, ...] = ()  # the workloads that it is measured in; none: all that there are for it

    @property
    def key(self) -> str:
        return self.name if self.database == "postgresql" else f"{self.name}-{self.database}"


_EPOCH = ("EXTRACT(EPOCH FROM ", ")")  # what makes seconds of PostgreSQL's timestamps
_OURS_FINISHED = (
    "SELECT id, {0}started_at{1}, {0}finished_at{1} FROM django_steps_workflowrun WHERE status = 'succeeded'"
)
_DBOS_FINISHED = (
    "SELECT workflow_uuid, started_at_epoch_ms / 1000.0, completed_at / 1000.0 FROM {0}workflow_status"
    " WHERE status = 'SUCCESS'"
)
_OPENWORKFLOW_FINISHED = (
    "SELECT id, {1}started_at{2}, {1}finished_at{2} FROM {0}workflow_runs WHERE status IN ('completed', 'succeeded')"
)
_ABSURD_FINISHED = (
    "SELECT task.task_id, EXTRACT(EPOCH FROM task.first_started_at), EXTRACT(EPOCH FROM run.completed_at)"
    " FROM absurd.t_default task JOIN absurd.r_default run ON run.run_id = task.last_attempt_run"
    " WHERE task.state = 'completed'"
)
_TASKS_FINISHED = (
    "SELECT id, {0}started_at{1}, {0}finished_at{1} FROM django_tasks_database_dbtaskresult WHERE status = 'SUCCESSFUL'"
)

# The concurrency with which ours is fastest on this class of machine.
BEST = 32

OURS = Peer(
    name="ours",
    title="django-steps",
    database="postgresql",
    runtime="here",
    package="django-steps",
    driver="ours.py",
    finished=_OURS_FINISHED.format(*_EPOCH),
    best=Setting(f"{BEST} threads", {"concurrency": BEST}),
    crowded=(Setting("default"),),
)
ABSURD = Peer(
    name="absurd",
    title="Absurd",
    database="postgresql",
    runtime="venv",
    package="absurd-sdk",
    driver="absurd_driver.py",
    finished=_ABSURD_FINISHED,
    best=Setting("async, 8 at a time", {"concurrency": 8, "is_async": True}),
    quickest_to_notice=Setting("poll 0.05 s", {"poll": 0.05}),
    crowded=(Setting("async, 1,000 at a time", {"concurrency": 1000, "is_async": True}),),
)
OPENWORKFLOW = Peer(
    name="ow",
    title="OpenWorkflow",
    database="postgresql",
    runtime="node",
    package="openworkflow",
    driver="openworkflow_driver.mjs",
    finished=_OPENWORKFLOW_FINISHED.format("openworkflow.", *_EPOCH),
    default=Setting("default", share=0.1),  # one at a time, with a pause after each
    best=Setting("64 at a time", {"concurrency": 64}),
    most_steps=990,  # its limit is 1,000 attempts a run
    # It asks for work once for each free place, so that more places than this cost more than they bring.
    crowded=(Setting("256 at a time", {"concurrency": 256}), Setting("1,000 at a time", {"concurrency": 1000})),
)
DBOS = Peer(
    name="dbos",
    title="DBOS",
    database="postgresql",
    runtime="venv",
    package="dbos",
    driver="dbos_driver.py",
    finished=_DBOS_FINISHED.format("dbos."),
    quickest_to_notice=Setting("poll 0.05 s", {"poll": 0.05}),
    crowded=(Setting("default"),),
)
DJANGO_ABSURD = Peer(
    name="django-absurd",
    title="django-absurd",
    database="postgresql",
    runtime="venv-3.12",
    package="django-absurd",
    driver="django_absurd_driver.py",
    finished=_ABSURD_FINISHED,
    best=Setting("8 at a time", {"concurrency": 8}),
)
DJANGO_TASKS = Peer(
    name="django-tasks",
    title="django-tasks-db (a queue)",
    database="postgresql",
    runtime="venv",
    package="django-tasks-db",
    driver="django_tasks_driver.py",
    finished=_TASKS_FINISHED.format(*_EPOCH),
    quickest_to_notice=Setting("poll 0.05 s", {"interval": 0.05}),
    has_steps=False,
)

PEERS = (
    OURS,
    ABSURD,
    OPENWORKFLOW,
    DBOS,
    DJANGO_ABSURD,
    DJANGO_TASKS,
    replace(
        OURS,
        database="sqlite",
        finished=_OURS_FINISHED.format("", ""),
        more=(Setting(f"{BEST} threads, synchronous=FULL", {"concurrency": BEST}, synchronous="FULL"),),
    ),
    replace(
        OURS,
        database="mysql",
        finished=_OURS_FINISHED.format("UNIX_TIMESTAMP(", ")"),
        crowded=(),
        only=("W1", "W2", "W4"),
    ),
    replace(
        OPENWORKFLOW,
        database="sqlite",
        finished=_OPENWORKFLOW_FINISHED.format("", "", ""),
        best=Setting("8 at a time", {"concurrency": 8}),
        crowded=(),
    ),
    replace(DBOS, database="sqlite", finished=_DBOS_FINISHED.format(""), quickest_to_notice=None, crowded=()),
    replace(DJANGO_TASKS, database="sqlite", finished=_TASKS_FINISHED.format("", ""), quickest_to_notice=None),
)
