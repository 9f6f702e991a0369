"""Exceptions are recorded so that every pass raises the same one; what can't be rebuilt is `StepFailed` at once."""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import enum
import errno
import io
import json
import logging
import pathlib
import shutil
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import traceback
import urllib.error
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pydantic
import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist, ValidationError
from django.core.validators import MinValueValidator, validate_email
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import ProtectedError
from django.http import Http404
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise, SimpleLazyObject
from django.utils.translation import gettext_lazy

from django_steps import errors, failures, values
from django_steps.errors import StepFailed
from django_steps.failures import FailureRecord, codec
from django_steps.models import WorkflowRun
from django_steps.testing.errors import UnusedStub


class Reason(enum.Enum):
    FRAUD = "fraud"


class CardDeclined(Exception):
    """As client libraries write theirs: what `__init__` takes isn't what `args` has."""

    def __init__(self, *, reason: Reason, amount: decimal.Decimal, response: Any = None) -> None:
        super().__init__(f"declined: {reason.value}")
        self.reason, self.amount, self.response = reason, amount, response


class NeedsResponse(Exception):
    def __init__(self, response: Any) -> None:
        super().__init__("no luck")
        self.response = response

    def __str__(self) -> str:
        return f"{self.args[0]}{' (with a response)' if self.response is False else ''}"


class WithoutSuper(Exception):
    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class OwnNew(Exception):
    def __new__(cls, text: str, *, code: int) -> OwnNew:
        made = super().__new__(cls, text)
        made.code = code
        return made

    def __init__(self, text: str, *, code: int) -> None:
        raise_if_called_again.append(code)


raise_if_called_again: list[int] = []


class Slotted(Exception):
    __slots__ = ("__private", "code", "unset")

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code
        self.__private = (code,)

    def private(self) -> tuple[int, ...]:
        return self.__private


class SlottedChild(Slotted, LookupError):
    __slots__ = ("more",)


@dataclasses.dataclass
class DataclassError(Exception):
    code: int
    tags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class FileError(OSError):
    def __init__(self, path: str, *, hint: str) -> None:
        super().__init__(errno.ENOENT, "no file", path)
        self.hint = hint


class ShutDown(SystemExit):
    pass


class Group(ExceptionGroup[Exception]):
    def __new__(cls, message: str, found: list[Exception], code: int) -> Group:
        made = super().__new__(cls, message, found)
        made.code = code
        return made

    def __init__(self, message: str, found: list[Exception], code: int) -> None:
        super().__init__(message, found)


class ReadOnly(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} is read-only")


class Outer:
    class InnerError(Exception):
        pass


class Address(pydantic.BaseModel):
    street: str


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def there_and_back(exc: BaseException) -> BaseException:
    return failures.rebuild(failures.record(exc))


def same(value: Any) -> Any:
    """What of an exception, or of what it holds, must be the same; exceptions compare by identity."""
    if isinstance(value, BaseException):
        attributes = {name: same(item) for name, item in vars(value).items() if name != "error_list"}
        return (type(value), str(value), same(value.args), attributes)
    if type(value) in (list, tuple):
        return (type(value), [same(item) for item in value])
    if type(value) is dict:
        return {key: same(item) for key, item in value.items()}
    if isinstance(value, Promise):
        return (str, str(value))
    if isinstance(value, (set, frozenset)):
        return (isinstance(value, set), value, list(value))
    return (type(value), value)


def from_cause() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal("9.90")) from error


def nonsense_in_sql() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("nonsense")


def form_errors() -> None:
    raise ValidationError({"name": [ValidationError(gettext_lazy("Too %(how)s."), code="bad", params={"how": "long"})]})


def with_notes() -> None:
    error = ValueError("x")
    error.add_note("first")
    error.add_note("second")
    raise error


EXACT: dict[str, Callable[[], Any]] = {
    "base": lambda: Exception(),
    "several args": lambda: ValueError("a", 1, ("b", None), {"c": decimal.Decimal(1)}),
    "odd text": lambda: ValueError("a\0\ud800ü😀"),
    "file not found": lambda: raised(lambda: pathlib.Path("/nowhere/at all").stat()),
    "file not found, two names": lambda: raised(lambda: pathlib.Path("/nowhere/a").rename("/nowhere/b")),
    "permission": lambda: PermissionError(errno.EACCES, "no", b"/bytes"),
    "os error, text": lambda: OSError("just text"),
    "os error, subclass": lambda: FileError("/x", hint="make it"),
    "connection": lambda: ConnectionResetError(errno.ECONNRESET, "reset"),
    "timeout": lambda: TimeoutError("late"),
    "blocking": lambda: BlockingIOError(errno.EAGAIN, "again", 5),
    "same file": lambda: shutil.SameFileError("same"),
    "unsupported": lambda: io.UnsupportedOperation("seek"),
    "decode": lambda: raised(lambda: b"ab\xff".decode()),
    "encode": lambda: raised(lambda: "a\ud800".encode()),
    "ascii": lambda: raised(lambda: "ü".encode("ascii")),
    "key": lambda: raised(lambda: {}["a\nb"]),
    "key, tuple": lambda: KeyError((1, "a")),
    "index": lambda: raised(lambda: [][1]),
    "zero": lambda: raised(lambda: 1 / 0),
    "attribute": lambda: raised(lambda: (1).nothing),
    "name": lambda: raised(lambda: nothing_of_that_name),  # type: ignore[name-defined] # noqa: F821
    "import": lambda: raised(lambda: __import__("no_such_module")),
    "import, name": lambda: ImportError("x", name="module", path="/path"),
    "syntax": lambda: raised(lambda: compile("a = (", "file.py", "exec")),
    "indentation": lambda: raised(lambda: compile("if 1:\na", "file.py", "exec")),
    "stop": lambda: StopIteration(("value", 3)),
    "exit": lambda: raised(lambda: sys.exit(3)),
    "exit, text": lambda: SystemExit("bye"),
    "exit, subclass": lambda: ShutDown(4),
    "interrupt": lambda: KeyboardInterrupt(),
    "assertion": lambda: AssertionError("x", 1),
    "unicode translate": lambda: UnicodeTranslateError("ab", 0, 1, "why"),
    "called process": lambda: raised(
        lambda: subprocess.run(
            [pathlib.Path(sys.executable), "-c", "print(1); exit(3)"], check=True, capture_output=True
        )
    ),
    "timeout expired": lambda: subprocess.TimeoutExpired(["sleep"], 1.5, output=b"x"),
    "json": lambda: raised(lambda: json.loads('{"a": ')),
    "decimal": lambda: raised(lambda: decimal.Decimal("x")),
    "decimal, zero": lambda: raised(lambda: decimal.Decimal(1) / 0),
    "sqlite": lambda: raised(nonsense_in_sql),
    "mail": lambda: smtplib.SMTPAuthenticationError(535, b"no"),
    "mail, refused": lambda: smtplib.SMTPRecipientsRefused({"a@b.c": (550, b"no")}),
    "socket": lambda: raised(lambda: socket.create_connection(("127.0.0.1", 1), timeout=5)),
    "tls": lambda: ssl.SSLCertVerificationError(1, "certificate verify failed"),
    "zip": lambda: raised(lambda: zipfile.ZipFile(io.BytesIO(b"x"))),
    "django validation": lambda: ValidationError("bad", code="c", params={"x": 1}),
    "django validation, lazy": lambda: raised(lambda: validate_email("x")),
    "django validation, limit": lambda: raised(lambda: MinValueValidator(3)(2)),
    "django validation, list": lambda: ValidationError(["a", ValidationError("b", code="c")]),
    "django validation, dict": lambda: raised(form_errors),
    "does not exist": lambda: User.DoesNotExist("no user"),
    "multiple": lambda: User.MultipleObjectsReturned("two"),
    "integrity": lambda: IntegrityError("duplicate", 1062),
    "operational": lambda: OperationalError(2006, "gone away"),
    "improperly": lambda: ImproperlyConfigured("x"),
    "404": lambda: Http404("x"),
    "no reverse match": lambda: raised(lambda: reverse("nowhere")),
    "multi value": lambda: raised(lambda: MultiValueDict()["a"]),
    "own init": lambda: CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal("1.10")),
    "own init without super": lambda: WithoutSuper(404, "not found"),
    "own new": lambda: OwnNew("x", code=5),
    "dataclass": lambda: DataclassError(3, tags=("a",)),
    "dataclass, frozen": lambda: FrozenError(3),
    "read-only": lambda: ReadOnly("x"),
    "nested class": lambda: Outer.InnerError("x"),
    "notes": lambda: raised(with_notes),
    "enum in args": lambda: ValueError(Reason.FRAUD),
    "group": lambda: ExceptionGroup("g", [ValueError(1), ExceptionGroup("h", [KeyError("k"), OSError(2, "x", "f")])]),
    "group, tuple": lambda: ExceptionGroup("g", (ValueError(1),)),
    "base group": lambda: BaseExceptionGroup("g", [SystemExit(1), ValueError(2)]),
    "group, own": lambda: Group("g", [ValueError(1)], 7),
    "in attribute": lambda: (error := ValueError("x"), setattr(error, "errors", {"a": [KeyError("y"), 1]}))[0],
    "retry after": lambda: errors.RetryAfter("30s", "busy"),
    "not retryable": lambda: errors.NonRetryableError("no"),
    "duplicate": lambda: errors.DuplicateStepName("send"),
    "gone": lambda: errors.RecordedInstanceGone("shop.Order", 7, "load"),
    "step failed": lambda: StepFailed("shop.Odd", "text"),
    "invalid input": lambda: errors.InvalidInput("bad", ["a", "b"]),
    "handled": lambda: errors.FailureWasHandled("ship", ["refund"]),
    "too large": lambda: errors.ValueTooLarge("x"),
}


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_exception_comes_back_as_it_was(make: Callable[[], BaseException]) -> None:
    original = make()
    rebuilt = there_and_back(original)
    assert same(rebuilt) == same(original)
    assert rebuilt is not original
    assert rebuilt.__traceback__ is None
    assert same(there_and_back(rebuilt)) == same(original)


def test_file_names_and_numbers_of_an_os_error_come_back() -> None:
    rebuilt = there_and_back(raised(lambda: pathlib.Path("/nowhere/a").rename("/nowhere/b")))
    assert isinstance(rebuilt, FileNotFoundError)
    assert (rebuilt.errno, rebuilt.filename, rebuilt.filename2) == (errno.ENOENT, "/nowhere/a", "/nowhere/b")
    changed = FileNotFoundError(errno.ENOENT, "no")
    changed.filename = "set later"
    assert there_and_back(changed).filename == "set later"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        ("decode", ["encoding", "object", "start", "end", "reason"]),
        ("syntax", ["msg", "filename", "lineno", "offset", "text", "end_lineno", "end_offset"]),
        ("stop", ["value"]),
        ("exit", ["code"]),
        ("import", ["msg", "name", "path"]),
        ("import, name", ["msg", "name", "path"]),
        ("attribute", ["name"]),
        ("name", ["name"]),
        ("blocking", ["errno", "strerror", "characters_written"]),
        ("called process", ["returncode", "cmd", "output", "stderr"]),
        ("json", ["msg", "doc", "pos", "lineno", "colno"]),
        ("django validation, dict", ["message_dict", "messages"]),
        ("django validation, list", ["messages"]),
        ("django validation, lazy", ["message", "code", "params", "messages"]),
        ("group", ["message"]),
        ("own new", ["code"]),
    ],
)
def test_attributes_that_handlers_look_at_come_back(make: str, names: list[str]) -> None:
    original = EXACT[make]()
    rebuilt = there_and_back(original)
    assert [getattr(rebuilt, name) for name in names] == [getattr(original, name) for name in names]


def test_handler_of_the_own_class_or_a_base_class_matches() -> None:
    with pytest.raises(CardDeclined, match="declined: fraud"):
        raise there_and_back(CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal(1)))
    with pytest.raises(ObjectDoesNotExist):
        raise there_and_back(User.DoesNotExist())
    with pytest.raises(ExceptionGroup) as caught:
        raise there_and_back(EXACT["group"]())
    assert caught.group_contains(OSError, match="x")


def test_init_of_the_class_is_not_called_again() -> None:
    original = OwnNew("x", code=9)
    raise_if_called_again.clear()
    assert there_and_back(original).code == 9  # type: ignore[attr-defined]
    assert raise_if_called_again == []


def test_slots_come_back() -> None:
    original = SlottedChild(7)
    original.more = [1]
    rebuilt: Any = there_and_back(original)
    assert (rebuilt.code, rebuilt.private(), rebuilt.more) == (7, (7,), [1])
    assert not hasattr(rebuilt, "unset")


def test_every_rebuilding_gives_a_new_exception() -> None:
    text = failures.record(ValueError([1]))
    first, second = failures.rebuild(text), failures.rebuild(text)
    assert first is not second
    first.args[0].append(2)
    assert second.args == ([1],)


# -- Causes and contexts -------------------------------------------------------------------------


def test_cause_comes_back() -> None:
    rebuilt = there_and_back(raised(from_cause))
    assert same(rebuilt.__cause__) == same(KeyError("inner"))
    assert rebuilt.__context__ is rebuilt.__cause__
    assert rebuilt.__suppress_context__


def test_context_comes_back() -> None:
    def fail_twice() -> None:
        try:
            raise KeyError("first")
        finally:
            raise ValueError("second")

    rebuilt = there_and_back(raised(fail_twice))
    assert same(rebuilt.__context__) == same(KeyError("first"))
    assert (rebuilt.__cause__, rebuilt.__suppress_context__) == (None, False)


def test_suppressed_context_stays_suppressed() -> None:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second") from None

    rebuilt = there_and_back(raised(fail))
    assert (rebuilt.__cause__, rebuilt.__suppress_context__) == (None, True)
    assert same(rebuilt.__context__) == same(KeyError("first"))


def test_causes_of_the_members_of_a_group_come_back() -> None:
    rebuilt: Any = there_and_back(ExceptionGroup("g", [raised(from_cause)]))  # type: ignore[list-item]
    assert same(rebuilt.exceptions[0].__cause__) == same(KeyError("inner"))


def test_group_that_failed_is_shown_with_what_its_first_failure_says() -> None:
    inner = errors.GroupFailed("1 of 2 that were gathered failed", {"send": ConnectionError("no answer")})
    several = errors.GroupFailed("2 of 'parcel' failed", {"P-3": inner, "P-4": ValueError("other")})
    unlike = errors.GroupFailed("1 of 'parcel' failed", {"P-3": StepFailed("shop.Lost", "gone")})
    shown = [FailureRecord.of(group).message for group in (inner, several, unlike)]
    assert shown == [
        "1 of 2 that were gathered failed: ConnectionError: no answer",
        "2 of 'parcel' failed, first: ConnectionError: no answer",
        "1 of 'parcel' failed: Lost: gone",
    ]
    assert [str(there_and_back(group)) for group in (inner, several)] == [str(inner), str(several)]


@pytest.mark.django_db
def test_error_of_the_database_comes_back_with_that_of_its_driver() -> None:
    def save_twice() -> None:
        with transaction.atomic():
            User.objects.bulk_create([User(username="ann"), User(username="ann")])

    original = raised(save_twice)
    rebuilt = there_and_back(original)
    assert (type(rebuilt), str(rebuilt), rebuilt.args) == (IntegrityError, str(original), original.args)
    assert (type(rebuilt.__cause__), str(rebuilt.__cause__)) == (type(original.__cause__), str(original.__cause__))


def test_exception_that_refers_to_itself_comes_back() -> None:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__context__ = two, one
    one.myself = [one, two]  # type: ignore[attr-defined]
    rebuilt: Any = there_and_back(one)
    assert rebuilt.__cause__.__context__ is rebuilt
    assert rebuilt.myself == [rebuilt, rebuilt.__cause__]


def test_exception_among_its_own_arguments_is_a_step_failed() -> None:
    error = ValueError("x")
    error.args = ("x", error)
    assert type(there_and_back(error)) is StepFailed


def test_endless_chain_of_contexts_is_cut() -> None:
    error: BaseException = ValueError("first")
    for number in range(5000):
        following = ValueError(number)
        following.__context__ = error
        error = following
    text = failures.record(error)
    assert len(text) <= codec.MAX_RECORD_BYTES
    rebuilt = failures.rebuild(text)
    assert same(rebuilt) == same(ValueError(4999))
    assert same(rebuilt.__context__) == same(ValueError(4998))


def test_cause_that_cannot_be_rebuilt_leaves_the_exception_as_it_is() -> None:
    error = ValueError("outer")
    error.__cause__ = raised(lambda: Address(street=1))  # type: ignore[arg-type]
    rebuilt = there_and_back(error)
    assert same(rebuilt) == same(error)
    assert isinstance(rebuilt.__cause__, StepFailed)


# -- What can't be rebuilt, and says so from the first pass on -----------------------------------


def local_class() -> BaseException:
    class LocalError(ValueError):
        pass

    return LocalError("text")


class Evil:
    """Whatever is done to an instance raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class CountingError(Exception):
    count = 0

    def __str__(self) -> str:
        type(self).count += 1
        return str(self.count)


class TextOfResponse(Exception):
    def __init__(self, response: Any) -> None:
        super().__init__(response)

    def __str__(self) -> str:
        return f"got {self.args[0]!r}"


STEP_FAILED: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "pydantic": (
        lambda: raised(lambda: Address(street=1)),  # type: ignore[arg-type]
        "pydantic_core._pydantic_core.ValidationError",
        "1 validation error for Address",
    ),
    "class in a function": (local_class, "tests.failures.test_failures.local_class.<locals>.LocalError", "text"),
    "argument that matters": (
        lambda: TextOfResponse({1}.__iter__()),
        "tests.failures.test_failures.TextOfResponse",
        "got <set_iterator object",
    ),
    "text that changes": (lambda: CountingError(), "tests.failures.test_failures.CountingError", ""),
    "unencodable argument": (lambda: ValueError(object()), "ValueError", "<object object at 0x"),
    "instance as argument": (lambda: ValueError(User(pk=1, username="ann")), "ValueError", "ann"),
    "instances in the text": (
        lambda: ProtectedError("in use", {User(pk=1, username="ann")}),
        "django.db.models.deletion.ProtectedError",
        "('in use', {<User: ann>})",
    ),
    "huge argument": (lambda: ValueError("x" * 1_000_000), "ValueError", "xxxx"),
}


@pytest.mark.parametrize(("make", "name", "message"), STEP_FAILED.values(), ids=STEP_FAILED)
def test_exception_that_cannot_be_rebuilt_is_a_step_failed_with_type_and_message(
    make: Callable[[], BaseException], name: str, message: str
) -> None:
    rebuilt = there_and_back(make())
    assert isinstance(rebuilt, StepFailed)
    assert rebuilt.type_name == name
    assert rebuilt.message.startswith(message)
    assert same(there_and_back(rebuilt)) == same(rebuilt)


def test_class_that_is_gone_since_is_a_step_failed() -> None:
    text = failures.record(CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal(1)))
    rebuilt = failures.rebuild(text.replace("test_failures:CardDeclined", "test_failures:Gone"))
    assert same(rebuilt) == same(StepFailed("tests.failures.test_failures.CardDeclined", "declined: fraud"))


def test_class_that_is_no_exception_any_more_is_a_step_failed() -> None:
    text = failures.record(CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal(1)))
    rebuilt = failures.rebuild(text.replace("test_failures:CardDeclined", "test_failures:Address"))
    assert same(rebuilt) == same(StepFailed("tests.failures.test_failures.CardDeclined", "declined: fraud"))


def test_attribute_whose_class_is_gone_since_is_missing() -> None:
    text = failures.record(CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal(1)))
    rebuilt: Any = failures.rebuild(text.replace("test_failures:Reason", "test_failures:Gone"))
    assert (type(rebuilt), rebuilt.amount, hasattr(rebuilt, "reason")) == (CardDeclined, 1, False)


# -- What can't be kept of an exception that can be rebuilt --------------------------------------


def test_attribute_that_cannot_be_encoded_is_left_out_and_named_in_a_note() -> None:
    error = CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal(1), response=io.BytesIO())
    rebuilt: Any = there_and_back(error)
    assert (type(rebuilt), rebuilt.reason, rebuilt.amount) == (CardDeclined, Reason.FRAUD, 1)
    assert not hasattr(rebuilt, "response")
    assert rebuilt.__notes__ == ["Not recorded: response."]
    assert there_and_back(rebuilt).__notes__ == ["Not recorded: response."]


def test_attribute_that_the_text_needs_is_none_when_it_cannot_be_encoded() -> None:
    rebuilt: Any = there_and_back(NeedsResponse(io.BytesIO()))
    assert (type(rebuilt), str(rebuilt), rebuilt.response) == (NeedsResponse, "no luck", None)
    assert rebuilt.__notes__ == ["Not recorded: response."]


def test_failure_of_another_run_keeps_its_type_text_and_error() -> None:
    run = WorkflowRun(workflow="child", error_text=failures.with_steps(failures.record(KeyError("a")), ["load"]))
    error = errors.RunFailed(run)
    rebuilt: Any = there_and_back(error)
    assert str(error) == f"Run {run.pk} of 'child' failed in step 'load': KeyError: 'a'"
    assert (type(rebuilt), str(rebuilt), rebuilt.error) == (errors.RunFailed, str(error), run.error)
    assert (rebuilt.run_id, rebuilt.run) == (run.pk, None)


def test_argument_that_the_text_does_not_show_is_none_when_it_cannot_be_encoded() -> None:
    error = WithoutSuper(404, "not found")
    error.args = (404, object())
    rebuilt = there_and_back(error)
    assert (type(rebuilt), str(rebuilt), rebuilt.args) == (WithoutSuper, "404 not found", (404, None))
    assert rebuilt.__notes__ == ["Not recorded: args[1]."]


@pytest.mark.django_db
def test_model_instance_in_an_attribute_is_left_out_and_never_loaded(django_assert_num_queries: Any) -> None:
    error = ValueError("no")
    error.user = User.objects.create(username="ann")  # type: ignore[attr-defined]
    error.users = {"all": [error.user]}  # type: ignore[attr-defined]
    with django_assert_num_queries(0):
        rebuilt = there_and_back(error)
    assert vars(rebuilt) == {"__notes__": ["Not recorded: user, users."]}


@pytest.mark.django_db
def test_lazy_object_is_not_evaluated() -> None:
    error = ValueError("no")
    error.user = SimpleLazyObject(lambda: pytest.fail("evaluated"))  # type: ignore[attr-defined]
    assert there_and_back(error).__notes__ == ["Not recorded: user."]


def test_http_error_keeps_status_and_address_but_not_the_response() -> None:
    error = urllib.error.HTTPError("http://127.0.0.1/x", 404, "Not Found", {}, io.BytesIO(b"body"))  # type: ignore[arg-type]
    rebuilt: Any = there_and_back(error)
    error.close()
    assert (type(rebuilt), str(rebuilt)) == (urllib.error.HTTPError, "HTTP Error 404: Not Found")
    assert (rebuilt.code, rebuilt.reason, rebuilt.filename) == (404, "Not Found", "http://127.0.0.1/x")
    assert rebuilt.fp is None
    assert not hasattr(rebuilt, "anything_else")


def test_rebuilt_exception_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    for make in [*EXACT.values(), *(make for make, *_ in STEP_FAILED.values())]:
        try:
            raise there_and_back(make())
        except BaseException:
            logging.getLogger("test").exception("failed")
    assert len(caplog.records) == len(EXACT) + len(STEP_FAILED)


# -- Nothing here raises -------------------------------------------------------------------------


class BrokenText(Exception):
    def __str__(self) -> str:
        raise SystemExit("in __str__")

    __repr__ = __str__


class EndlessText(Exception):
    def __str__(self) -> str:
        return str(self)


class NoText(Exception):
    def __str__(self) -> Any:
        return None


class BrokenAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise KeyError(name)


class BrokenDict(Exception):
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise ValueError("no dict")


class BrokenProperties(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise ValueError("no args")

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise ValueError("no cause")

    @property
    def __notes__(self) -> Any:  # type: ignore[override]
        raise ValueError("no notes")


class BrokenReduce(Exception):
    def __reduce__(self) -> Any:
        raise ValueError("no reduce")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise ValueError("no reduce")

    def __getstate__(self) -> Any:
        raise ValueError("no state")


class EqualToAll(Exception):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class OddMeta(type):
    @property
    def __module__(cls) -> Any:  # type: ignore[override]
        raise ValueError("no module")

    def __eq__(cls, other: object) -> bool:
        raise ValueError("no comparison")

    __hash__ = None  # type: ignore[assignment]


class EvilText(str):
    def __add__(self, other: Any) -> Any:
        raise ValueError("no +")

    encode = replace = __len__ = __str__ = __add__  # type: ignore[assignment]


class TextIsEvil(Exception):
    def __str__(self) -> str:
        return EvilText("evil")


def with_attribute(value: Any) -> BaseException:
    error = ValueError("x")
    error.value = value  # type: ignore[attr-defined]
    return error


def deep_group() -> BaseException:
    error: Exception = ValueError("x")
    for _ in range(3000):
        error = ExceptionGroup("g", [error])
    return error


def cyclic_list() -> Any:
    items: list[Any] = []
    items.append(items)
    return items


NASTY: dict[str, Callable[[], BaseException]] = {
    "broken text": lambda: BrokenText("x"),
    "endless text": lambda: EndlessText("x"),
    "no text": lambda: NoText("x"),
    "text of a strange class": lambda: TextIsEvil("x"),
    "broken attributes": lambda: BrokenAttributes("x"),
    "broken dict": lambda: BrokenDict("x"),
    "broken properties": lambda: BrokenProperties("x"),
    "broken reduce": lambda: BrokenReduce("x"),
    "equal to all": lambda: ExceptionGroup("g", [EqualToAll(1), EqualToAll(2)]),
    "odd metaclass": lambda: OddMeta("OddError", (Exception,), {})("x"),
    "evil argument": lambda: ValueError(Evil()),
    "evil attribute": lambda: with_attribute(Evil()),
    "evil in attribute": lambda: with_attribute([{"a": (Evil(),)}]),
    "cyclic attribute": lambda: with_attribute(cyclic_list()),
    "cyclic argument": lambda: ValueError(cyclic_list()),
    "deep group": deep_group,
    "wide group": lambda: ExceptionGroup("g", [ValueError(number) for number in range(5000)]),
    "large everything": lambda: raised_with_large_parts(),
    "notes that are none": lambda: with_notes_of(5),
    "notes of anything": lambda: with_notes_of([object()]),
    "unicode error that is changed": lambda: changed_unicode_error(),
    "recursion": lambda: raised(endless),
    "generator exit": lambda: GeneratorExit(),
    "memory": lambda: MemoryError(),
}


def endless() -> None:
    endless()


def with_notes_of(notes: Any) -> BaseException:
    error = ValueError("x")
    error.__notes__ = notes
    return error


def changed_unicode_error() -> BaseException:
    error = UnicodeDecodeError("utf-8", b"abc", 0, 1, "why")
    error.start, error.end = -5, 10**9
    return error


def raised_with_large_parts() -> BaseException:
    error = ExceptionGroup("ü" * 20_000, [OSError(1, "ü" * 20_000, "n" * 60_000) for _ in range(20)])
    for number in range(20):
        setattr(error, f"attribute_{number}", "ü" * 10_000)
    return error


@pytest.mark.parametrize("make", NASTY.values(), ids=NASTY)
def test_nothing_raises_whatever_the_exception_does(make: Callable[[], BaseException]) -> None:
    original = make()
    text = failures.record(original)
    assert text.isascii()
    assert len(text) <= codec.MAX_RECORD_BYTES
    rebuilt = failures.rebuild(text)
    assert type(rebuilt) is type(original) or type(rebuilt) is StepFailed
    assert type(rebuilt) is type(failures.rebuild(text))
    shown = failures.summary(text)
    assert shown is not None
    assert all(isinstance(shown[key], str) for key in ("type", "message", "traceback"))


def test_exception_that_cannot_be_looked_at_still_has_a_traceback() -> None:
    def fail() -> None:
        raise BrokenAttributes

    try:
        fail()
    except Exception as error:
        text = failures.record(error)
    assert "in fail" in failures.summary(text)["traceback"]  # type: ignore[index]


def test_exception_with_a_broken_text_keeps_its_type() -> None:
    assert type(there_and_back(BrokenText("x"))) is BrokenText
    assert there_and_back(BrokenText("x")).args == ("x",)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"type": "a", "message": "b"}', '{"nodes": 5}', "x" * 10**6])
def test_record_that_cannot_be_read_is_a_step_failed(text: str) -> None:
    assert type(failures.rebuild(text)) is StepFailed
    shown = failures.summary(text)
    assert shown is not None
    assert set(shown) == {"type", "message", "traceback", "step"}
    assert len(shown["message"]) < 10_000
    assert failures.summary(failures.with_steps(text, ["a"])) == shown | {"step": "a"}


# -- What people see -----------------------------------------------------------------------------


def test_summary_has_type_message_and_traceback() -> None:
    shown = failures.summary(failures.record(raised(from_cause)))
    assert shown is not None
    assert (shown["type"], shown["message"], shown["step"]) == (
        "tests.failures.test_failures.CardDeclined",
        "declined: fraud",
        None,
    )
    assert "in from_cause" in shown["traceback"]
    assert "KeyError: 'inner'" in shown["traceback"]
    assert failures.summary(failures.record(KeyError("a")))["type"] == "KeyError"  # type: ignore[index]
    assert failures.summary(None) is None


def test_record_names_the_step_and_is_the_same_otherwise() -> None:
    text = failures.record(CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal(1)))
    named = failures.with_steps(text, ["charge", "refund"])
    assert failures.summary(named) == failures.summary(text) | {"step": "charge"}  # type: ignore[operator]
    assert json.loads(named)["steps"] == ["charge", "refund"]
    assert same(failures.rebuild(named)) == same(failures.rebuild(text))
    assert failures.with_steps(named, []) == failures.with_steps(text, [])


@pytest.mark.parametrize("text", [failures.record(ValueError('"steps": []}')), "no record"])
@pytest.mark.parametrize("steps", [[], ["charge"], ['a "quoted"\\', "b]}", "é🙂"]])
def test_steps_that_a_record_names_are_read_from_its_end(text: str, steps: list[str]) -> None:
    named = failures.with_steps(text, steps)
    shown = steps[0] if steps else None
    assert failures.steps_named_at_the_end(named) == (steps, shown)
    assert failures.steps_named_at_the_end(named[-300:]) == (steps, shown)
    assert failures.steps_named_at_the_end(failures.with_steps(named, ["other"])) == (["other"], "other")


@pytest.mark.parametrize("text", ["", "no record", failures.record(KeyError("a")), '"step": "\\x", "steps": []}'])
def test_end_that_names_no_steps_gives_none(text: str) -> None:
    assert failures.steps_named_at_the_end(text) == ([], None)


def test_traceback_leaves_out_the_frames_of_this_package() -> None:
    from django_steps.durations import to_timedelta

    shown = failures.summary(failures.record(raised(lambda: to_timedelta("x"))))
    assert shown is not None
    assert "in raised" in shown["traceback"]
    assert "durations.py" not in shown["traceback"]
    assert "Not a duration" in shown["traceback"]


def test_long_traceback_keeps_its_beginning_and_its_end() -> None:
    def fail(depth: int) -> None:
        if depth == 0:
            raise ValueError("the end " + "ü" * 50_000 + " of the message")
        (other if depth % 2 else fail)(depth - 1)

    def other(depth: int) -> None:
        fail(depth)

    text = failures.record(raised(lambda: fail(300)))
    shown = failures.summary(text)
    assert shown is not None
    assert len(json.dumps(shown["traceback"])) <= 64 * 1024
    assert shown["traceback"].startswith("Traceback (most recent call last):")
    assert shown["traceback"].rstrip().endswith("of the message")
    assert "characters left out" in shown["traceback"]
    assert len(text) <= codec.MAX_RECORD_BYTES


def test_shown_texts_can_be_written_anywhere() -> None:
    shown = failures.summary(failures.record(ValueError("a\0\ud800b")))
    assert shown is not None
    assert shown["message"] == "a\\x00\\ud800b"
    (shown["message"] + shown["traceback"]).encode("utf-8")


def test_durations_and_paths_in_attributes_come_back() -> None:
    rebuilt: Any = there_and_back(with_attribute((timedelta(1), pathlib.PurePosixPath("/a"), ValueError)))
    assert rebuilt.value == (timedelta(1), pathlib.PurePosixPath("/a"), ValueError)


@pytest.mark.parametrize("made", [set, frozenset])
def test_set_among_the_arguments_comes_back_in_its_order_so_that_the_message_is_the_same(made: Any) -> None:
    names = made(f"name {number}" for number in range(30))
    assert list(names) != sorted(names)
    error = with_attribute([names])
    error.args = (names,)
    assert same(there_and_back(error)) == same(error)


# -- What is on disk -----------------------------------------------------------------------------


def nodes_of(exc: BaseException) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(failures.record(exc))["nodes"]
    return found


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (pathlib.PurePosixPath("/a"), '{"$":"path","of":"PurePosixPath","v":"/a"}'),
        (decimal.InvalidOperation, '{"$":"class","of":"decimal:InvalidOperation"}'),
        (KeyError("k"), '{"$":"exception","v":1}'),
        ([{"a": (KeyError("k"),)}], '[{"a":{"$":"tuple","v":[{"$":"exception","v":1}]}}]'),
        ({pathlib.PurePosixPath("/a")}, '{"$":"set","v":[{"$":"path","of":"PurePosixPath","v":"/a"}]}'),
    ],
)
def test_what_only_failures_hold_has_tags_of_its_own(argument: Any, text: str) -> None:
    error = ValueError(argument)
    assert nodes_of(error)[0]["args"] == f'{{"$":"tuple","v":[{text}]}}'
    assert same(there_and_back(error)) == same(error)


@pytest.mark.parametrize("value", [KeyError("k"), pathlib.PurePosixPath("/a"), ValueError, [KeyError("k")]])
def test_result_still_holds_no_exceptions_paths_and_classes(value: Any) -> None:
    with pytest.raises(errors.UnserializableResult):
        values.encode(value)


@pytest.mark.parametrize(
    "text", ['{"$":"exception","v":0}', '{"$":"path","of":"PosixPath","v":"/"}', '{"$":"class","of":"a:B"}']
)
def test_tags_of_failures_are_unknown_in_results(text: str) -> None:
    with pytest.raises(errors.UnreadableValue, match="which this version doesn't know"):
        values.decode(text)


@pytest.mark.parametrize("of", ["sys", "Path.home", "PathInfo", "os"])
def test_path_of_a_kind_that_is_no_path_is_unreadable(of: str) -> None:
    text = failures.record(ValueError(pathlib.PurePosixPath("/a"))).replace("PurePosixPath", of)
    assert type(failures.rebuild(text)) is StepFailed


def test_nodes_hold_nothing_that_rebuilding_has_no_use_for() -> None:
    (node,) = nodes_of(CardDeclined(reason=Reason.FRAUD, amount=decimal.Decimal(1), response=io.BytesIO()))
    assert set(node) == {"suppress", "cause", "context", "class", "args", "init", "attrs", "lost"}
    assert node["lost"] == ["response"]


def test_exception_of_a_model_is_named_by_where_users_import_it_from() -> None:
    error = WorkflowRun.DoesNotExist("no run")
    text = failures.record(error)
    assert json.loads(text)["type"] == "django_steps.models.WorkflowRun.DoesNotExist"
    assert nodes_of(error)[0]["class"] == "django_steps.models:WorkflowRun.DoesNotExist"
    assert same(failures.rebuild(text)) == same(error)


def test_exception_of_a_module_that_may_be_moved_is_shown_by_its_name_alone() -> None:
    text = failures.record(UnusedStub("charge"))
    assert "django_steps.testing" not in json.dumps({**json.loads(text), "traceback": ""})
    assert same(failures.rebuild(text)) == same(StepFailed("UnusedStub", "charge"))


# -- The record as an object ---------------------------------------------------------------------


def test_record_is_read_as_it_was_written() -> None:
    written = FailureRecord.of(raised(from_cause), ["charge", "refund"])
    read = FailureRecord.read(written.text)
    assert read == dataclasses.replace(written, nodes=list(written.nodes))
    assert (read.type, read.step, read.steps) == (
        "tests.failures.test_failures.CardDeclined",
        "charge",
        ("charge", "refund"),
    )
    assert read.text == written.text
    assert read.is_retryable and not FailureRecord.of(errors.NonRetryableError()).is_retryable


def test_columns_hold_type_and_step_as_they_are_shown() -> None:
    record = FailureRecord.of(KeyError("k"), ["charge", "refund"])
    assert record.columns == failures.columns(record.text) == ("KeyError", "charge")
    assert FailureRecord.of(Http404()).columns == ("django.http.response.Http404", "")
    assert failures.columns(None) == ("", "")


@pytest.mark.parametrize(
    "text", ["", "null", "{}", '{"type": 5, "step": 7, "steps": {}}', '{"type": "a\\u0000\\ud800"}']
)
def test_columns_of_a_damaged_record_are_texts_that_every_database_takes(text: str) -> None:
    for column in failures.columns(text):
        assert "\0" not in column
        column.encode()


def test_columns_of_a_long_type_hold_its_end() -> None:
    long = type("Long", (Exception,), {"__module__": "m" * 300})
    kind, _ = FailureRecord.of(long()).columns
    assert len(kind) == 255
    assert kind.endswith("mm.Long")


def test_traceback_of_the_rebuilt_exception_starts_where_it_is_raised_again() -> None:
    rebuilt = there_and_back(raised(from_cause))

    def raise_again() -> None:
        raise rebuilt

    assert raised(raise_again) is rebuilt
    assert "raise_again" in "".join(traceback.format_tb(rebuilt.__traceback__))
