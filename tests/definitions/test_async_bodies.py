"""`async def` bodies: what `@workflow` makes of them, what their `step` asks for, and what it refuses at once."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

import django_steps
from django_steps import AsyncStep, AsyncWorkflow, InvalidName, Step, Workflow, get_workflow, workflow
from django_steps.definitions.awaited import Awaited
from django_steps.definitions.kinds import is_async, is_async_inside
from django_steps.definitions.requests import CallBranch, Gather, Map, Poll, RunStep, Sleep
from django_steps.testing import AsyncFakeStep, FakeStep
from tests.app.models import Person

if TYPE_CHECKING:
    from django_steps import AsyncStep as OnlyForCheckers

# -- What @workflow makes of one ---------------------------------------------------------------------


async def fetch(number: int) -> int:
    return number + 1


async def tool(item, step):
    return item


def plain_tool(item, step):
    return item


class Callable:
    async def __call__(self, item, step):
        return item

    async def method(self, item, step):
        return item

    def plain_method(self, item, step):
        return item


def keeping(function):
    """A decorator that calls the function."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def test_async_def_makes_an_async_workflow():
    @workflow(queue="bulk")
    async def research(input, step):
        """Finds out."""
        return await step.define("a", fetch).run(input)

    @workflow
    def plain(input):
        pass

    assert isinstance(research, AsyncWorkflow)
    assert isinstance(research, Workflow)
    assert (research.is_async, plain.is_async) == (True, False)
    assert not isinstance(plain, AsyncWorkflow)
    assert get_workflow("research") is research
    assert (research.queue, research.__doc__, research.parameters) == ("bulk", "Finds out.", ["input", "step"])


def test_calling_one_gives_the_coroutine_of_the_function():
    @workflow
    async def research(input):
        return input + 1

    coroutine = research(1)
    assert inspect.iscoroutine(coroutine)
    assert asyncio.run(coroutine) == 2
    assert asyncio.run(research.call_body({"input": 2})) == 3


def test_decorated_async_def_is_one_too():
    @workflow
    @keeping
    async def research(input):
        return input

    assert isinstance(research, AsyncWorkflow)


@pytest.mark.parametrize(
    "function, expected",
    [
        (fetch, True),
        (functools.partial(fetch, 1), True),
        (functools.partial(functools.partial(fetch), 1), True),
        (Callable(), True),
        (functools.partial(Callable()), True),
        (Callable().method, True),
        (sync_to_async(plain_tool), True),
        (Person.adelete, True),
        (Person().adelete, True),
        (keeping(fetch), None),
        (functools.partial(keeping(fetch), 1), None),
        (async_to_sync(fetch), False),
        (plain_tool, False),
        (functools.partial(plain_tool, 1), False),
        (Callable().plain_method, False),
        (Callable, False),
        (print, False),
        ("".join, False),
        (str.join, False),
        (lambda: fetch(1), False),
    ],
    ids=repr,
)
def test_async_functions_are_told_from_plain_ones(function, expected):
    """None: a decorator around one. As a step's function it is taken as it is; as a body or branch it is async."""
    assert is_async(function) is bool(expected)
    assert is_async_inside(function) is (expected is not False)


# -- Annotations of the wrong kind -------------------------------------------------------------------


class OwnAsyncStep(AsyncStep):
    pass


def plain_with_async_step(step: AsyncStep):
    pass


def plain_with_dotted_name(step: django_steps.AsyncStep):
    pass


def plain_with_subclass(step: OwnAsyncStep):
    pass


def plain_with_fake(step: AsyncFakeStep):
    pass


def plain_with_class(step):
    pass


plain_with_class.__annotations__ = {"step": AsyncStep}


async def async_with_step(step: Step):
    pass


async def async_with_fake(step: FakeStep):
    pass


@pytest.mark.parametrize(
    "body", [plain_with_async_step, plain_with_dotted_name, plain_with_subclass, plain_with_fake, plain_with_class]
)
def test_plain_body_with_the_step_of_async_ones_is_refused(body):
    with pytest.raises(TypeError, match=r"is a plain function.*Write step: Step, or make it async def"):
        workflow(body)


@pytest.mark.parametrize("body", [async_with_step, async_with_fake])
def test_async_body_with_the_step_of_plain_ones_is_refused(body):
    with pytest.raises(TypeError, match=r"is async def.*Write step: AsyncStep, or make it a plain def"):
        workflow(body)


def test_annotations_that_fit_or_say_nothing_are_left_alone():
    class Local(AsyncStep):
        pass

    def unknown(step: OnlyForCheckers):
        pass

    def local(step: Local):
        pass

    def either(step: Step | AsyncStep):
        pass

    def no_step(step: dict[str, int]):
        pass

    async def fits(step: AsyncStep):
        pass

    def fits_too(step: Step):
        pass

    for body in (unknown, local, either, no_step, fits, fits_too):
        workflow(body)


# -- What the step asks for --------------------------------------------------------------------------


class Recorder:
    """Keeps what is asked for; each answer is the request itself."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.defined: list[str] = []

    def path(self, name):
        return f"b#/{name}"

    def define(self, path):
        self.defined.append(path)

    def refuse(self, mistake):
        raise mistake

    def perform(self, request) -> Coroutine[Any, Any, Any]:
        self.requests.append(request)
        return self._answer(request)

    async def _answer(self, request):
        await asyncio.sleep(0)
        return request


@pytest.fixture
def performer():
    return Recorder()


@pytest.fixture
def step(performer):
    return AsyncStep(performer)


VERBS = {
    "run": (lambda step: step.define("a", fetch).run(1, x=2), RunStep("b#/a", fetch, (1,), {"x": 2})),
    "get": (lambda step: step.get(Person.count_all).run(), RunStep("b#/Person.count_all", Person.count_all, (), {})),
    "sleep": (lambda step: step.sleep("nap", "5s"), Sleep("b#/nap", duration_us=5_000_000)),
    "gather": (
        lambda step: step.gather(step.define("a", fetch).bind(1), return_exceptions=True),
        Gather([RunStep("b#/a", fetch, (1,), {})], True),
    ),
    "branch": (lambda step: step.branch("t", tool).run(1), CallBranch("b#/t#", tool, (1,), {}, ("step",))),
    "map of functions": (
        lambda step: step.map("m", fetch, [1], concurrency=3),
        Map("b#/m", {"1": RunStep("b#/m#1", fetch, (1,), {})}, 3),
    ),
    "map of branches": (
        lambda step: step.map("m", tool, [1]),
        Map("b#/m", {"1": CallBranch("b#/m#1", tool, (1,), {}, ("step",))}, None),
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_asks_once_for_what_the_plain_one_asks_for(verb, step, performer):
    call, request = VERBS[verb]
    found = call(step)
    assert isinstance(found, Awaited)
    assert performer.requests == [request]
    assert asyncio.run(_awaited(found)) == request
    assert performer.requests == [request]


async def _awaited(awaitable):
    return await awaitable


def test_poll_and_decorator_form_too(step, performer):
    @step.define("send", retry=3)
    async def send(address):
        pass

    send.run("a").close()
    step.poll("p", fetch, every="1s").run(1).close()
    step.get(Person, "greet").run(1).close()
    run, poll, _get = performer.requests
    assert (run.name, run.args, run.options.retry.max_attempts) == ("b#/send", ("a",), 3)
    assert isinstance(poll, Poll)
    assert performer.defined == ["b#/send", "b#/p", "b#/Person.greet"]
    with pytest.raises(TypeError, match="has its function already"):
        send(fetch)


VERBS_OF_STEP = [name for name in dir(Step) if not name.startswith("_")]


@pytest.mark.parametrize("verb", VERBS_OF_STEP)
def test_each_verb_takes_what_the_plain_one_takes(verb):
    plain, asynchronous = (inspect.signature(getattr(cls, verb)).parameters for cls in (Step, AsyncStep))
    assert asynchronous == plain
    assert getattr(AsyncStep, verb).__doc__


def test_there_are_no_other_verbs():
    assert [name for name in dir(AsyncStep) if not name.startswith("_")] == VERBS_OF_STEP


# -- What is refused, before anything is awaited -----------------------------------------------------

REFUSED = {
    "name": (lambda step: step.define("a#b", fetch), InvalidName, "a#b"),
    "no function": (lambda step: step.define("a").run(), TypeError, "has no function"),
    "a coroutine": (lambda step: step.define("a", 5), TypeError, "takes a function"),
    "option": (lambda step: step.define("a", fetch, timout=1), TypeError, "Did you mean|no option 'timout'"),
    "duration": (lambda step: step.sleep("a", "5 parsecs"), ValueError, "parsecs"),
    "moment": (lambda step: step.sleep_until("a", "midnight"), TypeError, "takes a datetime"),
    "not bound": (lambda step: step.gather(step.define("a", fetch)), TypeError, "bound"),
    "step of another": (
        lambda step: step.gather(AsyncStep(Recorder()).define("a", fetch).bind()),
        TypeError,
        "the same `step`",
    ),
    "items": (lambda step: step.map("m", fetch, 5), TypeError, "takes its items as a list"),
    "key": (lambda step: step.map("m", fetch, [0.5]), TypeError, "is no key"),
    "equal keys": (lambda step: step.map("m", fetch, [1, 1]), django_steps.DuplicateStepName, "same key"),
    "no branch": (lambda step: step.branch("b", fetch), TypeError, "parameter named step"),
    "interval": (lambda step: step.poll("p", fetch, every="x"), ValueError, "x"),
    "plain branch": (lambda step: step.branch("b", plain_tool), TypeError, "In an async def body branches are async"),
    "plain item": (lambda step: step.map("b", plain_tool, [1]), TypeError, "In an async def body branches are async"),
    "plain partial": (
        lambda step: step.branch("b", functools.partial(plain_tool, 1)),
        TypeError,
        "In an async def body branches are async",
    ),
    "plain method": (
        lambda step: step.branch("b", Callable().plain_method),
        TypeError,
        "In an async def body branches are async",
    ),
    "annotated branch": (lambda step: step.branch("b", async_with_step), TypeError, "Write step: AsyncStep"),
    "annotated item": (
        lambda step: step.map("b", functools.partial(async_with_step), [1]),
        TypeError,
        "Write step: AsyncStep",
    ),
    "atomic": (lambda step: step.define("a", fetch, atomic=True), TypeError, "atomic takes a plain function"),
    "atomic decorator": (
        lambda step: step.define("a", atomic=True)(fetch),
        TypeError,
        "atomic takes a plain function",
    ),
    "atomic partial": (
        lambda step: step.define("a", functools.partial(fetch, 1), atomic=True),
        TypeError,
        "atomic takes a plain function",
    ),
    "atomic map": (lambda step: step.map("a", fetch, [1], atomic=True), TypeError, "atomic takes a plain function"),
    "atomic method": (
        lambda step: step.get(Person.objects.aget, atomic=True),
        TypeError,
        "atomic takes a plain function",
    ),
    "atomic method of an instance": (
        lambda step: step.get(Person, "asave", atomic=True),
        TypeError,
        "atomic takes a plain function",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused_where_it_is_typed(what, step, performer):
    call, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        call(step)
    assert performer.requests == []


def test_plain_functions_may_be_atomic_and_branches_may_be_decorated(step):
    step.define("a", plain_tool, atomic=True)
    step.get(Person, "greet", atomic=True)
    for number, branch in enumerate([tool, keeping(tool), functools.partial(tool, 1), Callable(), Callable().method]):
        step.branch(f"b{number}", branch)


@pytest.mark.parametrize("branch", [tool, functools.partial(tool, 1), Callable(), Callable().method, keeping(tool)])
def test_plain_body_refuses_every_kind_of_async_branch(branch):
    with pytest.raises(TypeError, match="In a plain body branches are plain functions"):
        FakeStep().branch("b", branch)


def test_plain_body_refuses_a_branch_with_the_step_of_async_ones():
    with pytest.raises(TypeError, match=r"Branch 'b' is a plain function.*Write step: Step"):
        FakeStep().branch("b", plain_with_async_step)


# -- What the verbs return ---------------------------------------------------------------------------


async def _added(a, b):
    await asyncio.sleep(0)
    return a + b


def added(a, b):
    return Awaited(_added(a, b), "step 'add'")


async def _failing():
    await asyncio.sleep(0)
    raise OSError("no network")


def test_asyncio_takes_it_wherever_it_takes_a_coroutine():
    async def body():
        results = [await added(1, 1), *await asyncio.gather(added(1, 2), added(1, 3))]
        results.append(await asyncio.create_task(added(1, 4), name="four"))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(added(1, 5))
        results += [task.result(), await asyncio.wait_for(added(1, 6), 5), await asyncio.ensure_future(added(1, 7))]
        done, _ = await asyncio.wait([asyncio.ensure_future(added(1, 8))])
        results += [task.result() for task in done]
        results += [await first for first in asyncio.as_completed([added(1, 9)])]
        return results

    assert asyncio.run(body()) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert asyncio.run(added(2, 2)) == 4


def test_exceptions_and_cancellation_go_through():
    async def body():
        with pytest.raises(OSError, match="no network"):
            await Awaited(_failing(), "step 'x'")
        task = asyncio.create_task(Awaited(asyncio.sleep(60), "sleep 'long'"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Awaited(asyncio.sleep(60), "sleep 'long'"), 0.001)
        return True

    assert asyncio.run(body())


def test_it_can_be_driven_by_hand():
    found = added(1, 1)
    assert found.send(None) is None
    with pytest.raises(OSError, match="by hand"):
        found.throw(OSError("by hand"))
    assert added(1, 1).close() is None


def test_it_has_no_truth_value():
    found = added(1, 1)
    with pytest.raises(TypeError, match=r"step 'add' has a value only when it is awaited: write await"):
        bool(found)
    with pytest.raises(TypeError, match="write await"):
        assert not found
    assert repr(found) == "<step 'add', to be awaited>"
    found.close()


def test_one_that_is_never_awaited_gives_pythons_warning(step):
    with pytest.warns(RuntimeWarning, match="coroutine 'step 'b#/charge'' was never awaited"):
        step.define("charge", fetch).run(1)
        gc.collect()


def test_it_says_where_it_waits():
    async def body():
        awaited = added(1, 1)
        task = asyncio.create_task(awaited)
        await asyncio.sleep(0)
        assert "step 'add'" in repr(task)
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["_added"]
        await task
        with pytest.raises(AttributeError, match="'Awaited' object has no attribute 'result'"):
            awaited.result  # noqa: B018

    asyncio.run(body())
