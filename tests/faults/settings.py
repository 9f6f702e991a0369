"""Settings of the worker processes that are killed, stopped and cut off: those of the tests, and workflows of their own."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASE, DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults"]

# Workers die so often here that a run may well be in the middle of the same step each time.
DJANGO_STEPS = {"INLINE_WAIT": "200ms", "MAX_RECOVERIES": 1000}

if DATABASE == "sqlite" and "SQLITE_TIMEOUT" in os.environ:
    DATABASES["default"]["OPTIONS"]["timeout"] = float(os.environ["SQLITE_TIMEOUT"])
if DATABASE == "postgresql" and "SYNCHRONOUS_COMMIT" in os.environ:
    setting = os.environ["SYNCHRONOUS_COMMIT"]
    DATABASES["default"].setdefault("OPTIONS", {})["options"] = f"-c synchronous_commit={setting}"
