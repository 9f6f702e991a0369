"""Runs that give out an address, wait, and go on with what is sent to it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.test import AsyncClient, Client

from django_steps import workflow
from tests.admin.conftest import url as admin_url

from .conftest import path_of, sent

MAILED: list[str] = []


@dataclasses.dataclass
class Verdict:
    ok: bool
    note: str = ""


@pytest.fixture(autouse=True)
def nothing_mailed():
    MAILED.clear()


@pytest.fixture
def approval(registry):
    @workflow
    def approval(run, step):
        url = run.event_url("approval")
        step.define("mail", MAILED.append).run(url)
        verdict = step.wait_for_event("approval", type=Verdict, timeout="7d")
        MAILED.append(run.event_url("approval"))
        return [type(verdict).__name__, verdict.ok, verdict.note]

    return approval


def test_run_goes_on_with_the_answer_and_every_pass_has_the_same_address(work, post, approval):
    run = approval.start()
    work()
    run.refresh_from_db()
    assert run.status == "waiting"
    assert post(MAILED[0], {"ok": "maybe"}).status_code == 400
    assert post(MAILED[0], {"ok": True, "note": "Größe"}).status_code == 202
    work()
    assert run.result(timeout=0) == ["Verdict", True, "Größe"]
    assert len(set(MAILED)) == 1
    assert [post(MAILED[0], {"ok": True}).status_code, post(run.event_url("other"), 1).status_code] == [200, 410]


def test_answer_before_the_wait_is_reached_is_not_lost(work, post, approval):
    run = approval.start()
    assert post(run.event_url("approval"), {"ok": False}).status_code == 202
    work()
    assert run.result(timeout=0) == ["Verdict", False, ""]


def test_approval_in_the_admin_lets_the_run_go_on(work, admin_client, approval):
    run = approval.start()
    work()
    page = admin_client.get(admin_url("send_event", run.pk) + "?name=approval").content.decode()
    assert "The run waits for this event until" in page
    admin_client.post(admin_url("send_event", run.pk) + "?name=approval", {"ok": "true", "note": "fine"})
    work()
    assert run.result(timeout=0) == ["Verdict", True, "fine"]


def test_async_server_answers_too(transactional_db, approval):
    run = approval.start()
    client: Any = AsyncClient()

    async def answer(body: bytes) -> int:
        response = await client.post(path_of(run.event_url("approval")), body, content_type="application/json")
        return int(response.status_code)

    assert [async_to_sync(answer)(body) for body in (b"{", b'{"ok": true}', b'{"ok": true}')] == [400, 202, 200]
    assert sent(run) == [("approval", {"ok": True})]


def test_of_many_answers_at_once_one_counts(transactional_db, approval):
    run = approval.start()
    path, statuses, barrier = path_of(run.event_url("approval")), [], threading.Barrier(6)

    def answer(number: int) -> None:
        barrier.wait(10)
        body = f'{{"ok": true, "note": "{number}"}}'
        statuses.append(Client().post(path, body, content_type="application/json").status_code)
        connections.close_all()

    threads = [threading.Thread(target=answer, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(statuses) == [200] * 5 + [202]
    assert len(sent(run)) == 1


_BARE_PROJECT = """
import sys, types
from django.conf import settings
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF="bare_urls", INSTALLED_APPS=["django_steps"], STATIC_URL="/static/",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    DJANGO_STEPS={"BASE_URL": "https://example.com"},
)
import django
django.setup()
from django.urls import include, path
sys.modules["bare_urls"] = urls = types.ModuleType("bare_urls")
urls.urlpatterns = [path("", include("django_steps.urls"))]
from django.core.management import call_command
from django.test import Client
from django_steps import workflow
call_command("migrate", verbosity=0)
run = workflow(lambda input: None, name="bare").start()
path = run.event_url("approval", {"ok": True}).removeprefix("https://example.com")
print([Client().get(path).status_code, Client().post(path).status_code, run.events.get().payload])
print([name for name in sys.modules if name.startswith("django.contrib.")])
"""


def test_neither_the_admin_nor_any_other_app_nor_a_middleware_is_needed():
    done = subprocess.run([sys.executable, "-c", _BARE_PROJECT], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["[200, 202, {'ok': True}]", "[]"], done.stderr
