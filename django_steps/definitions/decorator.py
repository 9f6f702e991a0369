"""`@workflow`: makes a function a workflow and registers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .options import WORKFLOW_DEFAULTS, WorkflowOptions, shows_options
from .registry import register
from .workflow import Workflow, made_of

if TYPE_CHECKING:
    from typing import Unpack

    from .bodies import Decorator


def _typed(function: Callable[..., Any]) -> Decorator:
    """The same function; type checkers take it for what `bodies.py` says."""
    return function


@_typed
@shows_options(WorkflowOptions, **WORKFLOW_DEFAULTS)
def workflow(function: Callable[..., Any] | None = None, /, **options: Unpack[WorkflowOptions]) -> Any:
    """Make a function a workflow: `@workflow`, or `@workflow(name="nightly", queue="reports", retry=3)`.

    - `name`: text, default: the function's name; with `version` (text, default: empty) it identifies the workflow.
    - `queue` (text, default: `"default"`), `priority` (-100 to 100, larger first; default: 0): the defaults of its runs.
    - `retry`: automatic retries of the whole run; `step_retry`: the default policy of its steps. Each a `RetryPolicy`
      or a number of attempts, the first included; default: one attempt.
    - `timeout`: a duration that each run may take, from its first claim to its end; then it fails with `RunTimedOut`.
      `start_within`: a duration that it may wait to begin; then it is canceled, as `expired`. Default: as long as it takes.
    - `mask`: a collection of keys whose values no page and no log shows; default: none.
    - `schedule`: a `Schedule`, or a list of them: when workers start it by themselves; default: never.
    - `limit`: a `Limit`, or a list of up to two: how many runs execute at once, and how many begin in a time; default: none.
    - `retention`: how long its runs are kept once they have ended: a duration with a unit (`"30d"`), or a dict of them by
      status, as in `{"succeeded": "7d", "failed": None}`, None for without limit; default: as the setting `RETENTION` says.
    - `tags`: a dict of texts that all of its runs are tagged with; default: none.

    The body is a plain function or `async def`; of the latter it makes an `AsyncWorkflow`.

    Raises `TypeError` for a function that can't be a body, `InvalidName`, and `ImproperlyConfigured` if the name and
    version are taken.
    """

    def decorate(function: Callable[..., Any]) -> Workflow[Any, Any]:
        return register(made_of(function, options))

    return decorate if function is None else decorate(function)
