"""`showworkflows --patches`: when a `step.patched()` may be taken out of a body."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.changing import deploy

pytestmark = pytest.mark.django_db(transaction=True)


def nothing() -> None: ...


def fail() -> None:
    raise LookupError


def old(step: Any, input: Any) -> None:
    step.define("pack", nothing).run()
    step.sleep("night", "1h" if input == "short" else "5h")
    if input == "fails":
        step.define("fail", fail).run()


def new(step: Any, input: Any) -> None:
    if step.patched("weigh first"):
        step.define("weigh", nothing).run()
    old(step, input)


def shown(*arguments: str) -> str:
    out = io.StringIO()
    call_command("showworkflows", "--patches", *arguments, stdout=out, no_color=True)
    return out.getvalue()


def test_line_is_needed_while_a_run_goes_the_old_way_or_may(work, pass_time):
    parcels = deploy("patched_parcels", old)
    for how in ("short", "long", "long", "fails"):
        parcels.start(how)
    work()
    parcels = deploy("patched_parcels", new)
    assert shown() == "No run that has not succeeded has asked for a patch.\n"

    parcels.start("long")
    work()
    assert shown().splitlines() == [
        "WORKFLOW         PATCH        NEW WAY  OLD WAY  NOT THERE YET  MAY GO",
        "patched_parcels  weigh first  1        0        4              not yet",
    ]

    pass_time("2h")
    work()  # the short one ends, and has gone the old way
    assert json.loads(shown("--json")) == [
        {
            "workflow": "patched_parcels",
            "name": "weigh first",
            "new": 1,
            "old": 0,
            "open": 3,
            "ended": 0,
            "is_needed": True,
        }
    ]

    pass_time("4h")
    work()
    assert shown("--workflow", "patched_parcels").splitlines()[1].split() == [
        *["patched_parcels", "weigh", "first", "0", "0", "0"],
        *["yes,", "unless", "1", "ended", "run", "is", "retried"],
    ]


def test_run_that_failed_before_anybody_asked_may_go_the_old_way(work):
    def fails(step: Any) -> None:
        step.define("pack", nothing).run()
        step.define("fail", fail).run()

    deploy("patched_parcels", fails).start()
    work()
    deploy("patched_parcels", lambda step: (step.patched("weigh"), step.sleep("night", "1h"))).start()
    work()
    assert shown().splitlines()[1].endswith("yes, unless 1 ended run is retried")


def test_patches_in_branches_are_one_path(work, pass_time):
    def item(number: int, step: Any) -> None:
        step.patched("weigh")
        step.sleep("night", "1h")

    deploy("patched_parcels", lambda step: step.map("item", item, [1, 2, 3])).start()
    work()
    assert shown().splitlines()[1].split() == ["patched_parcels", "item/weigh", "1", "0", "0", "yes"]


@pytest.mark.parametrize("other", [["--status", "failed"], ["--check"], ["--tag", "a=b"], ["--error", "X"], ["x"]])
def test_it_takes_nothing_that_chooses_runs(other):
    with pytest.raises(CommandError, match="--patches takes --workflow and --json, nothing else"):
        shown(*other)


def test_workflow_that_nobody_knows():
    with pytest.raises(CommandError, match="Unknown workflow"):
        shown("--workflow", "patched_parcel")
