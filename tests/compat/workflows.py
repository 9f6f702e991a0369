"""The bodies of the runs in the files. They are not changed: runs of earlier versions go on with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_steps import RetryPolicy, StepInterrupted, Workflow
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


def compat_wire(input, step):
    """Asks about what may have happened."""
    try:
        step.define("wire", done, at_most_once=True).run("wire")
    except StepInterrupted:
        step.define("ask", done).run("ask")
        return "asked"
    return "wired"


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
    ):
        registry.register(Workflow(body))
    registry.register(Workflow(compat_again, retry=RetryPolicy(max_attempts=2, initial_interval="1h", jitter=False)))
    registry.register(Workflow(compat_sleeper, version="2", queue="bulk", priority=5))
