"""Settings of the measured project: what a small project would have, and the options that the README recommends."""

from __future__ import annotations

import json
import os
from typing import Any

SECRET_KEY = "only-for-benchmarks"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
# What Django needs without this project, where the memory of the two is compared.
if "BENCHMARK_BARE" not in os.environ:
    INSTALLED_APPS += ["django_steps", "benchmarks.app"]


def _database(place: dict[str, Any]) -> dict[str, Any]:
    if "path" in place:
        synchronous = os.environ["BENCHMARK_SYNCHRONOUS"]
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": place["path"],
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 30,
                "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};",
            },
        }
    if place.get("vendor") == "mysql":
        return {
            "ENGINE": "django.db.backends.mysql",
            "HOST": place["host"],
            "PORT": place["port"],
            "USER": place["user"],
            "PASSWORD": place["password"],
            "NAME": place["name"],
            "OPTIONS": {"charset": "utf8mb4", "isolation_level": "read committed"},
        }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": place["host"],
        "PORT": place["port"],
        "USER": place["user"],
        "NAME": place["name"],
    }


DATABASES = {"default": _database(json.loads(os.environ["BENCHMARK_DATABASE"]))}

# Where Celery workers execute the runs.
if "BENCHMARK_BROKER" in os.environ:
    from benchmarks.app.celery_app import app as celery_app  # noqa: F401  (current from now on, as in the package of a project)

    INSTALLED_APPS += ["django_steps.contrib.celery"]

# A second database, where one is compared with another.
if "BENCHMARK_CROWDED" in os.environ:
    DATABASES["crowded"] = _database(json.loads(os.environ["BENCHMARK_CROWDED"]))
    DATABASE_ROUTERS = ["benchmarks.app.router.Router"]
