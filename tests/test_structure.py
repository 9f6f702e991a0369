"""The house: imports run one way, SQL and threads stay in their rooms, and modules stay small."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_steps

PACKAGE = Path(django_steps.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "migrations" not in path.parts
}

PUBLIC_NAMES = {
    "AsyncStep",
    "AsyncWorkflow",
    "ChildTimedOut",
    "DuplicateStepName",
    "EndlessBody",
    "Event",
    "EventTimedOut",
    "FailureWasHandled",
    "GroupFailed",
    "HistoryMismatch",
    "InvalidEvent",
    "InvalidInput",
    "InvalidName",
    "InvalidState",
    "Limit",
    "NestedStep",
    "NonRetryableError",
    "OwnRunChanged",
    "PollTimedOut",
    "RecordedInstanceGone",
    "ResultUnavailable",
    "RetryAfter",
    "RetryPolicy",
    "RunCanceled",
    "RunFailed",
    "RunFinished",
    "RunTimedOut",
    "Schedule",
    "StartOutsideStep",
    "Step",
    "StepCanceled",
    "StepFailed",
    "StepInTransaction",
    "StepInterrupted",
    "StepNotRun",
    "StepTimedOut",
    "StepsError",
    "TimedOut",
    "UndoFailed",
    "UNFINISHED",
    "UnknownStep",
    "UnknownWorkflow",
    "UnreadableValue",
    "UnserializableResult",
    "UnserializableValue",
    "ValueTooLarge",
    "WorkerDied",
    "Workflow",
    "WrongThread",
    "current_step",
    "get_workflow",
    "workflow",
}
# Names kept for what comes later: nothing may be called so before.
# The floors of the house, from the bottom up: an import goes to a lower floor or stays in its own room, also one for type
# checkers only. Rooms on one floor don't know each other.
LAYERS = [
    {"durations", "signals"},
    {"errors"},
    {"conf"},
    {"core", "values"},
    {"failures"},
    {"ledger"},
    {"models"},
    {"definitions"},
    {"engine", "presentation"},
    {"replaying"},
    {"worker", "testing", "forms", "monitoring"},
    {"checks"},
    {"admin", "callbacks", "management", "contrib", "pytest_plugin"},
    {"templatetags", "urls"},
]
FLOOR = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}
# The floors within the admin; its `__init__` registers what `site` puts together.
ADMIN_LAYERS = [
    {"deleting", "damaged"},
    {"base", "html", "csp", "fields"},
    {"list"},
    {"about", "actions"},
    {"sending"},
    {"run", "start", "overview"},
    {"schedules"},
    {"site"},
]
ADMIN_FLOOR = {part: number for number, parts in enumerate(ADMIN_LAYERS) for part in parts}
# At the top of the house: the door, which may know everything.
DOORS = {"django_steps", "django_steps.apps"}

# An import in a function that goes up or closes a circle, and why it has to be there.
LATE = {
    ("django_steps.definitions.workflow", "django_steps.definitions.starting"),  # importable before the apps are ready
    ("django_steps.models.schedule", "django_steps.definitions.scheduling"),  # a row checks itself against the code
}
# For type checkers only: a branch takes the very class that is made from this base.
OWN_SUBCLASS = {
    ("django_steps.definitions.groups", "django_steps.definitions.step"),
    ("django_steps.definitions.async_groups", "django_steps.definitions.async_step"),
}


def room_of(name: str) -> str:
    """The top-level package or module that a module belongs to."""
    return name.split(".")[1] if "." in name else name


def imports_of(name: str, *, with_functions: bool = True) -> Iterator[str]:
    """The modules of this package that a module imports, those for type checkers included."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _nodes(ast.parse(path.read_text()), with_functions):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from found or ({base} & MODULES.keys())


def _nodes(tree: ast.AST, with_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not with_functions:
            continue
        yield child
        yield from _nodes(child, with_functions)


def arrows() -> Iterator[tuple[str, str]]:
    """Who imports whom, but for what may be imported late."""
    for name in MODULES:
        for other in imports_of(name):
            if other != name and (name, other) not in LATE | OWN_SUBCLASS:
                yield name, other


def circle(edges: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    for name in sorted(edges):
        if found := visit(name, []):
            return found
    return []


def goes_up(name: str, other: str) -> bool:
    """Whether an import leads to a higher floor, or to another room on the same one."""
    if name in DOORS or room_of(name) == room_of(other):
        return False
    return other in DOORS or FLOOR[room_of(other)] >= FLOOR[room_of(name)]


def admin_part_of(name: str) -> str | None:
    """The package or module of the admin that a module belongs to; None for others."""
    parts = name.split(".")
    return parts[2] if parts[1:2] == ["admin"] and len(parts) > 2 else None


def test_imports_within_the_admin_go_one_way():
    parts = [(name, admin_part_of(name), other, admin_part_of(other)) for name, other in arrows()]
    assert [
        (name, other)
        for name, part, other, other_part in parts
        if part and other_part and part != other_part and ADMIN_FLOOR[other_part] >= ADMIN_FLOOR[part]
    ] == []


@pytest.mark.parametrize(
    "room", ["admin", "callbacks", "forms", "management", "monitoring", "presentation", "templatetags"]
)
def test_package_says_what_lives_there_and_what_does_not(room):
    packages = [name for name, path in MODULES.items() if path.name == "__init__.py" and room_of(name) == room]
    assert packages
    for name in packages:
        assert "Not here: " in (ast.get_docstring(ast.parse(MODULES[name].read_text())) or ""), name


def test_every_room_is_on_a_floor():
    assert {room_of(name) for name in MODULES if name not in DOORS} <= FLOOR.keys()


def test_no_import_goes_upwards():
    assert [arrow for arrow in arrows() if goes_up(*arrow)] == []


def test_import_upwards_is_found():
    assert goes_up("django_steps.ledger.records", "django_steps.models.run")
    assert goes_up("django_steps.engine.guard", "django_steps.presentation.steps")
    assert not goes_up("django_steps.models.run", "django_steps.ledger.records")


def test_no_circle_of_imports():
    edges: dict[str, set[str]] = {name: set() for name in MODULES}
    for name, other in arrows():
        edges[name].add(other)
    assert circle(edges) == []


def test_late_imports_that_are_allowed_are_there_and_in_functions():
    for name, other in LATE:
        assert other in set(imports_of(name))
        assert other not in set(imports_of(name, with_functions=False))


def test_a_base_imports_its_subclass_for_type_checkers_only():
    for name, other in OWN_SUBCLASS:
        top = ast.parse(MODULES[name].read_text()).body
        outside = [node for node in top if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
        imported = {node.module for block in outside for node in ast.walk(block) if isinstance(node, ast.ImportFrom)}
        assert other.rpartition(".")[2] not in imported


def test_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b"}, "b": set()}) == []


def _imported_roots(path: Path) -> set[str]:
    roots: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add((node.module or "").partition(".")[0])
    return roots


WITHOUT_THREADS = ("core", "values", "failures", "ledger", "definitions", "engine")
# They begin none. The first asks which one it is on; two are shared by the threads of a worker; the slices of an async pass
# answer asgiref by its own futures; the others are shared by those that execute a pass side by side.
KNOWS_OF_THREADS = {
    "django_steps.core.context",
    "django_steps.core.repeated",
    "django_steps.engine.captured",
    "django_steps.engine.history_cache",
    "django_steps.engine.drivers.side_by_side",
    "django_steps.engine.details",
    "django_steps.engine.groups",
    "django_steps.engine.history",
    "django_steps.engine.slices",
}


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) in WITHOUT_THREADS])
def test_what_a_pass_is_made_of_knows_no_threads(module):
    threads = _imported_roots(MODULES[module]) & {"threading", "concurrent", "queue", "multiprocessing"}
    assert bool(threads) is (module in KNOWS_OF_THREADS)


# What makes records: their place and what they carry is not to be forgotten. The members of a map over runs are recorded
# together with the map, whose record carries it.
MAKES_RECORDS = {
    "django_steps.engine.frame",
    "django_steps.engine.operations.attempts",
    "django_steps.engine.operations.map_runs",
}


def test_records_are_made_where_what_they_carry_is_known():
    found = {name for name, path in MODULES.items() if re.search(r"\bStepWrite\(", path.read_text())}
    assert found == MAKES_RECORDS


SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|FOR\s+UPDATE|LOCK\s+IN|NOTIFY|LISTEN|PRAGMA)\b",
    re.DOTALL,
)
# Settings to paste, shown to people; and what surrounds statements that are the user's: savepoints, dropping their tables.
SHOWN = {"django_steps.checks", "django_steps.testing.autocommit", "django_steps.testing.strictness"}


def test_sql_is_nowhere_but_in_the_ledger_and_the_wake_ups():
    for name, path in MODULES.items():
        if name.startswith("django_steps.ledger") or name == "django_steps.worker.wakeups" or name in SHOWN:
            continue
        tree = ast.parse(path.read_text())
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                assert not SQL.search(node.value), f"{name}:{node.lineno}"
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "super()":
                assert node.attr not in ("execute", "executemany", "raw"), f"{name}:{node.lineno}"


def test_public_names_are_these_and_no_others():
    assert set(django_steps.__all__) == PUBLIC_NAMES
    assert len(django_steps.__all__) == len(PUBLIC_NAMES)  # their order is the linter's
    for name in PUBLIC_NAMES:
        assert getattr(django_steps, name).__doc__, name


def test_every_error_shares_the_base():
    for name in PUBLIC_NAMES:
        found = getattr(django_steps, name)
        if isinstance(found, type) and issubclass(found, BaseException):
            assert issubclass(found, django_steps.StepsError), name


def test_modules_are_small():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 450} == {}


@pytest.mark.parametrize("name", MODULES)
def test_module_says_what_it_is_for(name):
    text = MODULES[name].read_text()
    if text.strip():
        documentation = ast.get_docstring(ast.parse(text))
        assert documentation, "a module opens with what it is for"
