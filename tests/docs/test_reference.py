"""The reference names what there is, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re

import pytest
from django.core.management import load_command_class
from django.dispatch import Signal

import django_steps
from django_steps import checks, conf, errors, signals
from django_steps.definitions.requests import MISSING
from django_steps.definitions.step import Call

from .story import ROOT

REFERENCE = ROOT / "docs" / "reference"
DEFAULTS = {name: default for name, (default, _) in conf._KNOWN.items()}
COMMANDS = sorted(path.stem for path in (ROOT / "django_steps/management/commands").glob("[a-z]*.py"))
# Django's own options, which every command has.
COMMON = {
    "--help",
    "--version",
    "--verbosity",
    "--settings",
    "--pythonpath",
    "--traceback",
    "--no-color",
    "--force-color",
}
COMMON |= {"--skip-checks"}


def read(page):
    return (REFERENCE / f"{page}.md").read_text()


def test_settings():
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", read("settings"), re.MULTILINE)) == set(DEFAULTS)


def test_defaults_of_settings():
    names = {"DJANGO_STEPS": {}}
    exec(re.search(r"DJANGO_STEPS = \{.*?^\}", read("settings"), re.MULTILINE | re.DOTALL)[0], names)
    assert names["DJANGO_STEPS"] == DEFAULTS


def test_defaults_of_a_retry_policy():
    told = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", read("steps"), re.MULTILINE)
    fields = [field for field in dataclasses.fields(django_steps.RetryPolicy) if field.init]
    assert [(name, ast.literal_eval(default) if name != "retry_on" else default) for name, default in told] == [
        (field.name, field.default if field.name != "retry_on" else "(Exception,)") for field in fields
    ]


def test_checks():
    in_code = set(re.findall(r'id="(django_steps\.[EIW]\d+)"', inspect.getsource(checks)))
    assert set(re.findall(r"^\| `(django_steps\.\w+)`", read("checks"), re.MULTILINE)) == in_code


def test_signals():
    in_code = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert set(re.findall(r"^\| `(\w+)` \|", read("signals"), re.MULTILINE)) == in_code


def test_errors():
    in_code = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.StepsError)
    }
    assert set(re.findall(r"autoexception:: (\w+)", read("errors"))) == in_code
    assert in_code <= set(django_steps.__all__)


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_a_command(name):
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", read("commands"), re.MULTILINE | re.DOTALL)[1]
    parser = load_command_class("django_steps", name).create_parser("manage.py", name)
    in_code = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert set(re.findall(r"`(--[\w-]+)", section)) == in_code - COMMON


def test_every_command_is_described():
    assert re.findall(r"^## (\w+)$", read("commands"), re.MULTILINE) == sorted(COMMANDS, key=read("commands").index)


SPELLED_OUT = {
    (page, name): parameters
    for page in ("workflows", "steps")
    for name, parameters in re.findall(r"auto(?:function|method):: ([\w.]+)\((.*)\)$", read(page), re.MULTILINE)
}


@pytest.mark.parametrize("page, name", SPELLED_OUT)
def test_signatures_that_a_page_spells_out_are_those_of_the_code(page, name):
    owner = {"workflows": django_steps.Workflow, "steps": django_steps.Step}[page]
    last = name.rpartition(".")[2]
    found = getattr(owner, last, None) or getattr(django_steps, last, None) or getattr(Call, last)
    parameters = [
        parameter.replace(annotation=parameter.empty)
        for parameter in inspect.signature(found).parameters.values()
        if parameter.name != "self"
    ]
    names = {"MISSING": MISSING}
    exec(f"def shown({SPELLED_OUT[page, name]}): ...", names)
    assert inspect.signature(names["shown"]) == inspect.Signature(parameters)
