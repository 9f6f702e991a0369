"""`step.get()`: methods of models, managers, querysets and instances as steps."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.models import Model

from django_steps import RunFailed, current_step, workflow
from django_steps.definitions.kinds import is_async
from django_steps.definitions.targets import resolve
from tests.app.models import Person


def name_of(*target: Any) -> str:
    return resolve(*target)[1]


# -- Names, and what is refused before anything runs -------------------------------------------------


@pytest.mark.parametrize(
    "target, name",
    [
        ((Person, "greet"), "Person.greet"),
        ((Person, Person.greet), "Person.greet"),
        ((Person, "count_all"), "Person.count_all"),
        ((Person, Person.count_all), "Person.count_all"),
        ((Person, "shout"), "Person.shout"),
        ((Person, Person.shout), "Person.shout"),
        ((Person, "get_or_create"), "Person.objects.get_or_create"),
        ((Person.objects.get,), "Person.objects.get"),
        ((Person.objects, "get"), "Person.objects.get"),
        ((Person.count_all,), "Person.count_all"),
        ((Person(name="Ann").greet,), "Person.greet"),
        ((Person(name="Ann"), "greet"), "Person.greet"),
        ((Person.objects.filter(name="Ann").count,), "Person.QuerySet.count"),
        ((User, "get_next_by_date_joined"), "User.get_next_by_date_joined"),
        ((User, "create_user"), "User.objects.create_user"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_default_name_tells_owner_and_method(target, name):
    assert name_of(*target) == name


@pytest.mark.parametrize("method", ["misspelled", "nmae", "objects.get"])
def test_name_on_neither_the_model_nor_its_manager_is_an_attribute_error(method):
    with pytest.raises(AttributeError) as raised:
        resolve(Person, method)
    assert f"Person has no method '{method}'" in str(raised.value)
    assert "Person.objects" in str(raised.value)


def test_misspelled_method_is_an_error_at_its_line_before_anything_runs(work):
    executed: list[int] = []

    @workflow
    def misspelled(step):
        call = step.get(Person, "gret")
        step.define("first", lambda: executed.append(1)).run()
        call.run(1)

    run = misspelled.start()
    work()
    run.refresh_from_db()
    assert run.error["type"] == "AttributeError"
    assert executed == []
    assert not run.steps.exists()


def test_plain_function_of_a_class_is_a_type_error_that_suggests_the_model():
    with pytest.raises(TypeError, match=r"step\.get\(Person, Person\.greet\)"):
        resolve(Person.greet)


def module_function() -> None:
    pass


@pytest.mark.parametrize(
    "target, hint",
    [
        ((module_function,), r"step\.define\('module_function', module_function\)"),
        ((lambda: 1,), "step.define"),
        ((len,), "a model with a method"),
        ((Person,), "a model with a method"),
        (("Person", "greet"), None),
        ((Person, 7), "takes a method of Person or its name"),
        ((Person, User.get_full_name), "takes a method of Person or its name"),
        ((Person, module_function), "takes a method of Person or its name"),
        ((Person, "name"), "Person.name is not a method"),
        ((Person, "pk"), "Person.pk is not a method"),
        ((Person, "objects"), "Person.objects is not a method"),
    ],
    ids=repr,
)
def test_what_is_no_method_is_refused(target, hint):
    with pytest.raises((TypeError, AttributeError), match=hint):
        resolve(*target)


# -- Calling -----------------------------------------------------------------------------------------


def test_instance_method_takes_the_instance_or_its_primary_key(work):
    @workflow
    def greeting(input, step):
        first = step.get(Person, "greet").run(input)
        person = step.get(Person.objects.get).run(pk=input)
        second = step.get(Person, Person.greet, name="greet_again").run(person, greeting="Bye")
        return [first, second]

    person = Person.objects.create(name="Ann")
    run = greeting.start(person.pk)
    work()
    assert run.result(timeout=0) == ["Hello Ann", "Bye Ann"]
    person.refresh_from_db()
    assert person.greeted == 2
    assert [record.name for record in run.steps.all()] == ["Person.greet", "Person.objects.get", "greet_again"]


def test_async_instance_method_takes_them_too(work):
    first, second = Person.objects.create(name="Ann"), Person.objects.create(name="Bob")

    @workflow
    def deleting(step):
        return [
            step.get(Person, "adelete").run(first.pk)[0],
            step.get(Person, Person.adelete, name="atomic", atomic=True).run(second)[0],
        ]

    run = deleting.start()
    work()
    assert run.result(timeout=0) == [1, 1]
    assert not Person.objects.exists()


def test_async_methods_of_managers_and_querysets_are_async_functions(work):
    for target in [
        (Person.objects.aget,),
        (Person.objects, "aget"),
        (Person, "aget"),
        (Person.objects.all().aget,),
        (Person, "adelete"),
    ]:
        assert is_async(resolve(*target)[0]), target
    assert not is_async(resolve(Person.objects.get)[0])

    @workflow
    def counting(step):
        return [step.get(Person.objects.acount).run(), step.get(Person, "acount", name="again").run()]

    Person.objects.create(name="Ann")
    run = counting.start()
    work()
    assert run.result(timeout=0) == [1, 1]


def test_async_instance_method_without_its_instance_is_an_error(work):
    @workflow
    def deleting(step):
        step.get(Person, "adelete").run()

    run = deleting.start()
    work()
    with pytest.raises(RunFailed, match=r"calls the instance method Person\.adelete"):
        run.result(timeout=0)


def test_instance_that_does_not_exist_fails_the_step(work):
    @workflow
    def greeting(step):
        step.get(Person, "greet").run(12345)

    run = greeting.start()
    work()
    run.refresh_from_db()
    assert run.error["type"].endswith("Person.DoesNotExist")
    assert run.error["step"] == "Person.greet"


@pytest.mark.parametrize(
    "arguments, keywords, got",
    [
        ([], {}, "no positional argument"),
        ([], {"pk": 7}, "no positional argument"),
        ([None], {"greeting": "Bye"}, "None"),
    ],
    ids=["nothing", "a keyword only", "None"],
)
def test_instance_method_without_its_instance_is_an_error_that_names_the_step(work, arguments, keywords, got):
    @workflow
    def greeting(step):
        step.get(Person, "greet", name="say_hello").run(*arguments, **keywords)

    run = greeting.start()
    work()
    run.refresh_from_db()
    assert run.error["type"] == "TypeError"
    assert run.error["message"] == (
        "Step 'say_hello' calls the instance method Person.greet: its .run(…) takes the instance or its primary key as "
        f"first argument, and got {got}."
    )


def test_missing_instance_can_be_caught_on_every_pass(work, pass_time):
    caught: list[str] = []

    @workflow
    def greeting(step):
        try:
            step.get(Person, "greet").run(12345)
        except Person.DoesNotExist:
            caught.append("gone")
        step.sleep("pause", "1h")

    run = greeting.start()
    work()
    pass_time("2h")
    work()
    run.result(timeout=0)
    assert caught == ["gone", "gone"]


def test_class_static_and_manager_methods_are_called_as_they_are(work):
    @workflow
    def calling(step):
        return [
            step.get(Person, "count_all").run(),
            step.get(Person, "shout").run("a"),
            step.get(Person, Person.shout, name="again").run(text="b"),
            step.get(Person, "get_or_create").run(name="Ann")[1],
            step.get(Person.objects, "count").run(),
            step.get(Person.objects.filter(name="Ann").exists).run(),
            step.get(Person.objects.all(), "count").run(),
        ]

    run = calling.start()
    work()
    assert run.result(timeout=0) == [0, "A", "B", True, 1, True, 1]


def test_options_of_a_step_hold_for_methods_too(work):
    attempts: list[int] = []

    class Flaky:
        def call(self, value: int) -> int:
            attempts.append(current_step().attempt)
            if len(attempts) < 2:
                raise OSError
            return value

    @workflow(step_retry=1)
    def calling(step):
        return step.get(Flaky().call, name="flaky", retry=2, atomic=True).run(7)

    run = calling.start()
    work()
    assert run.result(timeout=5) == 7
    assert attempts == [1, 2]


class Odd(Person):
    """Methods that are not plain functions."""

    class Meta:
        proxy = True
        app_label = "app"

    shouted = functools.partialmethod(Person.greet, greeting="HEY")

    @functools.lru_cache  # noqa: B019
    def cached(self) -> str:
        return self.name

    class Nested:
        def __init__(self, value: int) -> None:
            self.value = value


def test_partial_and_cached_methods_are_instance_methods(db):
    person = Person.objects.create(name="Ann")
    assert resolve(Odd, "shouted")[0](person.pk) == "HEY Ann"
    assert resolve(Odd, "cached")[0](person.pk) == "Ann"
    assert resolve(Odd, "Nested")[0](3).value == 3


def test_methods_that_every_model_has_take_the_primary_key(db):
    person = Person.objects.create(name="Ann")
    function, name = resolve(Person, "delete")
    assert name == "Person.delete"
    assert function(person.pk)[0] == 1
    assert issubclass(Odd, Model)
    assert not Person.objects.exists()
