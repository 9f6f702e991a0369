"""Tags that a run is started with: they are there with the run, it is found by them, and mistakes are named before anything
is written."""

from __future__ import annotations

import re
from enum import StrEnum

import pytest
from django.contrib.auth.models import User
from django.db import connection, models, transaction
from django.test.utils import isolate_apps

from django_steps import InvalidName, workflow
from django_steps.models import WorkflowRun, WorkflowTag
from django_steps.values import references
from tests.app.models import Person
from tests.wire import Wire, counted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tagged():
    @workflow(name="tags_tagged", tags={"kind": "agent", "team": "blue"})
    def tagged(input, step):
        return input

    return tagged


@pytest.fixture
def plain():
    @workflow(name="tags_plain")
    def plain(input, step):
        return input

    return plain


@pytest.fixture
def ann():
    return Person.objects.create(name="Ann")


def rows() -> list[tuple[str, str]]:
    return sorted(WorkflowTag.objects.values_list("name", "value"))


def found(**tags: str) -> list[WorkflowRun]:
    return list(WorkflowRun.objects.tagged(**tags).order_by("pk"))


# -- Starting -----------------------------------------------------------------------------------------


def test_run_has_the_tags_of_the_workflow_and_those_of_the_start(tagged):
    run = tagged.start(tags={"tenant": "acme", "team": "red"})
    wanted = {"kind": "agent", "team": "red", "tenant": "acme"}
    assert run.tags == wanted
    assert WorkflowRun.objects.get(pk=run.pk).tags == wanted
    assert rows() == sorted(wanted.items())
    assert found(tenant="acme") == [run]


def test_run_without_tags_has_none(plain):
    run = plain.start()
    assert (run.tags, run.about, run.about_text) == ({}, None, "")
    assert rows() == []


def test_runs_are_found_that_have_all_of_the_tags(plain):
    one = plain.start(tags={"tenant": "acme", "plan": "pro"})
    two = plain.start(tags={"tenant": "acme", "plan": "free"})
    plain.start(tags={"tenant": "Acme"})
    assert found(tenant="acme") == [one, two]
    assert found(tenant="acme", plan="pro") == [one]
    assert found(plan="acme") == []
    assert WorkflowRun.objects.active().tagged(tenant="acme").filter(workflow="tags_plain").count() == 2


def test_many_runs_have_the_tags(tagged):
    runs = tagged.start_many(range(700), tags={"tenant": "acme"})
    assert runs[0].tags == {"kind": "agent", "team": "blue", "tenant": "acme"}
    assert WorkflowRun.objects.tagged(tenant="acme", kind="agent").count() == 700
    assert WorkflowTag.objects.count() == 2100


def test_of_many_with_keys_the_first_ones_keep_their_tags(plain):
    first = plain.start(1, key="k1", tags={"tenant": "first"})
    runs = plain.start_many([1, 2, 2], key=lambda number: f"k{number}", tags={"tenant": "second"})
    assert [run.tags["tenant"] for run in runs] == ["first", "second", "second"]
    assert found(tenant="first") == [first]
    assert found(tenant="second") == [runs[1]]


def test_second_start_with_a_key_changes_no_tags(plain):
    plain.start(key="k", tags={"tenant": "first"})
    run = plain.start(key="k", tags={"tenant": "second"})
    assert (run.created, run.tags) == (False, {"tenant": "first"})
    assert rows() == [("tenant", "first")]


def test_tags_are_of_the_transaction_of_the_caller(plain):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        plain.start(tags={"tenant": "acme"})
        plain.start_many([1, 2], tags={"tenant": "acme"})
        assert len(found(tenant="acme")) == 3
        raise ZeroDivisionError
    assert rows() == []


def test_restart_has_the_tags_of_the_first_run(tagged, ann):
    run = tagged.start(tags={"tenant": "acme"}, about=ann)
    run.set_tags(stage="sent", team=None)
    again = run.restart()
    assert again.tags == {"kind": "agent", "tenant": "acme", "stage": "sent"}
    assert again.about == ann
    assert list(WorkflowRun.objects.about(ann).order_by("pk")) == [run, again]


# -- What a run is about ------------------------------------------------------------------------------


def test_run_is_found_by_what_it_is_about(plain, ann):
    bob = Person.objects.create(name="Bob")
    run = plain.start(about=ann, tags={"tenant": "acme"})
    plain.start(about=bob)
    plain.start()
    assert list(WorkflowRun.objects.about(ann)) == [run]
    assert (run.about, run.about_text, run.tags) == (ann, f"app.person:{ann.pk}", {"tenant": "acme"})
    assert WorkflowRun.objects.about(ann).tagged(tenant="acme").get() == run


def test_what_is_gone_is_still_named(plain, ann):
    run = plain.start(about=ann)
    text = run.about_text
    ann.delete()
    assert (run.about, run.about_text) == (None, text)


@isolate_apps("tests.app")
def test_proxy_stands_for_its_row(plain, ann):
    class Friend(Person):
        class Meta:
            proxy = True
            app_label = "app"

    run = plain.start(about=Friend.objects.get(pk=ann.pk))
    assert list(WorkflowRun.objects.about(ann)) == [run]
    assert type(run.about) is Person


@isolate_apps("tests.app")
def test_key_of_several_columns_is_written_as_a_list():
    class Pair(models.Model):  # noqa: DJ008
        pk = models.CompositePrimaryKey("left", "right")
        left = models.IntegerField()
        right = models.CharField(max_length=5)

        class Meta:
            app_label = "app"
            managed = False

    pair = Pair(left=7, right="a:b")
    pair._state.adding = False
    assert references.reference(pair) == 'app.pair:["7", "a:b"]'


@pytest.mark.parametrize("text", ["", "app.person", "app.person:x", "app.none:1", "none.none:1", ":", "x:1", "a.b.c:1"])
def test_what_stands_for_nothing_is_nothing(text):
    assert references.referred(text) is None


# -- What can't be a tag ------------------------------------------------------------------------------


class Plan(StrEnum):
    PRO = "pro"


def test_member_of_a_text_enum_is_its_text(plain):
    run = plain.start(tags={"plan": Plan.PRO})
    assert run.tags == {"plan": "pro"}
    assert type(run.tags["plan"]) is str


@pytest.mark.parametrize(
    ("tags", "error", "message"),
    [
        ("tenant", TypeError, 'tags= takes a dict of texts, as in {"tenant": "acme"}'),
        ([("a", "b")], TypeError, "takes a dict of texts"),
        ({"order": 7}, TypeError, "The value of tag 'order' is a text, got 7. Write str"),
        ({"urgent": True}, TypeError, "The value of tag 'urgent' is a text, got True"),
        ({"tenant": None}, TypeError, "The value of tag 'tenant' is a text, got None"),
        ({7: "x"}, InvalidName, "A tag name must be a string"),
        ({"": "x"}, InvalidName, "A tag name can't be empty"),
        ({"x": ""}, InvalidName, "A value of tag 'x' can't be empty"),
        ({"x": " a"}, InvalidName, "white space"),
        ({"x": "a\0"}, InvalidName, "character"),
        ({"a=b": "x"}, InvalidName, "can't contain '='"),
        ({"n" * 101: "x"}, ValueError, "at most 100 characters"),
        ({"x": "v" * 256}, InvalidName, "at most 255 characters"),
        ({"about": "x"}, ValueError, r"start\(about=…\)"),
        ({f"t{number}": "x" for number in range(21)}, ValueError, "at most 20 tags, these are 21"),
    ],
)
def test_bad_tags_are_refused_before_anything_is_written(plain, tags, error, message):
    for start in (plain.start, lambda **options: plain.start_many([1], **options)):
        with pytest.raises(error, match=message):
            start(tags=tags)
    with pytest.raises(error, match=message.replace("tags= takes", "takes")):
        workflow(name="tags_never", tags=tags)(lambda step: None)
    assert not WorkflowRun.objects.exists()


def test_tags_of_workflow_and_start_are_counted_together(tagged):
    with pytest.raises(ValueError, match="at most 20 tags, these are 21"):
        tagged.start(tags={f"t{number}": "x" for number in range(19)})
    tagged.start(tags={f"t{number}": "x" for number in range(18)})
    assert WorkflowTag.objects.count() == 20


@pytest.mark.parametrize(
    ("instance", "error", "message"),
    [
        (Person(name="new"), ValueError, "this app.Person isn't saved: save it first"),
        (Person(pk=7, name="new"), ValueError, "isn't saved"),
        (Person, TypeError, "takes an instance of a model"),
        ("app.person:7", TypeError, "takes an instance of a model"),
        (7, TypeError, "takes an instance of a model"),
    ],
)
def test_what_no_run_can_be_about_is_refused(plain, instance, error, message):
    with pytest.raises(error, match=message):
        plain.start(about=instance)
    with pytest.raises(error, match=message):
        WorkflowRun.objects.about(instance)
    assert not WorkflowRun.objects.exists()


@isolate_apps("tests.app")
def test_key_that_is_too_long_is_refused(plain):
    class Wordy(models.Model):  # noqa: DJ008
        id = models.CharField(primary_key=True, max_length=300)

        class Meta:
            app_label = "app"
            managed = False

    for key in ("k" * 260, "a\nb"):
        wordy = Wordy(id=key)
        wordy._state.adding = False
        with pytest.raises(ValueError, match="at most 255 characters together with the name of its model"):
            plain.start(about=wordy)


def test_looking_for_no_tag_is_refused():
    with pytest.raises(TypeError, match="at least one tag"):
        WorkflowRun.objects.tagged()
    with pytest.raises(TypeError, match=re.escape("got 7. Write str(…)")):
        WorkflowRun.objects.tagged(order=7)


# -- What it costs ------------------------------------------------------------------------------------


@pytest.fixture
def quiet(monkeypatch, plain):
    """No NOTIFY, and statements that are prepared."""
    monkeypatch.setattr("django_steps.ledger.notify.INTERVAL", 3600)
    for _ in range(6):
        plain.start()
        plain.start(tags={"tenant": "acme"})


def cost(action) -> Wire:
    with counted(connection) as wire:
        action()
    return wire


def test_tags_cost_one_statement_and_none_without(plain, quiet):
    def in_transaction(**options):
        def start():
            with transaction.atomic():
                plain.start(**options)

        return start

    user = User.objects.create(username="eve")
    assert cost(plain.start) == Wire(statements=1, transactions=1)
    assert cost(lambda: plain.start(tags={"a": "1", "b": "2"}, about=user)) == Wire(statements=2, transactions=1)
    assert cost(in_transaction()) == Wire(statements=1, transactions=1)
    assert cost(in_transaction(tags={"a": "1"})) == Wire(statements=2, transactions=1)
    assert cost(lambda: plain.start_many(range(10))).statements == 1
    assert cost(lambda: plain.start_many(range(10), tags={"a": "1"})) == Wire(statements=2, transactions=1)
