"""Workflows that several tests of the kit drive."""

from __future__ import annotations

from django_steps import RetryPolicy, workflow
from tests.app import effects


@workflow
def kit_order(input, step):
    charge = step.define("charge", lambda: effects.leave("charge") or "real").run()
    step.sleep("wait", "30d")
    shipped = step.define("ship", lambda: effects.leave("ship") or "real").run()
    return {"order": input["order"], "charge": charge, "ship": shipped}


@workflow
def kit_flaky(input, step):
    policy = RetryPolicy(max_attempts=5, initial_interval="1h", backoff_coefficient=2, max_interval="1d", jitter=False)

    @step.define("flaky", retry=policy)
    def flaky():
        effects.leave("flaky")
        if effects.count("flaky") < 4:
            raise OSError("not yet")
        return effects.count("flaky")

    return flaky.run()


@workflow
def kit_greeting(input, step):
    step.define("greet", lambda: effects.leave(f"hello {input['name']}")).run()
    if input.get("pause"):
        step.sleep("pause", input["pause"])
    step.define("leave", lambda: effects.leave(f"bye {input['name']}")).run()


@workflow
def kit_parent(input, step):
    """Starts others in steps, sleeps, and looks at what became of them."""
    for name in input["children"]:
        step.define(f"start {name}", lambda: str(kit_greeting.start({"name": name, "pause": "1d"}).pk)).run()  # noqa: B023
    step.sleep("wait", "1w")
    return step.define("look", effects.names).run()
