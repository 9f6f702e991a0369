"""Nonsense on the command line ends in one clear line and exit code 1, and leaves nothing behind."""

from __future__ import annotations

import pytest
from django.core.management import load_command_class

from django_steps.models import WorkflowRun

ID = "0198c2a4-7d1e-7cc3-98c4-dc0c0c07398f"

NONSENSE = [
    (["startworkflow"], "NAME"),
    (["startworkflow", "no_such_workflow"], "Known are: "),
    (["startworkflow", "three_steps", '{"a": 1,\n "b" 2}'], "(line 2, column 6)"),
    (["startworkflow", "three_steps", "[" * 100_000], "The input can't be read"),
    (["startworkflow", "three_steps", "{}", "--delay", "soon"], "Not a duration: 'soon'"),
    (["startworkflow", "three_steps", "{}", "--delay=-5"], "can't be negative"),
    (["startworkflow", "three_steps", "{}", "--key", " padded "], "can't begin or end with white space"),
    (["startworkflow", "three_steps", "{}", "--queue", ""], "can't be empty"),
    (["startworkflow", "three_steps", "{}", "--priority", "101"], "from -100 to 100"),
    (["startworkflow", "three_steps", "{}", "--priority", "high"], "from -100 to 100"),
    (["showworkflows", "abc"], "There is no run with the id or key 'abc'."),
    (["showworkflows", ID], f"There is no run with the id or key {ID!r}."),
    (["showworkflows", ID, "--status", "failed"], "not both"),
    (["showworkflows", "--status", "broken"], "invalid choice: 'broken'"),
    (["showworkflows", "--limit", "0"], "'0' is not a whole number of at least 1"),
    (["showworkflows", "--check", "--workflow", "three_steps"], "--check looks at everything"),
    (["retryworkflows"], "Say which runs: RUN_IDs, --all-failed, or --error and --step."),
    (["retryworkflows", ID, "--all-failed"], "not both"),
    (["retryworkflows", "--workflow", "three_steps"], "Say which runs"),
    (["retryworkflows", "--all"], "unrecognized arguments: --all"),
    (
        ["retryworkflows", "--all-failed", "--workflow", "no_such"],
        "Unknown workflow 'no_such', and no run has that name",
    ),
    (["cancelworkflows", "--workflow", "no_such"], "Unknown workflow 'no_such'"),
    (["showworkflows", "--workflow", "no_such"], "Unknown workflow 'no_such'"),
    (["showworkflows", "--workflow", "no_such", "--json"], "Unknown workflow 'no_such'"),
    (["showworkflows", "--lim=5"], "unrecognized arguments"),
    (["cancelworkflows", "--work=three_steps"], "unrecognized arguments"),
    (["startworkflow", "three_steps", "--pri", "5"], "unrecognized arguments"),
    (["runworkflows", "--until"], "unrecognized arguments: --until"),
    (["retryworkflows", ID], f"There is no run {ID}."),
    (["retryworkflows", "abc"], "'abc' is not the id of a run"),
    (["retryworkflows", "--all-failed", "--since", "yesterday"], "Not a duration: 'yesterday'"),
    (["cancelworkflows"], "Say which runs: RUN_IDs, --workflow NAME or --tag NAME=VALUE."),
    (["cancelworkflows", "--status", "sleeping"], "Say which runs"),
    (["cancelworkflows", ID, "--workflow", "three_steps"], "not both"),
    (["cancelworkflows", ID, "--tag", "tenant=acme"], "not both"),
    (["retryworkflows", ID, "--tag", "tenant=acme"], "not both"),
    (["retryworkflows", "--tag", "tenant=acme"], "Say which runs"),
    (["showworkflows", ID, "--tag", "tenant=acme"], "not both"),
    (["showworkflows", "--tag", "tenant"], "'tenant' is not a tag: write NAME=VALUE, as in tenant=acme"),
    (["startworkflow", "three_steps", "--tag", "=acme"], "'=acme' is not a tag"),
    (["startworkflow", "three_steps", "--tag", "about=app.person:7"], "No tag can be named 'about'"),
    (["startworkflow", "three_steps", "--tag", "x= "], "can't begin or end with white space"),
    (["cancelworkflows", "--workflow", "three_steps", "--status", "succeeded"], "invalid choice: 'succeeded'"),
    (
        ["cancelworkflows", "--workflow", "three_steps", "--status", "failed"],
        "Only with --undo can failed runs be canceled.",
    ),
    (["cancelworkflows", ID], f"There is no run {ID}."),
    (["pruneworkflows"], "--older-than"),
    (["pruneworkflows", "--older-than", "long"], "Not a duration: 'long'"),
    (["pruneworkflows", "--older-than", "5"], "say the unit: 5 seconds are '5s', days '5d'"),
    (["pruneworkflows", "--older-than", "0"], "say the unit"),
    (["pruneworkflows", "--older", "5d"], "--older-than"),
    (["pruneworkflows", "--older-than", "1d", "--status", "sleeping"], "A run that is sleeping has not ended"),
    (["runworkflows", "--concurrency", "0"], "'0' is not a whole number of at least 1"),
    (["runworkflows", "--processes", "two"], "'two' is not a whole number of at least 1"),
    (["runworkflows", "--lease", "0.01"], "a lease has to be at least 0.1 seconds"),
    (["runworkflows", "--poll-interval", "0"], "longer than 0 seconds"),
    (["runworkflows", "--shutdown-timeout", "nan"], "Not a duration"),
]


@pytest.mark.parametrize(("arguments", "message"), NONSENSE, ids=lambda value: " ".join(value)[:60].strip())
def test_nonsense_gets_one_clear_line(type_command, arguments, message):
    typed = type_command(*arguments)

    assert typed.code == 1
    assert message in typed.err
    assert typed.err.startswith("CommandError: ")
    assert len(typed.err.splitlines()) == 1
    assert typed.out == ""
    assert not WorkflowRun.objects.exists()


@pytest.mark.parametrize(
    "command",
    ["runworkflows", "startworkflow", "showworkflows", "retryworkflows", "cancelworkflows", "pruneworkflows"],
)
def test_help_explains_every_option(command):
    parser = load_command_class("django_steps", command).create_parser("manage.py", command)

    assert [action.dest for action in parser._actions if not action.help] == []
    assert parser.description and parser.epilog
    assert parser.format_help()
