"""Themes replace the frame of Django's pages, and use its tags in places of their own, such as the footer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.test import Client

from .conftest import failed_run, handled_run, make_run, url

# As django-unfold has it: `submit_row` stands outside of what our pages replace.
FRAME = """{% load admin_modify %}<title>{{ title }}</title>{% block extrahead %}{% endblock %}
{% block breadcrumbs %}{% endblock %}{% block content %}{% endblock %}
<footer>{% submit_row %}{% change_form_object_tools %}</footer>"""


@pytest.fixture
def theme(settings: Any) -> None:
    templates = copy.deepcopy(settings.TEMPLATES)
    templates[0]["APP_DIRS"] = False
    templates[0]["OPTIONS"]["loaders"] = [
        ("django.template.loaders.locmem.Loader", {"admin/base_site.html": FRAME}),
        "django.template.loaders.app_directories.Loader",
    ]
    settings.TEMPLATES = templates


@pytest.mark.usefixtures("theme")
def test_every_page_with_a_form_has_what_submit_row_asks_for(root: Client) -> None:
    run = failed_run()
    names = ["change", "retry", "restart"]
    pages = [
        *(url(name, run.pk) for name in names),
        url("cancel", make_run("sleeping").pk),
        url("retry", handled_run().pk),
    ]
    pages += [url("start"), f"{url('start')}?workflow=three_steps", f"{url('start')}?run={run.pk}", url("overview")]
    for page in pages:
        response = root.get(page)
        assert response.status_code == 200
        footer = response.content.decode().partition("<footer>")[2]
        assert "submit" in footer
        assert 'type="submit"' not in footer  # nothing is saved here
    asked = root.post(url("changelist"), {"action": "retry", ACTION_CHECKBOX_NAME: str(run.pk), "index": "0"})
    assert "<footer>" in asked.content.decode()
