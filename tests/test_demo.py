"""`manage.py demo`, as it is: real workers, a real kill, on an empty database, output into a pipe."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connection

from django_steps.models import WorkflowRun
from testproject.shop.models import Customer


def run_demo(logs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "demo", "--logs", str(logs)],
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
    assert "Everything held" in done.stdout
    assert set(WorkflowRun.objects.values_list("status", flat=True)) == {"succeeded"}


@pytest.mark.django_db(transaction=True)
def test_the_demo_leaves_a_database_with_data_alone(tmp_path):
    Customer.objects.create(name="Ada", email="ada@example.com")
    done = run_demo(tmp_path)

    assert done.returncode == 1
    assert "wants an empty database" in done.stderr
    assert "Traceback" not in done.stderr
    assert not WorkflowRun.objects.exists()
