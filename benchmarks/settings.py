"""Settings of the measured project: what a small project would have, and the options that the README recommends."""

import json
import os

SECRET_KEY = "only-for-benchmarks"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_steps", "benchmarks.app"]

_database = json.loads(os.environ["BENCHMARK_DATABASE"])

if "path" in _database:
    _synchronous = os.environ.get("BENCHMARK_SYNCHRONOUS", "NORMAL")
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": _database["path"],
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 30,
                "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={_synchronous};",
            },
        }
    }
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": _database["host"],
            "PORT": _database["port"],
            "USER": _database["user"],
            "NAME": _database["name"],
        }
    }
