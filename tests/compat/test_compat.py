"""The present code reads what every version so far has written: values, failures, and whole runs, which go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from django_steps import failures, values
from django_steps.errors import FailureWasHandled
from django_steps.failures import FailureRecord
from django_steps.models import StepRecord, WorkflowRun
from tests import staging
from tests.app.models import Person
from tests.values.test_values import exactly

from . import generate, store, workflows
from .kinds import evaluate

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "runs.json").exists())


def entries(name: str, label: str) -> Any:
    """The entries of a file of every version, each with its name."""
    found = [
        pytest.param(entry, id=f"{version.name} {entry[label][:60]}".encode("ascii", "replace").decode())
        for version in VERSIONS
        for entry in json.loads((version / f"{name}.json").read_text())
    ]
    return pytest.mark.parametrize("entry", found)


def newest(name: str) -> Any:
    return json.loads((generate.FOLDER / f"{name}.json").read_text())


@pytest.fixture
def people() -> None:
    Person.objects.bulk_create([Person(pk=1, name="Ann"), Person(pk=2, name="Bob")])


def test_the_version_that_is_generated_is_the_newest_and_all_are_there() -> None:
    assert VERSIONS and generate.FOLDER in VERSIONS


# -- Values --------------------------------------------------------------------------------------


@entries("values", "value")
@pytest.mark.django_db
def test_value_is_read(entry: dict[str, Any], people: None) -> None:
    assert exactly(values.decode(entry["text"])) == exactly(evaluate(entry["value"]))


@pytest.mark.django_db
def test_newest_version_is_what_this_code_writes(people: None) -> None:
    """If not, storage has changed: rows of the released version are in databases, and it needs a folder of its own."""
    assert generate.values_file() == newest("values")
    assert [entry["value"] for entry in newest("values")] == generate.VALUES


# -- Failures ------------------------------------------------------------------------------------


def described(error: BaseException | None) -> Any:
    """What must be the same of an exception and of those that it refers to."""
    if error is None:
        return None
    attributes = {name: _described(value) for name, value in vars(error).items() if name != "error_list"}
    chain = described(error.__cause__), described(error.__context__), error.__suppress_context__
    return type(error), str(error), _described(error.args), attributes, getattr(error, "seconds", None), chain


def _described(value: Any) -> Any:
    if isinstance(value, BaseException):
        return described(value)
    if isinstance(value, (list, tuple)):
        return type(value), [_described(item) for item in value]
    if isinstance(value, dict):
        return {key: _described(item) for key, item in value.items()}
    return exactly(value)


@entries("failures", "raised")
def test_failure_is_rebuilt(entry: dict[str, Any]) -> None:
    expected = evaluate(entry["rebuilt"] or entry["raised"])
    assert described(failures.rebuild(entry["record"])) == described(expected)


@entries("failures", "raised")
def test_failure_is_shown(entry: dict[str, Any]) -> None:
    raised, record = evaluate(entry["raised"]), FailureRecord.read(entry["record"])
    named = failures.summary(failures.record(raised))
    assert named and (record.type, record.message) == (named["type"], named["message"])
    assert record.type in record.traceback or record.message in record.traceback
    assert (list(record.steps), record.step) == (entry["steps"], (entry["steps"] or [None])[0])
    assert record.is_retryable is not ("NonRetryable" in entry["raised"])


def test_newest_version_records_failures_as_this_code_does() -> None:
    def without_traceback(file: list[dict[str, Any]]) -> list[Any]:
        return [{**json.loads(entry["record"]), "traceback": ""} for entry in file]

    assert without_traceback(generate.failures_file()) == without_traceback(newest("failures"))


# -- Runs ----------------------------------------------------------------------------------------


@pytest.fixture
def bodies() -> Iterator[list[str]]:
    """The bodies of the runs are known, nothing fails, and this is what executes."""
    workflows.register()
    workflows.is_broken = False
    workflows.executed.clear()
    yield workflows.executed
    workflows.executed.clear()


@pytest.fixture
def run(request: pytest.FixtureRequest, transactional_db: None, bodies: list[str]) -> WorkflowRun:
    """The run of an entry, from its rows."""
    entry = request.getfixturevalue("entry")
    store.load(connection, entry["rows"])
    found: WorkflowRun = WorkflowRun.objects.get(pk=entry["run"])
    return found


@entries("runs", "name")
def test_run_goes_on_from_its_rows(
    entry: dict[str, Any],
    run: WorkflowRun,
    bodies: list[str],
    work: Callable[..., None],
    pass_time: Callable[[str], None],
) -> None:
    if entry["then"] == "refuse":
        with pytest.raises(FailureWasHandled):
            run.retry()
    elif entry["then"] == "retry":
        run.retry()
    elif entry["then"] == "release":
        WorkflowRun.objects.exclude(pk=run.pk).cancel()
    elif entry["then"] == "resume":
        run.resume()
    elif entry["then"] == "recover":
        pass_time("1m")
        staging.recover()
    work()
    pass_time("2h")  # where it sleeps now
    work()
    run.refresh_from_db()
    assert (run.status, bodies) == (entry["status"], entry["executes"])
    if entry["status"] == "succeeded":
        assert exactly(run.result()) == exactly(evaluate(entry["output"]))


@entries("runs", "name")
def test_run_can_be_restarted(entry: dict[str, Any], run: WorkflowRun, bodies: list[str]) -> None:
    new = run.restart()
    assert (new.input, new.status, new.restart_of_id) == (run.input, "pending", run.pk)


@entries("runs", "name")
def test_run_is_shown_by_the_admin(entry: dict[str, Any], run: WorkflowRun) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    page = client.get(reverse("admin:django_steps_workflowrun_change", args=[run.pk]))
    assert page.status_code == 200
    html = page.content.decode()
    assert "unreadable" not in html and "can't be read" not in html
    for record in run.steps.all():
        assert record.name in html
    assert client.get(reverse("admin:django_steps_workflowrun_changelist")).status_code == 200


@entries("runs", "name")
def test_run_is_shown_by_the_command(entry: dict[str, Any], run: WorkflowRun) -> None:
    out = StringIO()
    call_command("showworkflows", str(run.pk), "--json", stdout=out, skip_checks=True)
    assert "unreadable" not in out.getvalue()
    shown = json.loads(out.getvalue())
    assert (shown["id"], shown["status"], shown["error"]) == (str(run.pk), run.status, run.error)
    rows = [row for row in entry["rows"][StepRecord._meta.db_table] if row["run_id"] == entry["run"]]
    by_name = {step["name"]: step for step in shown["steps"]}
    assert set(by_name) == {row["name"] for row in rows}
    for row in rows:
        logged = json.loads(row["attempt_log"]) if row["attempt_log"] else []
        assert len(by_name[row["name"]]["earlier_attempts"]) == len(logged)
    call_command("showworkflows", str(run.pk), stdout=StringIO(), skip_checks=True)
    call_command("showworkflows", "--json", stdout=StringIO(), skip_checks=True)


@pytest.mark.parametrize(
    ("model", "column"),
    [(WorkflowRun, "status"), (WorkflowRun, "phase"), (StepRecord, "status"), (StepRecord, "kind")],
)
def test_newest_version_has_rows_in_every_state(model: Any, column: str) -> None:
    found = {row[column] for entry in newest("runs") for row in entry["rows"][model._meta.db_table]}
    assert found == set(dict(model._meta.get_field(column).choices))


def test_newest_version_names_every_column() -> None:
    """If not, there is a column that rows of the released version have and the files don't: generate them again."""
    for table, model in store.MODELS.items():
        rows = [row for entry in newest("runs") for row in entry["rows"][table]]
        assert {frozenset(row) for row in rows} == {frozenset(field.column for field in model._meta.concrete_fields)}
