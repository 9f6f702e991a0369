"""Which kinds of values there are is said by one list; records name no module of this package that may be moved."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import pytest

from django_steps import RetryPolicy, values
from django_steps.errors import UnreadableValue, UnserializableResult
from django_steps.models import StepRecord, WorkflowRun
from django_steps.values.codec import CODECS, Codecs
from django_steps.values.types import INT, TUPLE, Codec


def test_no_two_codecs_share_a_tag_or_a_class() -> None:
    for names in ([tag for codec in CODECS.all for tag in codec.tags], [codec.packs for codec in CODECS.all]):
        assert [name for name, count in collections.Counter(names).items() if count > 1] == []


def test_every_codec_that_writes_tags_reads_them() -> None:
    assert [codec for codec in CODECS.all if bool(codec.tags) is not (codec.unpack is not None)] == []


def test_value_is_written_and_read_by_the_codecs_that_are_given() -> None:
    few = Codecs([INT, TUPLE])
    assert values.decode(values.encode((1, 2), codecs=few), few) == (1, 2)
    with pytest.raises(UnserializableResult, match="result\\[1\\]"):
        values.encode((1, {2}), codecs=few)
    with pytest.raises(UnreadableValue, match="kind 'set'"):
        values.decode(values.encode({2}), few)


def test_codec_of_a_class_comes_before_those_that_ask_of_classes() -> None:
    asked: list[type] = []

    def applies(cls: type) -> bool:
        asked.append(cls)
        return True

    every = Codec(applies, lambda value, depth, pack: "any", ("any",), lambda node: None)
    assert (
        values.encode([(1,), b""], codecs=Codecs([every, *CODECS.all]))
        == '[{"$":"tuple","v":[1]},{"$":"bytes","v":""}]'
    )
    assert asked == []


@pytest.mark.parametrize(
    ("member", "name"),
    [
        (WorkflowRun.Status.FAILED, "django_steps.models:WorkflowRun.Status"),
        (StepRecord.Status.FAILED, "django_steps.models:StepRecord.Status"),
        (StepRecord.Kind.SLEEP, "django_steps.models:StepRecord.Kind"),
    ],
)
def test_what_is_in_the_models_is_named_by_where_users_import_it_from(member: Any, name: str) -> None:
    text = values.encode(member)
    assert f'"of":"{name}"' in text
    assert values.decode(text) is member


@pytest.mark.parametrize("make", [RetryPolicy, lambda: WorkflowRun.Phase.READY])
def test_instance_of_a_class_in_a_module_that_may_be_moved_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UnserializableResult, match="may be moved: use plain values") as raised:
        values.encode(make())
    assert "django_steps.core" not in str(raised.value)
