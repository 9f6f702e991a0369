"""Random trees of what async bodies do at once, cut off at random: every pass sees what the one before has seen, every step is
recorded once, and every atomic effect is there once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_steps import RetryPolicy, current_step, workflow
from django_steps.core import clock
from django_steps.models import WorkflowEvent, WorkflowRun
from tests.app.models import Effect
from tests.async_passes import OTHERS, SENDS, WAYS, Passes, Peril, noted, passes
from tests.changing import assert_fits
from tests.engine.event_model import NAMES, Mail
from tests.examples import assert_enough
from tests.examples import examples as so_many

Node = Any  # a kind of leaf, or (a kind of node, what is in each of its branches)
RETRY = RetryPolicy(max_attempts=3, initial_interval="10s", jitter=False)

CHILDREN = ["invoke", "start", "children", "window"]
LEAVES = ["step", "slow", "plain", "atomic", "sleep", "waited", "retried", "retried_atomic"]
WITH_CHILDREN = [*CHILDREN, *CHILDREN, "step", "slow", "sleep", "waited"]


def trees(leaves: list[str], nodes: list[str]) -> Any:
    leaf = st.sampled_from(leaves)
    return st.recursive(
        st.lists(leaf, min_size=1, max_size=3),
        lambda inner: st.lists(
            st.one_of(leaf, st.tuples(st.sampled_from(nodes), st.lists(inner, min_size=2, max_size=4))),
            min_size=1,
            max_size=3,
        ),
        max_leaves=16,
    )


points = st.one_of(st.integers(0, 8), st.integers(0, 40))
# Events twice, or too few come to the point at which they are sent.
interruptions = st.lists(st.tuples(st.sampled_from(WAYS + SENDS * 2), points), min_size=3, max_size=10)
with_others = st.lists(st.tuples(st.sampled_from(WAYS + SENDS + OTHERS * 2), points), min_size=3, max_size=10)


# -- Steps -------------------------------------------------------------------------------------------


async def step_function(path: str, kind: str) -> str:
    reach(path)
    if kind == "slow":
        await asyncio.sleep(0.003)
        Passes.present.peril.reach()
    if kind == "retried" and current_step().attempt < 3:
        raise ConnectionError(path)
    return path


def plain_function(path: str, kind: str) -> str:
    reach(path)
    if kind.endswith("atomic"):
        Effect.objects.create(run=str(Passes.present.run.pk), name=path, pid=0, at=0)
    if kind.startswith("retried") and current_step().attempt < 3:
        raise ConnectionError(path)
    return path


def reach(path: str) -> None:
    Passes.present.executes(path, current_step().attempt)


class _Present:
    mail: Mail
    child: Any = None


# -- Child runs --------------------------------------------------------------------------------------


def define_child() -> Any:
    @workflow(name="grown_async_child")
    def child(input, step, run):
        """Does something once, and gives what it got; of two, one sleeps."""
        step.define("effect", leave_effect, atomic=True).run(f"{run.pk} {input}")
        if len(input) % 2:
            step.sleep("nap", "1m")
        return step.define("last", lambda: input).run()

    return child


def leave_effect(name: str) -> None:
    Effect.objects.create(run="", name=name, pid=0, at=0)


async def child_runs(kind: str, step: Any, name: str, path: str) -> None:
    """Let a run do something, or three of them."""
    child, input = _Present.child, f"{path}{name}"
    if kind == "invoke":
        assert await noted(input, step.invoke(name, child).run(input)) == input
    elif kind == "start":
        await noted(input, step.start(name, child).run(input))
    else:
        inputs = [f"{input} {'x' * number}" for number in range(3)]
        options = {"concurrency": 1} if kind == "window" else {}
        assert await noted(input, step.map(name, child, inputs, key=len, **options)) == inputs


def check_children(run: WorkflowRun, *, is_joined: bool) -> None:
    """Each child was started once and has ended, and nobody waits for one. `is_joined`: the body has canceled none."""
    others = list(WorkflowRun.objects.exclude(pk=run.pk))
    assert all(other.status in ("succeeded", "canceled") and not other.open_parent_id for other in others)
    places = Counter((o.parent_step, o.parent_item) for o in others if o.parent_item is not None)
    assert all(count == 1 for count in places.values()), places
    done = Counter(other.input for other in others if other.status == "succeeded")
    effects = Counter(name.partition(" ")[2] for name in Effect.objects.values_list("name", flat=True))
    assert all(effects[input] >= count for input, count in done.items())
    if is_joined:
        assert all(other.status == "succeeded" for other in others)
        assert all(count == 1 for count in done.values()), done


# -- Bodies ------------------------------------------------------------------------------------------


async def go(body: list[Node], step: Any, names: str, path: str) -> list[Any]:
    """Do what a body, or the body of a branch, says. `names` begins the names of steps here, `path` says where they are."""
    found: list[Any] = []
    for number, node in enumerate(body):
        Passes.present.run.update_details(**{f"at {path}{names}": number})
        if isinstance(node, str):
            name = f"{names}{node} {number}"
            found.append(await leaf(node, step, name, path, NAMES[number % 2]))
        else:
            kind, branches = node
            found.append(await COMPOSED[kind](branches, step, f"{names}{kind} {number}", path))
    return found


async def leaf(kind: str, step: Any, name: str, path: str, event: str = "") -> Any:
    if kind == "nap":
        await asyncio.sleep(0.002)
        return None
    Passes.present.run.update_details(**{f"{path}{name}": 1})
    if kind in CHILDREN:
        return await child_runs(kind, step, name, path)
    if kind == "sleep":
        await noted(f"{path}{name}", step.sleep(name, "1m"))
        return None
    if kind == "waited":  # also in two branches for the same
        payload = await noted(f"{path}{name}", step.wait_for_event(event, name=name))
        assert payload in _Present.mail.sent[event]
        return payload
    options = {"retry": RETRY} if kind.startswith("retried") else {}
    is_plain = kind in ("plain", "atomic", "retried_atomic")
    call = step.define(name, plain_function if is_plain else step_function, atomic=kind.endswith("atomic"), **options)
    return await noted(f"{path}{name}", call.run(f"{path}{name}", kind))


def parts(branches: list[Any], step: Any, name: str, path: str) -> list[Any]:
    return [go(inner, step, f"{name}.{at} ", path) for at, inner in enumerate(branches)]


async def gathered(branches: list[Any], step: Any, name: str, path: str) -> Any:
    return await asyncio.gather(*parts(branches, step, name, path))


async def grouped(branches: list[Any], step: Any, name: str, path: str) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts(branches, step, name, path)]
    return [task.result() for task in tasks]


async def mapped(branches: list[Any], step: Any, name: str, path: str) -> Any:
    item = partial(go_in_item, branches=branches, path=f"{path}{name}")
    return await noted(f"{path}{name}", step.map(name, item, range(len(branches))))


async def go_in_item(at: int, step: Any, *, branches: list[Any], path: str) -> Any:
    return await go(branches[at], step, "", f"{path}#{at}/")


async def branched(branches: list[Any], step: Any, name: str, path: str) -> Any:
    bound = [
        step.branch(f"{name}.{at}", go_in_branch).bind(inner, path=f"{path}{name}.{at}#/")
        for at, inner in enumerate(branches)
    ]
    return list(await noted(f"{path}{name}", step.gather(*bound)))


async def go_in_branch(inner: list[Any], step: Any, *, path: str) -> Any:
    return await go(inner, step, "", path)


async def first(branches: list[Any], step: Any, name: str, path: str) -> Any:
    """The first one decides which step comes next; the others are canceled."""
    tasks = [asyncio.create_task(part) for part in parts(branches, step, name, path)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await canceled(tasks)
    winners = "".join(str(at) for at, task in enumerate(tasks) if task in done)
    return await leaf("step", step, f"{name} won by {winners}.", path)


async def queued(branches: list[Any], step: Any, name: str, path: str) -> Any:
    """A step for each that comes, named in the order of arrival."""
    arrived: asyncio.Queue[int] = asyncio.Queue()

    async def produce(at: int, inner: list[Any]) -> None:
        await go(inner, step, f"{name}.{at} ", path)
        await arrived.put(at)

    tasks = [asyncio.create_task(produce(at, inner)) for at, inner in enumerate(branches)]
    order = ""
    try:
        for _ in tasks:
            order += str(await arrived.get())
            await leaf("step", step, f"{name} {order}", path)
    finally:
        await canceled(tasks)
    return order


async def canceled(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def timed(branches: list[Any], step: Any, name: str, path: str) -> Any:
    """Another step where it takes too long."""
    try:
        async with asyncio.timeout(0.004):
            return await gathered(branches, step, name, path)
    except TimeoutError:
        return await leaf("step", step, f"{name} plan b", path)


async def late(branches: list[Any], step: Any, name: str, path: str) -> Any:
    """What has not come in time is waited for all the same, after another step."""
    tasks = [asyncio.create_task(part) for part in parts(branches, step, name, path)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=0.004)
        in_time = "".join(str(at) for at, task in enumerate(tasks) if task in done)
        await leaf("step", step, f"{name} in time: {in_time}.", path)
        return [in_time, *await asyncio.gather(*tasks)]
    finally:
        await canceled(tasks)


async def locked(branches: list[Any], step: Any, name: str, path: str) -> Any:
    """Two at a time, whichever come first."""
    lock, order = asyncio.Semaphore(2), []

    async def alone(at: int, inner: list[Any]) -> None:
        await leaf("step", step, f"{name} before {at}", path)
        async with lock:
            order.append(at)
            await go(inner, step, f"{name}.{at} ", path)

    await asyncio.gather(*(alone(at, inner) for at, inner in enumerate(branches)))
    return order


COMPOSED = {
    "gather": gathered,
    "group": grouped,
    "map": mapped,
    "branches": branched,
    "first": first,
    "queue": queued,
    "timeout": timed,
    "late": late,
    "lock": locked,
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "tree, examples, is_in_order, cuts",  # where waits are canceled, an event that is given back is taken after later ones
    [
        (trees(LEAVES, ["gather", "group", "map", "branches", "queue", "lock"]), 40, True, interruptions),
        (trees(LEAVES, ["gather", "group", "map", "branches", "queue", "first"]), 40, False, interruptions),
        # A timer of the body and a step: which of the two was first is kept. Of two timers nothing is recorded.
        (trees(LEAVES, ["gather", "group", "map", "queue", "first", "timeout", "late"]), 40, False, interruptions),
        (trees([*LEAVES, "nap"], ["gather", "group", "map", "branches", "queue", "lock"]), 40, True, interruptions),
        (trees(WITH_CHILDREN, ["gather", "group", "map", "branches", "queue", "lock"]), 12, True, with_others),
        (trees(WITH_CHILDREN, ["gather", "group", "map", "branches", "first"]), 12, False, with_others),
    ],
    ids=["joined", "canceled", "timed", "napping", "children", "children_canceled"],
)
def test_interruptions_leave_no_trace_in_async_bodies(tree: Any, examples: int, is_in_order: bool, cuts: Any) -> None:
    @workflow(name="grown_async")
    async def grown(input, step):
        return await go(input, step, "", "")

    _Present.child = define_child()
    counts: Counter[str] = Counter()
    examples = so_many(examples)

    @settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    @given(body=tree, interrupted=cuts)
    def interrupt(body: list[Node], interrupted: list[tuple[str, int]]) -> None:
        clock.offset_us = 0
        Effect.objects.all().delete()
        WorkflowRun.objects.all().delete()
        WorkflowEvent.objects.all().delete()
        made.begin(grown.start(body, key="order-7"))
        _Present.mail = mail = Mail(grown, made.run)
        made.send = lambda name: mail.send(name or "a", by_key=mail.count % 2 == 0, dies=mail.count % 3 == 0)
        said = Said()
        for how, point in interrupted:
            made.run.refresh_from_db()
            if made.run.status == "waiting" and point % 3:
                if made.run.waiting_for:
                    made.send(made.run.waiting_for[-1])
                if point % 2:
                    made.go_over_others()
            peril = Peril(how, point)
            made.once(peril)
            said.check(made.run)
            mail.check(in_order=is_in_order)
            counts[how] += peril.is_over
        run = made.to_the_end(said.check)
        mail.check(in_order=is_in_order)
        assert run.status == "succeeded", run.error
        made.others_to_the_end()
        check_children(run, is_joined=is_in_order)
        assert_effects_are_there_once(run)

    with passes() as made:
        interrupt()
    if cuts is interruptions:
        assert_enough(counts, WAYS + SENDS, more_than=2)
    else:  # fewer examples, of more kinds: most of them come to their points
        assert sum(counts.values()) > examples
        assert_enough(counts, OTHERS, more_than=0)


class Said:
    """What a run says of itself: all that was said before what is recorded, and nothing is taken back."""

    def __init__(self) -> None:
        self.before: dict[str, int] = {}

    def check(self, run: WorkflowRun) -> None:
        run.refresh_from_db()
        names = set(run.steps.filter(kind__in=("step", "sleep", "event")).values_list("name", flat=True))
        assert names <= run.details.keys()
        for key, value in self.before.items():
            assert run.details[key] >= value
        self.before = run.details


def assert_effects_are_there_once(run: WorkflowRun) -> None:
    assert_fits(run)
    effects = Counter(Effect.objects.values_list("name", flat=True))
    assert all(count == 1 for count in effects.values()), effects
    atomic = {
        name
        for name in run.steps.filter(status="succeeded", kind="step").values_list("name", flat=True)
        if "atomic" in name
    }
    assert atomic <= set(effects)
    items = run.steps.filter(kind="invoke", name__regex="#[^/]*$")  # those of a map over a workflow share one
    positions = list(run.steps.exclude(pk__in=items.values("pk")).values_list("position", flat=True))
    assert len(positions) == len(set(positions))
