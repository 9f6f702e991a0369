"""Addresses of events: what they say, who can make them, and what is needed for them."""

from __future__ import annotations

from datetime import date
from types import ModuleType
from uuid import UUID, uuid4

import pytest
from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.urls import include, path, set_script_prefix, set_urlconf

from django_steps import InvalidName, UnserializableValue, ValueTooLarge, values
from django_steps.models import WorkflowRun
from django_steps.models.event_urls import LONGEST_TOKEN, BadToken, Callback, read_token

from .conftest import BASE_URL, path_of

RUN = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
run = WorkflowRun(pk=RUN)


def token_of(url):
    return path_of(url).rstrip("/").rpartition("/")[2]


def urlconf(*patterns):
    module = ModuleType("urls_of_a_test")
    module.urlpatterns = list(patterns)
    return module


def read(url):
    return read_token(token_of(url))


def test_address_names_the_run_and_the_event():
    url = run.event_url("approval")
    assert url.startswith(f"{BASE_URL}/workflows/events/")
    assert read(url) == Callback(RUN, "approval")


def test_address_is_the_same_each_time_and_another_for_anything_else():
    urls = [
        run.event_url("approval"),
        run.event_url("approval2"),
        run.event_url("approval", None),
        run.event_url("approval", {"ok": True}),
        run.event_url("approval", {"ok": False}),
        run.event_url("approval", many=True),
        run.event_url("approval", None, many=True),
        WorkflowRun(pk=uuid4()).event_url("approval"),
    ]
    assert len(set(urls)) == len(urls)
    assert run.event_url("approval", {"ok": True}) == urls[3]


def test_addresses_are_short():
    assert len(token_of(run.event_url("approval"))) < 100


@pytest.mark.parametrize(
    "payload", [None, True, {"ok": True, "when": date(2026, 3, 1)}, "größer 値", {"a\0b": "\0"}, []]
)
def test_signed_payload_is_told_apart_from_none_at_all(payload):
    found = read(run.event_url("approval", payload))
    assert found.payload_text is not None
    assert values.decode(found.payload_text) == payload
    assert read(run.event_url("approval")).payload_text is None


@pytest.mark.parametrize("name", ["größe 値", "a/b?c=d&e", "x" * 255, "值" * 255])
def test_any_name_of_an_event_has_an_address(name):
    assert read(run.event_url(name, many=True)) == Callback(RUN, name, True)


def test_name_and_payload_are_checked():
    with pytest.raises(InvalidName):
        run.event_url("a#b")
    with pytest.raises(InvalidName):
        run.event_url("")
    with pytest.raises(UnserializableValue):
        run.event_url("approval", object())


def test_payload_that_makes_the_address_too_long_is_refused():
    assert len(token_of(run.event_url("approval", "x" * 2000))) <= LONGEST_TOKEN
    with pytest.raises(ValueTooLarge, match="longer than servers take"):
        run.event_url("approval", "x" * 3000)


@pytest.mark.parametrize("place", [0, 10, 40, -1])
def test_changed_token_is_refused(place):
    token = token_of(run.event_url("approval", {"ok": True}))
    other = "A" if token[place] != "A" else "B"
    changed = token[:place] + other + (token[place + 1 :] if place != -1 else "")
    assert len(changed) == len(token)
    with pytest.raises(BadToken):
        read_token(changed)


@pytest.mark.parametrize("token", ["", ".", "a.b", "x" * 5000, "é.ü", "AAAA", "\0.\0", "=.="])
def test_what_is_no_token_is_refused(token):
    with pytest.raises(BadToken):
        read_token(token)


def test_token_signed_for_something_else_is_refused():
    text = token_of(run.event_url("approval")).partition(".")[0]
    for signer in (
        signing.Signer(sep="."),
        signing.Signer(salt="django_steps", sep="."),
        signing.Signer(key="other", sep="."),
    ):
        with pytest.raises(BadToken):
            read_token(signer.sign(text))


@pytest.mark.parametrize("text", ["", "AA", "A" * 22, "A" * 23, "!", "é", "/////////////////////////////////w"])
def test_signed_text_that_says_nothing_is_refused(text):
    with pytest.raises(BadToken):
        read_token(signing.Signer(salt="django_steps.event_url", sep=".").sign(text))


def test_token_of_the_key_before_is_good_as_long_as_that_is_a_fallback():
    with override_settings(SECRET_KEY="old"):
        url = run.event_url("approval")
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
        assert read(url) == Callback(RUN, "approval")
        assert run.event_url("approval") != url
    with override_settings(SECRET_KEY="new"), pytest.raises(BadToken):
        read(url)


def test_event_id_is_that_of_the_run_and_the_event_name_and_fits():
    assert Callback(RUN, "approval", payload_text="true").event_id == f"callback:{RUN.hex}:approval"
    assert Callback(RUN, "approval", is_many=True).event_id is None
    long = Callback(RUN, "x" * 255).event_id
    assert len(long) < 255
    assert long != Callback(RUN, "x" * 254 + "y").event_id


@override_settings(DJANGO_STEPS={})
def test_without_base_url_it_is_said_what_to_set():
    with pytest.raises(ImproperlyConfigured, match=r'DJANGO_STEPS\["BASE_URL"\]'):
        run.event_url("approval")


def test_without_the_urls_it_is_said_what_to_include():
    empty = urlconf()
    with (
        override_settings(ROOT_URLCONF=empty),
        pytest.raises(ImproperlyConfigured, match=r'include\("django_steps.urls"\)'),
    ):
        run.event_url("approval")


def test_urls_can_be_included_anywhere():
    elsewhere = urlconf(path("a/b/", include("django_steps.urls")))
    with override_settings(ROOT_URLCONF=elsewhere):
        assert run.event_url("approval").startswith(f"{BASE_URL}/a/b/events/")


def test_urlconf_of_a_request_makes_no_other_address():
    url = run.event_url("approval")
    set_urlconf(urlconf(path("other/", include("django_steps.urls"))))
    try:
        assert run.event_url("approval") == url
    finally:
        set_urlconf(None)


@pytest.mark.parametrize("base", ["https://example.com/app", "https://example.com/app/"])
def test_base_url_alone_says_where_the_root_is(base):
    with override_settings(DJANGO_STEPS={"BASE_URL": base}):
        url = run.event_url("approval")
        assert url.startswith("https://example.com/app/workflows/events/")
        set_script_prefix("/elsewhere/")  # as during a request that came by another way
        try:
            assert run.event_url("approval") == url
        finally:
            set_script_prefix("/")
