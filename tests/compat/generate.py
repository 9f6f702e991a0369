"""Writes the files of the present version: `python -m tests.compat.generate`; see README.md.

The rows are made by the engine itself, on an SQLite database that is thrown away, at a time that has long passed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = "1.0"  # the first release that writes what this folder holds
FOLDER = Path(__file__).parent / VERSION
ROOT = Path(__file__).resolve().parent.parent.parent

VALUES = [
    *["None", "True", "False", "0", "-1", "2**63", "-(2**200)", "1.5", "-0.0", "math.nan", "math.inf", "-math.inf"],
    *["''", "'ü 漢字 😀'", r"'a\x00b\u2028'", r"'\ud800'", r"'\ud83d\ude00'", "mark_safe('<b>')"],
    *["[]", "{}", "{'b': 1, 'a': [2, None, {'c': ''}]}", "()", "(1, (2, [3]))", "{1, 'a', None}", "frozenset({1.5})"],
    *["{1: 'int', '1': 'str', None: 0, (1, 2): [3]}", "{'$': 1}", "{'$': 'tuple', 'v': [1]}", r"{'\ud83d\ude00': 1}"],
    *["b''", r"b'\x00\xff'", "decimal.Decimal('1.10')", "decimal.Decimal('-sNaN12')", "uuid.UUID(int=7)"],
    *["datetime.date(2024, 2, 29)", "datetime.timedelta(microseconds=-1)", "datetime.timedelta(3, 4, 5)"],
    "datetime.datetime(2024, 1, 2, 3, 4, 5, 6)",
    "datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)",
    "datetime.datetime(2024, 10, 27, 2, 30, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'), fold=1)",
    "datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=-5, microseconds=3)))",
    "datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(0), 'Zulu'))",
    "datetime.time(1, 2, 3, 4, fold=1)",
    "datetime.time(1, 2, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'))",
    *["Color.RED", "Size.SMALL", "Level.LOW", "Access.READ", "Access.READ | Access.WRITE", "Order.Status.NEW"],
    *["WorkflowRun.Status.FAILED", "StepRecord.Status.RETRYING", "StepRecord.Kind.SLEEP"],
    *["Point(1)", "Point(1, (2,))", "Order(1, [Point(2)])", "Slotted(decimal.Decimal('1.10'), ('a',))"],
    "Address(street='a')",
    "Open(name='a', home=Address(street='b', zip_code='1'), extra=(1,))",
    "Person(pk=1)",
    "[Person(pk=1), {'him': Person(pk=2), 'her': Person(pk=1)}]",
    "{'day': datetime.date(2024, 1, 1), 'lines': [Order(1, [(decimal.Decimal('1.10'), {1})])]}",
]

SAME = None
# What is raised, and what it is rebuilt as.
FAILURES: dict[str, str | None] = {
    "ValueError()": SAME,
    r"ValueError('a\x00ü😀', 1, ('b', None), {'c': decimal.Decimal(1)})": SAME,
    "KeyError('k')": SAME,
    "FileNotFoundError(2, 'no file', '/a', None, '/b')": SAME,
    "OSError('just text')": SAME,
    r"UnicodeDecodeError('utf-8', b'a\xff', 1, 2, 'why')": SAME,
    "ImportError('x', name='module', path='/path')": SAME,
    "StopIteration(('value', 3))": SAME,
    "SystemExit(3)": SAME,
    "raised_by(lambda: decimal.Decimal('x'))": SAME,
    "ValueError(pathlib.PurePosixPath('/a'), [{'b': (pathlib.PureWindowsPath('c:/d'),)}])": SAME,
    "ValueError(decimal.InvalidOperation, {'of': Order})": SAME,
    "ValueError(KeyError('inner'), [OSError(2, 'x')])": SAME,
    "attributed(ValueError('x'), errors=[KeyError('y')], at=(datetime.date(2024, 1, 1), pathlib.PurePosixPath('a')))": SAME,
    "CardDeclined(reason=Color.RED, amount=decimal.Decimal('9.90'))": SAME,
    "Slow(7)": SAME,
    "noted(ValueError('x'), 'first', 'second')": SAME,
    "chained(ValueError('outer'), cause=KeyError('inner'))": SAME,
    "chained(ValueError('outer'), context=chained(KeyError('inner'), context=OSError('first')))": SAME,
    "chained(ValueError('outer'), context=KeyError('inner'), suppress=True)": SAME,
    "ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [KeyError('k'), OSError(2, 'x', 'f')])])": SAME,
    "BaseExceptionGroup('g', [SystemExit(1), chained(ValueError(2), cause=KeyError('inner'))])": SAME,
    "Group('g', [ValueError(1)], 7)": SAME,
    "ValidationError('bad', code='c', params={'x': 1})": SAME,
    "ValidationError({'name': [ValidationError('long', code='l')]})": SAME,
    "IntegrityError('duplicate', 1062)": SAME,
    "Http404('x')": SAME,
    "Person.DoesNotExist('no person')": SAME,
    "WorkflowRun.DoesNotExist('no run')": SAME,
    "errors.NonRetryableError('no')": SAME,
    "errors.GroupFailed('1 of 2 failed', {'a': KeyError('k')})": SAME,
    "errors.RetryAfter('30s', 'busy')": SAME,
    "errors.PollTimedOut('ship', 3)": SAME,
    "errors.StepFailed('shop.Odd', 'text')": SAME,
    "errors.RecordedInstanceGone('shop.Order', 7, 'load')": SAME,
    "local_error('text')": "errors.StepFailed('tests.compat.kinds.local_error.<locals>.LocalError', 'text')",
    "chained(ValueError('x'), cause=local_error('text'))": (
        "chained(ValueError('x'), cause=errors.StepFailed('tests.compat.kinds.local_error.<locals>.LocalError', 'text'))"
    ),
    "CardDeclined(reason=Color.RED, amount=decimal.Decimal(1), response=iter(()))": (
        "noted(CardDeclined(reason=Color.RED, amount=decimal.Decimal(1)), 'Not recorded: response.')"
    ),
}

GOLDEN: list[Golden] = []


@dataclass
class Golden:
    """A run, how it goes on from its rows, which steps execute then, and how it ends."""

    make: Callable[[], Any]
    then: str  # nothing, work, recover (from the dead worker), retry, refuse a retry, or release it, which is held
    executes: list[str]
    status: str
    output: str = "None"


def golden(then: str, executes: list[str], status: str = "succeeded", output: str = "None") -> Callable[[Any], Any]:
    def note(make: Callable[[], Any]) -> Callable[[], Any]:
        GOLDEN.append(Golden(make, then, executes, status, output))
        return make

    return note


# -- The runs ------------------------------------------------------------------------------------


@golden("nothing", [], output="[(1, 2), {'day': datetime.date(2024, 1, 1)}, Order(1, [Point(2)])]")
def run_that_succeeded() -> Any:
    from . import kinds

    values = ["(1, 2)", "{'day': datetime.date(2024, 1, 1)}", "Order(1, [Point(2)])"]
    return worked("compat_values", [kinds.evaluate(value) for value in values], key="a key")


@golden("nothing", [], output="'awake'")
def run_that_slept() -> Any:
    run = worked("compat_sleeper", {})
    later("2h")
    work()
    return run


@golden("retry", ["charge", "ship"], output="{'ok': True}")
def run_whose_step_failed() -> Any:
    return worked("compat_order", {"order": 7})


@golden("retry", ["charge", "ship"], output="{'ok': True}")
def run_whose_step_failed_again_after_a_retry() -> Any:
    run = worked("compat_order", {"order": 7})
    run.retry()
    work()
    return run


@golden("work", ["charge", "ship"], output="{'ok': True}")
def run_that_is_to_be_retried() -> Any:
    run = worked("compat_order", {"order": 7})
    run.retry()
    return run


@golden("work", ["after"], output="'new'")
def run_that_was_patched() -> Any:
    return worked("compat_patched", {})


@golden("nothing", [], status="canceled")
def run_that_was_undone() -> Any:
    run = worked("compat_undone", {})
    run.cancel(undo=True)
    work()
    return run


@golden("retry", ["first", "second"], output="'both'")
def run_whose_steps_failed() -> Any:
    return worked("compat_group", {})


@golden("retry", [], output="'body'")
def run_whose_body_failed() -> Any:
    return worked("compat_body", {})


@golden("refuse", [], status="failed")
def run_whose_failure_was_handled() -> Any:
    return worked("compat_handled", {})


@golden("work", ["charge"], output="'paid'")
def run_whose_step_waits_for_its_next_attempt() -> Any:
    return worked("compat_patient", {})


@golden("work", ["charge"], output="'paid'")
def run_that_waits_for_its_next_attempt() -> Any:
    return worked("compat_again", {})


@golden("work", ["after"], output="'awake'")
def run_that_sleeps() -> Any:
    return worked("compat_sleeper", {})


@golden("work", ["before", "after"], output="'awake'")
def run_that_no_worker_has_taken() -> Any:
    return start("compat_sleeper", {"at": None}, version="2", key="another key")


@golden("work", ["before", "after"], output="'awake'")
def run_that_was_delayed() -> Any:
    return start("compat_sleeper", {}, delay="1h")


@golden("work", ["before", "after"], output="'awake'")
def run_that_was_in_line() -> Any:
    from django.test import override_settings

    with override_settings(DJANGO_STEPS={"QUEUES": {"narrow": {"at_once": 1}}}):
        return start("compat_sleeper", {}, queue="narrow")


@golden("work", ["before", "after"], output="'awake'")
def run_that_no_worker_knew() -> Any:
    from django.db import connection

    from django_steps.ledger import unknown

    run = start("compat_sleeper", {})
    unknown.set_aside(connection, {("other", "")})
    return run


@golden("release", ["before", "after"], output="'awake'")
def run_that_is_held_until_another_one_of_its_schedule_has_ended() -> Any:
    from django.db import connection

    from django_steps.definitions import scheduling
    from django_steps.ledger import schedules
    from django_steps.models import WorkflowRun, WorkflowSchedule

    schedule = WorkflowSchedule(name="nightly", workflow="compat_sleeper", every="1h", input={}, overlap="wait")
    schedule.save()
    for _ in range(2):
        later("1h")
        schedules.fire(connection, scheduling.targets())
    schedule.pause("enough", by="eve")
    return WorkflowRun.objects.latest("pk")


@golden("release", ["alone"], output="'alone'")
def run_that_is_in_line_for_a_limit() -> Any:
    worked("compat_alone", {})
    start("compat_alone", {})
    return start("compat_alone", {})


@golden("retry", ["after"], output="'awake'")
def run_that_was_canceled_while_it_slept() -> Any:
    run = worked("compat_sleeper", {})
    run.cancel()
    return run


@golden("resume", ["after"], output="'awake'")
def run_that_was_paused_while_it_slept() -> Any:
    run = worked("compat_sleeper", {})
    run.pause(reason="not now", by="carla")
    return run


@golden("recover", [], status="canceled")
def run_that_is_canceled_in_the_hands_of_a_dead_worker() -> Any:
    run = start("compat_order", {})
    take(run)
    run.cancel()
    return run


@golden("recover", ["reserve", "charge", "ship"], output="{'ok': True}")
def run_in_the_hands_of_a_dead_worker() -> Any:
    run = start("compat_order", {})
    take(run)
    return run


@golden("work", ["reserve", "charge", "ship"], output="{'ok': True}")
def run_that_was_recovered() -> Any:
    run = start("compat_order", {})
    take(run)
    recover()
    return run


@golden("retry", ["reserve", "charge", "ship"], output="{'ok': True}")
def run_whose_workers_died() -> Any:
    run = start("compat_order", {})
    for _ in range(3):
        take(run)
        type(run).objects.update(current_step="reserve", progress_done=1, progress_total=3)
        recover()
    return run


@golden("work", ["ask"], output="'asked'")
def run_whose_worker_died_in_a_step_that_happens_at_most_once() -> Any:
    from django.db import connection

    from django_steps.ledger import records
    from tests.staging import step_write

    run = start("compat_wire", {})
    claimed = take(run)
    records.record(connection, step_write(claimed, "wire", status="begun", output=None, finished_at=None))
    recover()
    return run


@golden("retry", ["reserve", "charge", "ship"], output="{'ok': True}")
def run_that_timed_out_and_had_canceled_a_step() -> Any:
    from django.db import connection

    from django_steps import failures
    from django_steps.ledger import records, transitions
    from tests.staging import step_write

    run = start("compat_order", {})
    claimed = take(run)
    records.record(connection, step_write(claimed, "reserve", status="canceled", output=None))
    error = failures.record(TimeoutError())
    end = transitions.Finish(
        run_id=run.pk, token=claimed.token, status="failed", error=error, finished_at=claimed.now()
    )
    transitions.finish(connection, end)
    return run


@golden("work", ["shipped"], output="{'state': 'shipped'}")
def run_that_polls() -> Any:
    return worked("compat_parcel", {})


@golden("work", [], output="(1, {'state': 'packed'})")
def run_whose_poll_has_timed_out() -> Any:
    return worked("compat_lost_parcel", {})


@golden("work", ["from 41"], output="41")
def run_whose_failed_attempt_has_a_checkpoint() -> Any:
    return worked("compat_import", {})


@golden("work", ["from 41"], output="41")
def run_whose_worker_died_after_a_checkpoint() -> Any:
    run = start("compat_import", {})
    take(run)
    type(run).objects.update(current_step="import", checkpoint='{"import": [2, "41"]}')
    recover()
    return run


@golden("work", ["charge", "ship"], output="{'ok': True}")
def run_that_is_a_restart_of_another() -> Any:
    return worked("compat_order", {}).restart(from_step="charge")


_PARCELS = "[(2, 3), ['a', 'done'], [1, 'Unfinished', 'Unfinished']]"


@golden("retry", ["label b/c", "vote 1"], output=_PARCELS)
def run_whose_branch_failed() -> Any:
    return worked("compat_parcels", {})


@golden("work", [], output=_PARCELS)
def run_that_sleeps_after_a_map() -> Any:
    from . import workflows

    workflows.is_broken = False
    try:
        return worked("compat_parcels", {})
    finally:
        workflows.is_broken = True


_ANSWERS = "[5, None, ['paid', 7, 'evt_1', 'shop']]"


@golden("work", ["after"], output=_ANSWERS)
def run_that_waits_for_an_event_that_has_come() -> Any:
    from django.db import connection

    from django_steps.ledger import events

    run = worked("compat_waiting", {}, key="order-7")
    run.send_event("approval", 5, id="evt_0", by="carla")
    work()
    later("2h")
    work()
    told = events.tell
    events.tell = lambda *arguments: None  # the sender dies, and leaves the run waiting
    try:
        run.send_event("paid", 7, id="evt_1", by="shop")
    finally:
        events.tell = told
    assert type(run).objects.using(connection.alias).get(pk=run.pk).status == "waiting"
    return run


_RECEIPTS = "[4, [2, 6]]"


@golden("retry", ["child 2", "child 1", "child 3"], output=_RECEIPTS)
def run_whose_child_failed() -> Any:
    return worked("compat_parent", {})


@golden("work", ["child 2", "child 1", "child 3"], output=_RECEIPTS)
def run_that_waits_for_its_children() -> Any:
    from django_steps.worker import Worker

    run = start("compat_parent", {})
    Worker(max_runs=1, poll_interval=0.05).run()
    return run


@golden("nothing", [], output="3")
def run_that_continued_as_another() -> Any:
    return worked("compat_counter", 1, key="counter")


# -- Bringing runs there -------------------------------------------------------------------------


def start(name: str, input: Any, version: str = "", **options: Any) -> Any:
    from django_steps.definitions import get_workflow

    return get_workflow(name, version).start(input, **options)


def worked(name: str, input: Any, **options: Any) -> Any:
    run = start(name, input, **options)
    work()
    return run


def work() -> None:
    from django_steps.worker import Worker

    Worker(until_idle=True, poll_interval=0.05).run()


def later(duration: str) -> None:
    from django_steps.core import clock
    from django_steps.durations import to_microseconds

    clock.offset_us += to_microseconds(duration)


def take(run: Any) -> Any:
    """Claim it by a worker that dies at once; the claim."""
    from tests.staging import claim, make_terms

    return claim(run, make_terms(max_recoveries=2))


def recover() -> None:
    from tests import staging

    later("1m")
    staging.recover(staging.make_terms(max_recoveries=2))


# -- The files -----------------------------------------------------------------------------------


def values_file() -> list[Any]:
    from django_steps import values

    from . import kinds

    return [{"value": expression, "text": values.encode(_saved(kinds.evaluate(expression)))} for expression in VALUES]


def _saved(value: Any) -> Any:
    """The same, with the rows that instances stand for."""
    from django.db.models import Model

    if isinstance(value, Model):
        return type(value)._base_manager.get(pk=value.pk)
    if isinstance(value, list):
        return [_saved(item) for item in value]
    return {key: _saved(item) for key, item in value.items()} if isinstance(value, dict) else value


def failures_file() -> list[Any]:
    from django_steps import failures

    from . import kinds

    found = []
    for number, (raised, rebuilt) in enumerate(FAILURES.items()):
        error, steps = kinds.evaluate(raised), [[], ["charge"], ["charge", "ship 'ü'"]][number % 3]
        record = failures.with_steps(failures.record(error), steps)
        found.append({"raised": raised, "rebuilt": rebuilt, "steps": steps, "record": record})
    return found


def runs_file() -> list[Any]:
    from . import store, workflows

    found = []
    for one in GOLDEN:
        for model in store.MODELS.values():
            model._base_manager.all().delete()
        workflows.is_broken = True
        run = one.make()
        found.append(
            {
                "name": one.make.__name__.replace("_", " "),
                "run": run.pk.hex,
                "then": one.then,
                "executes": one.executes,
                "status": one.status,
                "output": one.output,
                "rows": store.dump(),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="the version is not released: write its files anew")
    if FOLDER.exists() and not parser.parse_args().again:
        sys.exit(f"{FOLDER} is there, and files in it are never edited. See README.md.")
    with tempfile.TemporaryDirectory() as place:
        _prepare(Path(place))
        FOLDER.mkdir(exist_ok=True)
        for name, make in (("values", values_file), ("failures", failures_file), ("runs", runs_file)):
            entries = make()
            (FOLDER / f"{name}.json").write_text(_impersonal(_layout(entries)) + "\n")
            print(f"{len(entries)} {name}")
        from django.db import connections

        connections.close_all()


def _layout(value: Any, depth: int = 0) -> str:
    """JSON with a line for each row, and for whatever else is not nested."""
    is_flat = not any(isinstance(item, (list, dict)) for item in (value.values() if isinstance(value, dict) else value))
    if depth == 4 or (depth > 0 and is_flat):
        return json.dumps(value, ensure_ascii=False)
    indent, names = (
        " " * depth,
        [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value),
    )
    items = list(value.values()) if isinstance(value, dict) else value
    texts = [_layout(i, depth + 1) if isinstance(i, (list, dict)) else json.dumps(i, ensure_ascii=False) for i in items]
    body = ",\n".join(f"{indent} {name}{text}" for name, text in zip(names, texts, strict=True))
    return f"{'{' if isinstance(value, dict) else '['}\n{body}\n{indent}{'}' if isinstance(value, dict) else ']'}"


def _impersonal(text: str) -> str:
    """Without what only the machine that writes them has: its places in tracebacks, its name."""
    text = (
        text.replace(str(ROOT), "/srv/project").replace(sys.prefix, "/srv/environment").replace(sys.base_prefix, "/usr")
    )
    return text.replace(f'"{socket.gethostname()}"', '"a-host"')


def _prepare(place: Path) -> None:
    os.environ |= {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE": "sqlite"}
    os.environ["DATABASE_NAME"] = str(place / "golden.sqlite3")
    import django

    django.setup()
    from datetime import UTC, datetime

    from django.core.management import call_command

    from django_steps.core import clock
    from django_steps.definitions import registry
    from tests.app.models import Person

    from . import workflows

    call_command("migrate", verbosity=0, run_syncdb=True)
    # What is due in these rows has to be due wherever they are read.
    clock.offset_us = clock.to_microseconds(datetime(2025, 1, 1, tzinfo=UTC)) - clock.host_time()
    registry._registry.clear()
    workflows.register()
    for name in ("Ann", "Bob"):
        Person.objects.create(name=name)


if __name__ == "__main__":
    main()
