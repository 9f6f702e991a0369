"""Other admin sites, and projects without `rangefilter` or without the admin."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib import admin
from django.test import override_settings
from django.urls import include, path
from django.utils import timezone, translation

import django_steps
from django_steps.admin import WorkflowRunAdmin
from django_steps.models import WorkflowRun

from .conftest import failed_run, make_run

ops = admin.AdminSite(name="ops")


@admin.register(WorkflowRun, site=ops)
class OpsRunAdmin(WorkflowRunAdmin):
    list_per_page = 7
    list_display = ("run_name", "status_word")


urlpatterns = [path("ops/", ops.urls), path("i18n/", include("django.conf.urls.i18n"))]


@pytest.fixture
def ops_urls():
    with override_settings(ROOT_URLCONF=__name__):
        yield


def test_subclass_on_another_site_works_where_there_is_no_admin_namespace_of_that_name(root, ops_urls):
    run = failed_run()
    base = "/ops/django_steps/workflowrun/"
    for address in ("", "overview/", "start/", f"{run.pk}/change/", f"{run.pk}/retry/", f"{run.pk}/history/"):
        page = root.get(base + address)
        assert page.status_code == 200
        assert "/admin/django_steps" not in page.content.decode()
    assert root.post(f"{base}{run.pk}/retry/").url == f"{base}{run.pk}/change/"
    assert WorkflowRun.objects.get().status == "pending"


def test_no_page_names_a_site():
    here = Path(django_steps.__file__).parent
    files = [*here.glob("admin/**/*.py"), *here.glob("templates/**/*.html"), *here.glob("static/**/*.js")]
    assert len(files) > 20
    for file in files:
        assert not re.search("""["']admin:""", file.read_text()), file


def test_without_rangefilter_the_dates_are_filtered_by_django(root, settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "rangefilter"]
    run = make_run(created_at=timezone.now())
    page = root.get("/admin/django_steps/workflowrun/").content.decode()
    assert "Past 7 days" in page
    assert "rangefilter" not in page
    found = root.get("/admin/django_steps/workflowrun/", {"created_at__gte": "2026-01-01 00:00:00+00:00"})
    assert list(found.context["cl"].result_list) == [run]


def test_app_works_without_the_admin():
    """In a process of its own, whose settings have no app of Django's but the two that the models need."""
    code = """
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_steps"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, USE_TZ=True,
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}])
import django, sys
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from django_steps import workflow
@workflow
def hello(input, step): pass
from django.template import engines
print(engines["django"].from_string("{{ a }}").render({"a": hello.start({"a": 1}).status}))
print("django_steps.admin" in sys.modules, "django.contrib.admin" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.returncode) == (["pending", "False", "False"], 0), done.stderr


def test_numbers_in_drawings_have_points_in_every_language(root):
    run = failed_run()
    with translation.override("de"):
        page = root.get(f"/admin/django_steps/workflowrun/{run.pk}/change/", headers={"accept-language": "de"})
    assert page.status_code == 200
    svg = page.content.decode().partition("<svg")[2].partition("</svg>")[0]
    assert not [part for part in svg.split('"') if part.replace(",", "").isdigit() and "," in part]
