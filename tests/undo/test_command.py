"""`cancelworkflows --undo`, and what the commands show of undos."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.changing import deploy
from tests.undo.journal import Journal

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def journal() -> Journal:
    return Journal()


def output_of(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def start(journal: Journal, name: str, work: Any, *, fails: bool = False) -> Any:
    def fail() -> None:
        raise OSError("full")

    def body(step):
        step.define("flight", journal.book, undo=journal.cancel).run("monday")
        if fails:
            step.define("hotel", fail).run()
        step.wait_for_event("approval")

    run = deploy(name, body).start()
    work()
    return run


def test_cancel_with_undo_of_named_runs(work, journal):
    run = start(journal, "command_tour", work)
    printed = output_of("cancelworkflows", "--undo", "--reason", "rain", str(run.pk))
    assert "1 run is canceled, and undone by workers." in printed
    work()
    run.refresh_from_db()
    assert (run.status, run.cancel_reason) == ("canceled", "rain")
    assert journal == ["book monday", "cancel monday's"]
    shown = output_of("showworkflows", str(run.pk))
    assert shown.index("flight ") < shown.index("flight#undo")


def test_failed_runs_are_canceled_with_undo_by_their_status(work, journal):
    run = start(journal, "failed_command_tour", work, fails=True)
    with pytest.raises(CommandError, match="--undo"):
        call_command("cancelworkflows", "--workflow", "failed_command_tour", "--status", "failed")
    arguments = ("cancelworkflows", "--workflow", "failed_command_tour", "--status", "failed", "--undo")
    assert "1 run would be canceled." in output_of(*arguments, "--dry-run")
    output_of(*arguments)
    work()
    run.refresh_from_db()
    assert run.status == "canceled"
