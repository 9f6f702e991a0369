"""Settings of the test project.

`DATABASE` chooses the database: `sqlite` (the default), `postgresql` or `mysql`. `DATABASE_NAME` names it, so that
several test runs (and the worker processes that they start) can live beside each other.
"""

from __future__ import annotations

import os
from pathlib import Path

import django

from .policy import POLICY

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DEBUG", "") == "1"
SECRET_KEY = "only-for-the-test-project"
ALLOWED_HOSTS = ["*"]
USE_TZ = os.environ.get("USE_TZ", "1") == "1"
TIME_ZONE = os.environ.get("TIME_ZONE", "UTC")
ROOT_URLCONF = "testproject.urls"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rangefilter",
    "django_steps",
    "testproject.shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

SECURE_CSP = POLICY
if django.VERSION >= (6, 0):
    MIDDLEWARE.insert(1, "django.middleware.csp.ContentSecurityPolicyMiddleware")
    TEMPLATES[0]["OPTIONS"]["context_processors"].append("django.template.context_processors.csp")
else:
    MIDDLEWARE.insert(1, "testproject.policy.strict_policy")

DATABASE = os.environ.get("DATABASE", "sqlite")
DATABASE_NAME = os.environ.get("DATABASE_NAME", "")

_DATABASES = {
    "sqlite": lambda: {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATABASE_NAME or BASE_DIR / "shop.sqlite3",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    },
    "postgresql": lambda: {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": DATABASE_NAME or "shop",
        "HOST": os.environ.get("POSTGRES_HOST", "127.0.0.1"),
        "PORT": os.environ.get("POSTGRES_PORT", "5432"),
        "USER": os.environ.get("POSTGRES_USER", "postgres"),
        "PASSWORD": os.environ.get("POSTGRES_PASSWORD", ""),
    },
    "mysql": lambda: {
        "ENGINE": "django.db.backends.mysql",
        "NAME": DATABASE_NAME or "shop",
        "HOST": os.environ.get("MYSQL_HOST", "127.0.0.1"),
        "PORT": os.environ.get("MYSQL_PORT", "3306"),
        "USER": os.environ.get("MYSQL_USER", "root"),
        "PASSWORD": os.environ.get("MYSQL_PASSWORD", ""),
        "OPTIONS": {"charset": "utf8mb4", "isolation_level": "read committed"},
        "TEST": {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_general_ci"},
    },
}
DATABASES = {"default": _DATABASES[DATABASE]()}
if DATABASE == "sqlite":
    # A file also in tests: worker processes open it too.
    _name = Path(DATABASES["default"]["NAME"])
    DATABASES["default"]["TEST"] = {"NAME": str(_name.with_name(f"test_{_name.name}"))}

# E-mails become files, so that nothing leaves this machine.
_MAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
_MAIL_DIRECTORY = os.environ.get("EMAIL_FILE_PATH", BASE_DIR / "build" / "mail")
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": _MAIL_BACKEND, "OPTIONS": {"file_path": _MAIL_DIRECTORY}}}
else:
    EMAIL_BACKEND, EMAIL_FILE_PATH = _MAIL_BACKEND, _MAIL_DIRECTORY

# The services outside: `make serve`, the demo and the tests each start their own.
SHOP_API_URL = os.environ.get("SHOP_API_URL", "http://127.0.0.1:8001")
SHOP_PAYMENTS_SECRET = "shared with the payment provider of the test project"
# Where these call the shop back.
SHOP_URL = os.environ.get("SHOP_URL", "http://127.0.0.1:8000")
DJANGO_STEPS = {"BASE_URL": SHOP_URL}
SHOP_MANAGER = "manager@example.com"
SHOP_UPLOADS = Path(os.environ.get("SHOP_UPLOADS", BASE_DIR / "testproject" / "shop" / "data"))
