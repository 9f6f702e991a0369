"""A real browser against a real server: Chromium, driven by Playwright.

Where no Chromium is found these tests are left out, and the summary says so in a line; REQUIRE_BROWSER=1 makes that a
failure. Every test fails on an error in the browser's console and on a violation of the Content-Security-Policy.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

# Playwright's synchronous interface keeps an event loop running in this thread, which Django takes for async code.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"

HERE = Path(__file__).parent
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
_left_out = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if CHROMIUM or os.environ.get("REQUIRE_BROWSER") == "1":
        return
    here = [item for item in items if HERE in item.path.parents]
    items[:] = [item for item in items if item not in here]
    config.hook.pytest_deselected(items=here)
    config.stash[_left_out] = len(here)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if count := config.stash.get(_left_out, 0):
        terminalreporter.write_line(f"No Chromium was found: {count} tests in a browser were left out.")


# Not for the session: the browser's event loop would be running on this thread for all tests that follow.
@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    assert CHROMIUM, "REQUIRE_BROWSER=1, but no Chromium was found; install one, or name it in CHROMIUM"
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, live_server: Any) -> Iterator[Callable[..., Any]]:
    """Open a window of its own: `open_page(width=390, color_scheme="dark")`. What its console complains of is an error."""
    contexts: list[Any] = []
    complaints: list[str] = []
    unanswered: list[Any] = []

    def listen(message: Any) -> None:
        # The shop has no icon. To answer for it here would send every request of the browser by way of this process.
        # A callback that is over, or a form to be corrected, is a page with a status that the browser complains of.
        url = message.location["url"]
        is_expected = url.endswith("/favicon.ico") or (
            "/workflows/events/" in url and "with a status of 4" in message.text
        )
        if message.type in ("error", "warning") and not is_expected:
            complaints.append(message.text)

    def open_one(width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(
            base_url=live_server.url, viewport={"width": width, "height": height}, locale="en-US", **options
        )
        context.set_default_timeout(10_000)
        context.on("request", lambda request: unanswered.append(request))
        for event in ("requestfinished", "requestfailed"):
            context.on(event, lambda request: unanswered.remove(request))
        contexts.append(context)
        page = context.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_one
    for request in unanswered:  # shown where the test has failed
        print(f"The browser waits for an answer to {request.method} {request.url}")
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def admin_user(transactional_db: None) -> User:
    return User.objects.create_superuser("operator", password="night shift")


@pytest.fixture
def log_in(open_page: Callable[..., Any], admin_user: User, live_server: Any) -> Callable[..., Any]:
    """A window in which the operator is logged in already."""

    def log_in(**options: Any) -> Any:
        client = Client()
        client.force_login(admin_user)
        page = open_page(**options)
        cookie = client.cookies[settings.SESSION_COOKIE_NAME]
        page.context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
        return page

    return log_in
