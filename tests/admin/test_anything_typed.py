"""Whatever is typed into an address, a filter or a form gets an answer and bounded work, never a 500."""

from __future__ import annotations

import dataclasses
import enum
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Literal
from uuid import uuid4

import pytest
from django.test import Client
from pydantic import BaseModel

from django_steps.admin.actions import bulk
from django_steps.models import WorkflowRun
from tests.conftest import ELSEWHERE, EVERYTHING

from .conftest import add_step, failed_run, handled_run, make_run, url

ANSWERS = {200, 302, 400, 403, 404}
TEXTS = [
    "",
    "0",
    "-1",
    "²",
    "9" * 30,
    "9" * 5000,
    "x" * 60_000,
    "\0",
    "a\0b",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "𝄞'\"<b>%s{}\\",
    "null",
    str(uuid4()),
]
NUMBERS = [
    "NaN",
    "1e400",
    "1e-400",
    "1E+1000000000",
    "Infinity",
    "-" + "9" * 4290,
    "9999999999999999d",
    "36525d",
]
TIMES = [
    "0001-01-01",
    "9999-12-31",
    "0001-01-01 00:00:00+23:59",
    "9999-12-31 23:59:59-23:59",
]
JSON = [
    '"\\ud800"',
    '{"\\ud800": "\\u0000", "": 1}',
    '{"$": "Decimal", "v": "x"}',
    "[" * 20_000,
    "[" * 150 + "]" * 150,
    "[" * 900 + "]" * 900,
]
TYPED = [*TEXTS, *NUMBERS, *TIMES, *JSON]
# Of each kind one, for what is looked at on many pages in the same way.
FEW = ["", "-1", "9" * 5000, *TEXTS[7:11], "NaN", "0001-01-01", TEXTS[-1], JSON[0], JSON[2]]


def once(*values: Any) -> Any:
    """Parameters for SQLite only: what is typed there never reaches a statement."""
    return pytest.param(*values, marks=pytest.mark.any_database)


# Each parameter of the list with what can be of use in it. With ALL=1 it gets everything.
READ = {
    "q": TEXTS,
    "p": [*TEXTS, *NUMBERS],
    "o": [*TEXTS, *NUMBERS],
    "status__exact": TEXTS,
    "workflow": TEXTS,
    "queue": TEXTS,
    "version": TEXTS,
    "phase": [*TEXTS, *NUMBERS],
    "id": TEXTS,
    "created_at__range__gte": [*TEXTS, *TIMES],
    "created_at__range__lte": [*TEXTS, *TIMES],
    "finished_at__range__lte": [*FEW, *TIMES],
    "created_at__gte": [*TEXTS, *TIMES],
    "created_at__lt": [*FEW, *TIMES],
}
NOT_READ = {
    "finished_at__range__gte": [*FEW, *TIMES],  # as that of created_at is
    "finished_at__gte": [*FEW, *TIMES],
    "finished_at__lt": [*FEW, *TIMES],
    **dict.fromkeys(["all", "e", "_popup", "_to_field", "_facets", "nonsense", "phase__in"], FEW),
    **dict.fromkeys(["workflow__regex", "status__x", "created_at__year", "input_text__contains"], FEW),
}
LIST = {**READ, **NOT_READ}
# What the pages of a run that was started with a form show of it; two runs that are the same in these look the same.
SHOWN = ["input_text", "queue", "priority", "key", "active_key"]
_NUMBER, _TIME = [*TEXTS, *NUMBERS], [*TEXTS, *TIMES]
# The fields of each form, with what can be of use in them.
FIELDS = {
    "everything": {
        "input_text": TEXTS,
        **dict.fromkeys(["input_number", "input_share", "input_price"], _NUMBER),
        **dict.fromkeys(["input_day", "input_at", "input_clock"], _TIME),
        **dict.fromkeys(["input_color", "input_why", "input_flag"], FEW),
        "input_more": TYPED,
    },
    "model": {"input_text": TEXTS, "input_price": _NUMBER, "input_at": _TIME, "input_more": TYPED},
    "anything": {
        **dict.fromkeys(["queue", "key", "active_key"], TEXTS),
        **dict.fromkeys(["priority", "delay"], _NUMBER),
        "press": FEW,
        "input": TYPED,
    },
}


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Everything:
    text: str = ""
    number: int = 0
    share: float = 0.0
    price: Decimal = Decimal(0)
    day: date | None = None
    at: datetime | None = None
    clock: time | None = None
    color: Color = Color.RED
    why: Literal["a", 1] = "a"
    flag: bool = False
    more: dict[str, Any] = dataclasses.field(default_factory=lambda: {"price": Decimal(1)})

    def __post_init__(self) -> None:
        if self.text:
            raise LookupError(self.text)


class Model(BaseModel):
    text: str = ""
    price: Decimal = Decimal(0)
    at: datetime | None = None
    more: Any = None


@pytest.fixture
def quiet(root: Client) -> Client:
    """A client that gets a 500 as an answer and not as an exception."""
    root.raise_request_exception = False
    return root


def answers(client: Client, address: str, name: str, typed: list[str] = TYPED, **kinds: Any) -> list[str]:
    """What was typed and got no answer, for one parameter."""
    found = []
    for text in typed:
        for way in (client.get, client.post):
            data = {**kinds.get("also", {}), name: text}
            status = way(address, data).status_code
            if status not in ANSWERS:
                found.append(f"{way.__name__} {name}={text[:40]!r}: {status}")
            if not kinds.get("post"):
                break
    return found


@pytest.mark.filterwarnings("ignore:.*received a naive datetime")  # Django's own date filter
@pytest.mark.parametrize("name", [*READ, *map(once, NOT_READ)])
def test_every_parameter_of_the_list(quiet: Client, name: str) -> None:
    failed_run(key="k")
    also = {} if name == "nonsense" else {"q": "a", "created_at__range__gte": "2026-01-01"}
    assert answers(quiet, url("changelist"), name, TYPED if EVERYTHING else LIST[name], also=also) == []


@pytest.mark.filterwarnings("ignore:.*received a naive datetime")
@pytest.mark.parametrize("name", [name if name in READ else once(name) for name in LIST if "_at__" in name])
def test_every_date_of_the_list_without_rangefilter(quiet: Client, settings: Any, name: str) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "rangefilter"]
    failed_run(key="k")
    also = {"q": "a", "created_at__gte": "2026-01-01"}
    assert quiet.get(url("changelist"), also).status_code == 200
    assert answers(quiet, url("changelist"), name, TYPED if EVERYTHING else LIST[name], also=also) == []


PAGES = ["change", "retry", "cancel", "restart", "delete", "history"]
PARAMETERS = ["step", "steps", "from_step", "p", "_popup", "_to_field", "_changelist_filters", "post"]
OF_STEPS = {"step", "steps", "from_step"}


@pytest.mark.parametrize("page", PAGES)
def test_every_text_in_all_parameters_of_a_page_of_a_run(quiet: Client, page: str) -> None:
    run = handled_run()
    for text in TYPED if page == "change" or not ELSEWHERE else FEW:
        assert quiet.get(url(page, run.pk), dict.fromkeys(PARAMETERS, text)).status_code in ANSWERS, text[:40]


@pytest.mark.parametrize(
    ("page", "name"),
    [
        (page, name) if name in OF_STEPS and page in ("change", "restart") else once(page, name)
        for page in PAGES
        for name in PARAMETERS
    ],
)
def test_every_parameter_of_the_pages_of_a_run(quiet: Client, page: str, name: str) -> None:
    run = handled_run()
    is_read = page == "change" and name in OF_STEPS
    typed = TYPED if EVERYTHING or is_read else FEW
    assert answers(quiet, url(page, run.pk), name, typed, post=name == "from_step") == []


@pytest.mark.parametrize("page", PAGES)
def test_every_id_in_an_address(quiet: Client, page: str) -> None:
    failed_run()
    address = url(page, "ID")
    for text in [*TYPED, "_00", "%", "..", "a/b"]:
        path = address.replace("ID", text.replace("\0", "%00").replace("²", "%C2%B2") or "x")
        assert quiet.get(path).status_code in ANSWERS, text[:40]


@pytest.mark.parametrize("name", ["overview", "start"])
@pytest.mark.parametrize("parameter", ["run", "workflow", once("version"), once("p"), once("_popup")])
def test_every_parameter_of_the_other_pages(quiet: Client, name: str, parameter: str) -> None:
    is_read = parameter in ("run", "workflow")
    typed = TYPED if EVERYTHING or (is_read and not ELSEWHERE) else TEXTS if is_read else FEW
    assert answers(quiet, url(name), parameter, typed, post=name == "start") == []


ACTIONS = ["retry", "cancel", "restart", "delete", "nonsense", ""]
IDS = ["_selected_action", "runs"]
FIELDS_OF_ACTIONS = [*IDS, "index", "select_across", "action"]


@pytest.mark.parametrize("action", [*ACTIONS[:4], *map(once, ACTIONS[4:])])
def test_every_text_in_all_fields_of_an_action(quiet: Client, action: str) -> None:
    make_run("pending")
    for text in TYPED:
        data = {**dict.fromkeys(FIELDS_OF_ACTIONS, text), "action": action}
        assert quiet.post(url("changelist"), data).status_code in ANSWERS, text[:40]


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (action, name) if action == "retry" and name in IDS else once(action, name)
        for action in ACTIONS
        for name in FIELDS_OF_ACTIONS
    ],
)
def test_every_field_of_the_actions(quiet: Client, action: str, name: str) -> None:
    run = make_run("pending")
    also = {"action": action, "_selected_action": str(run.pk), "index": "0"}
    for text in TYPED if EVERYTHING or (action == "retry" and name in IDS) else FEW:
        assert quiet.post(url("changelist"), {**also, name: text}).status_code in ANSWERS, text[:40]


@pytest.mark.parametrize("kind", [once("everything"), once("model"), "anything"])
def test_every_field_of_the_form(quiet: Client, define: Any, kind: str) -> None:
    def everything(input: Everything) -> None: ...
    def model(input: Model) -> None: ...
    def anything(input: Any) -> None: ...

    define(locals()[kind])
    address = f"{url('start')}?workflow={kind}"
    assert quiet.get(address).status_code == 200
    shown = set()
    for name, typed in FIELDS[kind].items():
        for text in TYPED if EVERYTHING else typed:
            response = quiet.post(address, {"queue": "default", "priority": "0", name: text})
            assert response.status_code in (200, 302), f"{name}={text[:40]!r}"
            if response.status_code == 200:  # it says why, where people see it
                assert response.context["form"].errors
                assert 'class="errorlist' in response.content.decode()
                continue
            run = WorkflowRun.objects.latest("pk")
            looks = tuple(getattr(run, column) for column in SHOWN)
            if looks in shown and name != "delay":
                continue
            shown.add(looks)
            for page in (url("change", run.pk), f"{url('start')}?run={run.pk}"):
                assert quiet.get(page).status_code == 200, f"{page} after {name}={text[:40]!r}"
        assert quiet.get(url("changelist")).status_code == 200


def test_a_plain_json_string_is_started(root: Client, define: Any) -> None:
    def anything(input: Any) -> None: ...

    define(anything)
    root.post(f"{url('start')}?workflow=anything", {"queue": "default", "priority": "0", "input": '"hello"'})
    assert WorkflowRun.objects.get().input == "hello"


@pytest.mark.parametrize("query", ["step=x", "step=", "step=99", "step=0&step=1"])
def test_a_page_of_large_results_is_never_shown_whole(root: Client, query: str) -> None:
    run = make_run("succeeded")
    for number in range(4):
        add_step(run, f"step_{number}", result="x" * 100_000)
    assert len(root.get(f"{url('change', run.pk)}?{query}").content) < 300_000
    assert len(root.get(f"{url('change', run.pk)}?step=2").content) > 100_000


def test_no_more_runs_are_read_than_an_action_changes(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "AT_MOST", 2)
    runs = [make_run("pending") for _ in range(4)]
    ids = ",".join(str(run.pk) for run in runs)
    root.post(url("changelist"), {"action": "cancel", "_selected_action": str(runs[0].pk), "runs": ids})
    assert WorkflowRun.objects.filter(status="canceled").count() == 2


def test_a_filter_takes_no_pattern(quiet: Client) -> None:
    """A regular expression may take the database any time."""
    make_run("pending")
    assert quiet.get(url("changelist"), {"workflow__regex": "(a+)+$"}).status_code == 400
