"""The pages for those who change the code name what there is: packages, modules, functions, statuses."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from django_steps.ledger.records import Outcome
from django_steps.models import StepRecord, WorkflowRun
from tests.test_structure import FLOOR, PACKAGE

from . import layers
from .story import _FILE, ROOT, blocks

INTERNALS = ROOT / "docs" / "internals"
PAGES = sorted(INTERNALS.glob("*.md"))
NAMES = {path.name for path in PAGES}


def read(name: str) -> str:
    return (INTERNALS / name).read_text()


def prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def made_by(page: Path) -> set[str]:
    """The files that the blocks of a page make."""
    matches = [_FILE.match(block.text) for block in blocks(page)]
    return {match["path"].removeprefix("django_steps/") for match in matches if match and not match["place"]}


def test_picture_of_the_layers_is_up_to_date():
    assert layers.PICTURE.read_text() == layers.draw(), "python -m tests.docs.layers draws it anew"


def test_every_room_has_a_text_in_the_picture_and_a_paragraph():
    assert FLOOR.keys() <= layers.WORDS.keys()
    paragraphs = set(re.findall(r"\*\*`(\w+)`\*\*", read("architecture.md")))
    assert paragraphs == {room for room in FLOOR if layers.exists(room)}


PACKAGES = sorted(
    path
    for path in PACKAGE.rglob("__init__.py")
    if not {"admin", "management", "templatetags"} & set(path.relative_to(PACKAGE).parts)
)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.parent.relative_to(PACKAGE)))
def test_every_package_says_what_lives_there_and_what_does_not(path):
    assert "Not here: " in (ast.get_docstring(ast.parse(path.read_text())) or "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|cfg|yaml))`", prose(page))) - made_by(page)
    missing = [name for name in named if not any((base / name).exists() for base in (ROOT, PACKAGE))]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_functions_that_are_named_exist(page):
    for name in re.findall(r"`((?:\w+\.){2,}\w+)(?:\(\))?`", prose(page)):
        if name.split(".")[0] in FLOOR:
            resolve(name)


def resolve(name: str) -> object:
    """What a dotted name below `django_steps` stands for; an error if there is no such thing."""
    module, parts, path = importlib.import_module("django_steps"), name.split("."), PACKAGE
    while parts and ((path / parts[0]).is_dir() or (path / f"{parts[0]}.py").is_file()):
        path = path / parts[0]
        module = importlib.import_module(f"{module.__name__}.{parts.pop(0)}")
    found: object = module
    for part in parts:
        found = getattr(found, part)
    return found


def test_names_are_resolved():
    assert resolve("ledger.records.Outcome") is Outcome
    with pytest.raises(AttributeError):
        resolve("ledger.records.outcome_of_all")


def test_statuses_are_those_of_the_code():
    of_a_run, of_a_record = read("states.md").split("## A record\n")
    assert set(WorkflowRun.Status.values) <= set(re.findall(r"^\| `(\w+)` \|", of_a_run, re.MULTILINE))
    assert set(StepRecord.Status.values) <= set(re.findall(r"^\| `(\w+)` \|", of_a_record, re.MULTILINE))
    assert {outcome.name for outcome in Outcome} <= set(re.findall(r"^\| `(\w+)` \|", of_a_record, re.MULTILINE))
    for phase in WorkflowRun.Phase:
        assert re.search(rf"\| {phase.name.lower()} \|", of_a_run), phase


def test_every_module_that_asks_for_the_database_is_listed():
    listed = set(re.findall(r"`([\w/]+\.py)`", read("adding-a-database.md")))
    asking = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if ".vendor" in path.read_text()}
    assert asking - listed == set()


def test_every_page_is_in_the_contents():
    linked = set(re.findall(r"^internals/([\w-]+)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE))
    assert {f"{name}.md" for name in linked} == NAMES


def test_every_package_of_tests_is_in_the_contributing_guide():
    table = re.search(r"^\| In `tests/`.*?\n\n", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    packages = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    assert packages - set(re.findall(r"`(\w+)`", table)) == set()
