"""The bodies of the runs in the files. They are not changed: runs of earlier versions go on with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_steps import Limit, PollTimedOut, RetryPolicy, StepInterrupted, Workflow, current_step
from django_steps.definitions import registry

from . import kinds

# Whether what can fail fails: only while the rows are made.
is_broken = False
# What has executed, in order.
executed: list[str] = []


def done(name: str, value: Any = "done") -> Any:
    executed.append(name)
    return value


def shaky(name: str, make: Callable[[], BaseException]) -> str:
    executed.append(name)
    if is_broken:
        raise make()
    return "done"


def declined() -> BaseException:
    return kinds.CardDeclined(reason=kinds.Color.RED, amount=kinds.decimal.Decimal("9.90"))


def compat_values(input, step):
    """Records every value of the input."""
    return [step.define(f"value {number}", done).run(f"value {number}", value) for number, value in enumerate(input)]


def compat_order(input, step):
    """Its second step fails; three attempts, without a pause."""
    step.define("reserve", done).run("reserve", {"seats": (1, 2)})
    step.sleep("settle", 0.01)
    policy = RetryPolicy(max_attempts=3, initial_interval=0)
    step.define("charge", shaky, retry=policy).run("charge", declined)
    step.define("ship", done).run("ship")
    return {"ok": True}


def compat_group(input, step):
    """Two steps fail."""
    found = []
    for name in ("first", "second"):
        try:
            step.define(name, shaky).run(name, lambda name=name: KeyError(name))
        except KeyError as error:
            found.append(error)
    if found:
        raise ExceptionGroup("both", found)
    return "both"


def compat_body(input, step):
    """The body itself fails."""
    step.define("reserve", done).run("reserve")
    if is_broken:
        raise ValueError("by the body")
    return "body"


def compat_handled(input, step):
    """Handles the failure of a step, and fails by it."""
    try:
        step.define("ship", shaky).run("ship", lambda: OSError(5, "no carrier"))
    except OSError:
        step.define("refund", done).run("refund")
        raise
    return "shipped"


def compat_patient(input, step):
    """The second attempt of its step is due after an hour."""
    policy = RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False)
    step.define("charge", shaky, retry=policy).run("charge", declined)
    return "paid"


def compat_again(input, step):
    """A second attempt of the whole run is due after an hour."""
    step.define("reserve", done).run("reserve")
    step.define("charge", shaky).run("charge", declined)
    return "paid"


def compat_sleeper(input, step):
    step.define("before", done).run("before")
    step.sleep("nap", "1h")
    step.sleep("nap", 0)
    step.define("after", done).run("after")
    return "awake"


def compat_alone(input, step):
    """One at once."""
    step.define("alone", done).run("alone")
    return "alone"


def compat_wire(input, step):
    """Asks about what may have happened."""
    try:
        step.define("wire", done, at_most_once=True).run("wire")
    except StepInterrupted:
        step.define("ask", done).run("ask")
        return "asked"
    return "wired"


def compat_parcels(input, step):
    """A branch for each parcel, of which one fails, and a gather."""
    sizes = step.gather(step.define("width", done).bind("width", 2), step.define("height", done).bind("height", 3))
    parcels = step.map("parcel", parcel, ["a", "b/c"], concurrency=1)
    quorum = step.map("vote", vote, [1, 2, 3], min_successes=1, concurrency=1)
    step.sleep("nap", "1h")
    return [sizes, parcels, [one if isinstance(one, (int, str)) else type(one).__name__ for one in quorum]]


def parcel(name, step):
    step.define("book", done).run(f"book {name}")
    if name == "b/c":
        return step.define("label", shaky).run(f"label {name}", declined)
    return name


def vote(number):
    return done(f"vote {number}", number)


def tracked(name: str) -> dict[str, str]:
    executed.append(name)
    return {"state": "packed" if is_broken else "shipped"}


def is_shipped(found: dict[str, str]) -> bool:
    return found["state"] == "shipped"


def compat_parcel(input, step):
    """Polls every hour."""
    return step.poll("shipped", tracked, every="1h", timeout="1d", until=is_shipped).run("shipped")


def compat_lost_parcel(input, step):
    """Gives up after a check, and sleeps over it."""
    found = None
    try:
        step.poll("shipped", tracked, every="1h", max_checks=1, until=is_shipped).run("shipped")
    except PollTimedOut as error:
        found = error.checks, error.value
    step.sleep("nap", "1h")
    return found


def imported() -> int:
    page = current_step().last_checkpoint or 0
    executed.append(f"from {page}")
    if is_broken:
        current_step().checkpoint(page + 41)
        raise OSError("no line")
    return page


def compat_import(input, step):
    """A long step; its second attempt is due after an hour."""
    policy = RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False, give_up_after="2h")
    return step.define("import", imported, retry=policy).run()


def compat_waiting(input, step):
    """Takes an event, waits for one in vain, and waits for one of two."""
    found = [step.wait_for_event("approval"), step.wait_for_event("reminder", timeout="1h", default=None)]
    event = step.wait_for_any_event("outcome", ["paid", "expired"])
    step.define("after", done).run("after")
    return [*found, [event.name, event.payload, event.id, event.by]]


def compat_child(input, step):
    step.define("double", shaky).run(f"child {input}", declined)
    return input * 2


def compat_parent(input, step):
    """Starts a run, invokes one, and maps over runs."""
    step.start("news", registry.get_workflow("compat_values")).run([])
    child = registry.get_workflow("compat_child")
    doubled = step.invoke("receipt", child).run(2)
    return [doubled, step.map("each", child, [1, 3])]


def compat_counter(input, step):
    """Counts to three, a run for each number."""
    return step.continue_as_new(input + 1) if input < 3 else input


def compat_patched(input, step):
    """Goes the new way, sleeps, and goes on."""
    way = step.patched("new way")
    step.sleep("night", "1h")
    step.define("after", done).run("after", 1)
    return "new" if way and step.patched("new way") else "old"


def no_flight(result):
    """The undo of a step."""
    return done(f"no {result}")


def compat_undone(input, step):
    """What it has done is undone by a cancel."""
    step.define("flight", done, undo=no_flight).run("flight", "flight")
    step.define("hotel", shaky).run("hotel", declined)


def register() -> None:
    """Make them known to this process."""
    for body in (
        compat_values,
        compat_order,
        compat_group,
        compat_body,
        compat_handled,
        compat_patient,
        compat_sleeper,
        compat_wire,
        compat_parcels,
        compat_parcel,
        compat_lost_parcel,
        compat_import,
        compat_waiting,
        compat_child,
        compat_parent,
        compat_counter,
        compat_patched,
        compat_undone,
    ):
        registry.register(Workflow(body))
    registry.register(Workflow(compat_again, retry=RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False)))
    registry.register(Workflow(compat_alone, limit=Limit(at_once=1, hold="unfinished")))
    registry.register(Workflow(compat_sleeper, version="2", queue="bulk", priority=5))
