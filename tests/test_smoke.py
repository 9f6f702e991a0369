"""The shortest way through everything: start, work, result."""

from tests.app import effects
from tests.app.workflows import sleeper, three_steps
from tests.staging import eventually


def test_a_started_run_executes_its_steps_once(work):
    run = three_steps.start({})
    work()
    assert run.result(timeout=1) == "done"
    assert effects.names(run) == ["first", "second", "third"]


def test_a_worker_process_executes_a_run(start_worker):
    run = sleeper.start({"duration": "2s"})
    start_worker("--poll-interval", "0.1")
    eventually(lambda: effects.names(run) == ["before", "after"])
    run.result(timeout=5)
