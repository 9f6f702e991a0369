"""The pytest plugin, as pytest finds it by its entry point, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

USING_THE_KIT = """
import pytest
from django.db import connection
from django_steps.core import clock
from tests.testing.workflows import kit_greeting

def test_one(workflow_kit):
    assert connection.in_atomic_block
    run = workflow_kit.run_workflow(kit_greeting, {"name": "a", "pause": "6d"})
    assert run.status == "succeeded"
    assert workflow_kit.drain(advance="6d") == []
    assert clock.offset_us > 11.9 * 86400 * 1_000_000

@pytest.mark.django_db
def test_two():
    from django_steps.testing import drain
    assert clock.offset_us == 0
    kit_greeting.start({"name": "a"}, delay="1d")
    assert drain() == []
    drain(advance="12h")
    assert len(drain(advance="12h")) == 1

@pytest.mark.django_db(transaction=True)
def test_three(workflow_kit):
    assert clock.offset_us == 0
    assert not connection.in_atomic_block
    workflow_kit.run_workflow(kit_greeting, {"name": "a", "pause": "6d"})

def test_four(workflow_kit):
    assert clock.offset_us == 0
    assert workflow_kit.FakeStep().names == []
"""

NOT_USING_IT = """
import sys

def test_nothing_is_loaded():
    from django.conf import settings
    assert "django_steps.pytest_plugin" in sys.modules
    assert not settings.configured
    assert not {"django_steps.models", "django_steps.engine.execution"} & set(sys.modules)
"""

FAILING = """
from django.test import TestCase
from django_steps import workflow
from django_steps.testing import run_workflow

@workflow
def numbers(step):
    return step.map("number", abs, [1, 2, 3])

def test_fails(workflow_kit):
    assert workflow_kit.run_workflow(numbers).result() == "something else"

def test_fails_without_the_kit():
    assert 0

class FailingTests(TestCase):
    def test_fails_too(self):
        self.assertEqual(run_workflow(numbers).result(), "something else")
"""


@pytest.fixture
def run_pytest(tmp_path):
    def run(text, **environment):
        path = tmp_path / "test_it.py"
        path.write_text(text)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "PYTEST_"))}
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, path],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return finished.returncode, finished.stdout

    return run


def test_the_fixture_gives_the_kit_and_the_clock_goes_back_after_each_test(run_pytest, tmp_path):
    database = {"DATABASE": "sqlite", "DATABASE_NAME": str(tmp_path / "db.sqlite3")}
    code, output = run_pytest(USING_THE_KIT, DJANGO_SETTINGS_MODULE="tests.settings", **database)
    assert code == 0, output
    assert "4 passed" in output


def test_being_installed_loads_neither_settings_nor_models(run_pytest):
    code, output = run_pytest(NOT_USING_IT)
    assert code == 0, output


def test_failed_test_names_the_seed_where_something_was_executed_side_by_side(run_pytest, tmp_path):
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE": "sqlite", "DJANGO_STEPS_TEST_SEED": "4711"}
    code, output = run_pytest(FAILING, DATABASE_NAME=str(tmp_path / "db.sqlite3"), **environment)
    assert code == 1 and "3 failed" in output, output
    assert output.count("DJANGO_STEPS_TEST_SEED=4711") == 2
