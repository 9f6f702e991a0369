"""Settings of the worker processes that are killed, stopped and cut off: those of the tests, and workflows of their own."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASE, DATABASES, INSTALLED_APPS, SHOP_URL

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults"]

# Workers die so often here that a run may well be in the middle of the same step each time.
DJANGO_STEPS = {
    "BASE_URL": SHOP_URL,
    "INLINE_WAIT": "200ms",
    "MAX_RECOVERIES": 1000,
    "LEASE": os.environ.get("FAULTS_LEASE", "30s"),
    "STEP_GRACE": os.environ.get("FAULTS_STEP_GRACE", "30s"),
}

if DATABASE == "sqlite" and "SQLITE_TIMEOUT" in os.environ:
    DATABASES["default"]["OPTIONS"]["timeout"] = float(os.environ["SQLITE_TIMEOUT"])
if level := os.environ.get("FAULTS_ISOLATION"):
    options = DATABASES["default"].setdefault("OPTIONS", {})
    if DATABASE == "postgresql":
        from psycopg import IsolationLevel

        options["isolation_level"] = IsolationLevel[level.replace(" ", "_").upper()]
    else:
        options["isolation_level"] = level
if DATABASE == "postgresql" and "SYNCHRONOUS_COMMIT" in os.environ:
    setting = os.environ["SYNCHRONOUS_COMMIT"]
    DATABASES["default"].setdefault("OPTIONS", {})["options"] = f"-c synchronous_commit={setting}"

if size := os.environ.get("FAULTS_POOL"):
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"min_size": 0, "max_size": int(size)}

if "FAULTS_BROKER" in os.environ:
    from tests.faults.celery_app import app as celery_app  # noqa: F401  (current from now on, as in the package of a project)

    INSTALLED_APPS += ["django_steps.contrib.celery"]

if "FAULTS_TASKS" in os.environ:
    import django

    INSTALLED_APPS += ["django_tasks_db", "django_steps.contrib.tasks"]
    if django.VERSION < (6, 0):
        INSTALLED_APPS += ["django_tasks"]
    TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
