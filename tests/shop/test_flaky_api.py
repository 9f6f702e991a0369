"""The services outside do what the other tests rely on."""

from __future__ import annotations

import threading

import pytest

from testproject.shop import api as client


def test_it_fails_as_often_as_it_was_told_and_then_works(api):
    api.fail("/purchases/7", times=2, status=500)
    for _ in range(2):
        with pytest.raises(client.ApiError, match="/purchases/7 answered 500"):
            client.get("/purchases/7")

    assert [row["ref"] for row in client.get("/purchases/7")] == ["P-7-1", "P-7-2", "P-7-3"]
    assert client.get("/purchases/8")
    assert (api.calls("/purchases/7"), api.calls("/purchases/8")) == (3, 1)


def test_a_second_call_with_the_same_idempotency_key_has_no_effect(api):
    first = client.post("/charges/1", {}, idempotency_key="a")
    assert client.post("/charges/1", {}, idempotency_key="a") == first
    assert client.post("/charges/1", {}, idempotency_key="b") != first
    assert (api.calls("/charges/1"), api.effects("/charges/1")) == (3, 2)


def test_a_failed_call_has_no_effect(api):
    api.fail("/charges/1", times=1)
    with pytest.raises(client.ApiError):
        client.post("/charges/1", {}, idempotency_key="a")
    assert api.effects("/charges/1") == 0


def test_a_held_call_takes_effect_and_is_answered_when_released(api):
    hold = api.hold("/push/phone")
    answers = []
    caller = threading.Thread(target=lambda: answers.append(client.post("/push/phone", {})))
    caller.start()
    assert hold.wait_for_call(timeout=10)
    assert (api.effects("/push/phone"), answers) == (1, [])

    hold.release()
    caller.join(timeout=10)
    assert len(answers) == 1


def test_a_service_that_does_not_answer_at_all_is_an_error(settings):
    settings.SHOP_API_URL = "http://127.0.0.1:1"
    with pytest.raises(client.ApiError, match="couldn't be reached"):
        client.get("/purchases/7")
