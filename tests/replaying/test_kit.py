"""`assert_replays()`: histories that are kept with a project's tests."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import call_command

from django_steps.errors import StepsError
from django_steps.testing import NotRepeatable, assert_replays, drain
from tests.changing import deploy

pytestmark = pytest.mark.django_db


def old(step: Any) -> None:
    step.define("pack", lambda: None).run()
    step.sleep("night", "1h")


def new(step: Any) -> None:
    step.define("wrap", lambda: None).run()
    step.sleep("night", "1h")


@pytest.fixture
def asleep() -> Any:
    run = deploy("parcels", old).start()
    drain()
    return run


def test_run_and_file_fit_the_same_body(asleep, tmp_path):
    out = io.StringIO()
    call_command("showworkflows", str(asleep.pk), "--json", stdout=out)
    path = tmp_path / "asleep.json"
    path.write_text(out.getvalue())
    parcels = deploy("parcels", old)
    assert_replays(parcels, asleep)
    assert_replays(parcels, path)
    assert_replays(parcels, str(path))
    asleep.delete()
    with pytest.raises(
        NotRepeatable, match=r"(?s)asleep.json does not fit 'parcels':\n- does not come to 'pack' any more.*wrap"
    ):
        assert_replays(deploy("parcels", new), path)


def test_another_workflow_may_be_given(asleep):
    """A new name for the same body, say: what counts is the body that is given."""
    assert_replays(deploy("shipments", old), asleep)
    with pytest.raises(NotRepeatable):
        assert_replays(deploy("shipments", new), asleep)


def test_async_body_is_replayed_on_the_tests_own_thread(tmp_path):
    async def note(): ...

    async def body(step):
        await step.define("pack", note).run()
        await step.sleep("night", "1h")

    run = deploy("parcels", body).start()
    drain()
    assert_replays(deploy("parcels", body), run)


def test_file_that_holds_no_run(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("{}")
    with pytest.raises(StepsError, match="holds no run with its history"):
        assert_replays(deploy("parcels", old), path)
