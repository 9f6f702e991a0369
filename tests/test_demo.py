"""`manage.py demo`, as it is: real workers, a real kill, on an empty database, output into a pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connection

from django_steps.models import WorkflowRun
from testproject.shop.models import Customer

SABOTAGE = """
import sys, django
from django.core.management import execute_from_command_line
django.setup()
from testproject.shop import samples
samples.switch = lambda service, on: None  # so the mail server is never down, and no step fails
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def run_demo(logs, *python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(python or ["manage.py"]), "demo", "--logs", str(logs)],
        cwd=settings.BASE_DIR,
        env={**os.environ, "DATABASE_NAME": str(connection.settings_dict["NAME"])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.django_db(transaction=True)
def test_the_demo_keeps_its_promises(tmp_path):
    done = run_demo(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "DID NOT HOLD" not in done.stdout
    assert "only send_email was executed again" in done.stdout
    assert "ok: of 17 records none was executed again" in done.stdout
    assert "ok: 200 runs wait for an answer at once, in process" in done.stdout
    assert re.search(r"^  http://127\.0\.0\.1:\d+/workflows/events/[\w.-]+/$", done.stdout, re.MULTILINE)
    assert "ok: that changed nothing: no event, and the run waits" in done.stdout
    assert "ok: take_order went on where it was, and took the approval" in done.stdout
    assert "Everything held" in done.stdout
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}


@pytest.mark.django_db(transaction=True)
def test_the_demo_fails_when_what_it_claims_does_not_hold(tmp_path):
    done = run_demo(tmp_path, "-c", SABOTAGE)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "DID NOT HOLD: process_order failed at its third step" in done.stdout
    assert "this did not hold: process_order failed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.django_db(transaction=True)
def test_the_demo_leaves_a_database_with_data_alone(tmp_path):
    Customer.objects.create(name="Ada", email="ada@example.com")
    done = run_demo(tmp_path)

    assert done.returncode == 1
    assert "wants an empty database" in done.stderr
    assert "Traceback" not in done.stderr
    assert not WorkflowRun.objects.exists()
