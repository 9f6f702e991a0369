"""A step that hangs in a worker with a supervisor: it is given up, the others end, a new worker takes over."""

from __future__ import annotations

import json

from tests.app.models import Effect
from tests.app.workflows import hangs_once, slow_middle
from tests.staging import eventually, status_of

SUPERVISOR = "tests.faults.supervised"
SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.settings", "DJANGO_STEPS": json.dumps({"STEP_GRACE": "500ms"})}


def test_a_hanging_step_is_given_up_and_nothing_else_is_executed_twice(transactional_db, workers):
    others = [slow_middle.start({"seconds": 3}) for _ in range(7)]
    supervisor = workers.start_module(SUPERVISOR, environment=SETTINGS)
    eventually(lambda: Effect.objects.filter(name="slow begins").count() == 7, timeout=60)
    hanging = hangs_once.start({"timeout": "500ms"})
    eventually(lambda: all(status_of(run) == "succeeded" for run in [hanging, *others]), timeout=120)

    (step,) = hanging.steps.filter(name="stuck")
    assert step.attempts == 2 and step.earlier_attempts[0]["error"]["type"].endswith("StepTimedOut")
    effects = list(Effect.objects.values_list("run", "name", "pid"))
    first, second = [pid for _, name, pid in effects if name == "stuck"]
    assert first != second  # a new process
    for run in others:
        own = [(name, pid) for label, name, pid in effects if label == str(run.pk)]
        assert sorted(name for name, _ in own) == ["after", "before", "slow begins", "slow ends"]
        assert {pid for name, pid in own if name.startswith("slow")} == {first}  # it ended where it had begun

    assert supervisor.poll() is None
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    log = workers.log()
    assert f"Worker {first} had a step that can't be interrupted." in log, log
