"""Sharing commits: what comes together is written together, and nobody waits for another one's lock or error."""

import ctypes
import threading
import time

import pytest
from django.conf import settings
from django.db import OperationalError, connection, connections

from django_steps.ledger import batches, claims, dialect, records, tables
from django_steps.ledger.records import Outcome
from django_steps.ledger.transitions import Finish
from django_steps.models import StepRecord
from django_steps.worker import group_commit as module
from django_steps.worker import writers as writers_module
from django_steps.worker.group_commit import GroupCommit
from django_steps.worker.writers import Writer
from tests.app.workflows import three_steps
from tests.staging import (
    Background,
    eventually,
    locked,
    lose_connection,
    make_terms,
    second_connection,
    status_of,
    step_write,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def group_commit():
    """A group commit whose connections are closed at the end: `group_commit(writers=2)`."""
    made = []

    def make(writers=1):
        made.append(GroupCommit("default", writers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def claim_many(count):
    runs = three_steps.start_many([{}] * count)
    found = {claimed.run_id: claimed for claimed in claims.claim(connection, make_terms(), count).runs}
    return runs, [found[run.pk] for run in runs]


def end_of(claimed):
    return Finish(run_id=claimed.run_id, token=claimed.token, status="succeeded", output="1", finished_at=claimed.now())


class Gate:
    """Holds up shared writes until it is opened, and counts them."""

    def __init__(self, monkeypatch):
        self.sizes, self.reached, self.open = [], threading.Event(), threading.Event()
        self.errors = []
        original = batches.write_many

        def write_many(connection, writes):
            self.sizes.append(len(writes))
            self.reached.set()
            assert self.open.wait(10)
            if self.errors and (error := self.errors.pop(0)) is not None:
                raise error
            return original(connection, writes)

        monkeypatch.setattr(batches, "write_many", write_many)


def commit_behind(queue, gate, first, others):
    """One write that is held up, and others that come meanwhile; their threads."""
    threads = [Background(lambda: queue.commit(first))]
    assert gate.reached.wait(10)
    for number, write in enumerate(others, 1):
        threads.append(Background(lambda write=write: queue.commit(write)))
        deadline = time.monotonic() + 5
        while len(queue._waiting) < number and time.monotonic() < deadline:
            time.sleep(0.001)
    gate.open.set()
    return threads


def test_what_comes_while_another_commit_is_under_way_shares_the_next_one(monkeypatch, group_commit):
    _, found = claim_many(6)
    gate, queue = Gate(monkeypatch), group_commit()
    writes = [step_write(claimed, "first") for claimed in found[:4]] + [end_of(claimed) for claimed in found[4:]]
    threads = commit_behind(queue, gate, writes[0], writes[1:])
    assert gate.sizes[0] == 1
    answers = [thread.result() for thread in threads]
    assert gate.sizes == [1, 5]
    # MySQL has no UPDATE that passes over a locked row: an end that comes alone is written on its own.
    assert answers == [True] * 6
    assert StepRecord.objects.count() == 4


def test_as_many_commits_are_under_way_as_there_are_writers_and_what_comes_then_waits_for_the_first_that_ends(
    monkeypatch, group_commit
):
    _, found = claim_many(5)
    gate, queue = Gate(monkeypatch), group_commit(writers=2)
    threads = [Background(lambda: queue.commit(step_write(found[0], "a")))]
    assert gate.reached.wait(10)
    threads.append(Background(lambda: queue.commit(step_write(found[1], "a"))))
    eventually(lambda: len(gate.sizes) == 2)
    for number, claimed in enumerate(found[2:], 1):
        threads.append(Background(lambda claimed=claimed: queue.commit(step_write(claimed, "a"))))
        eventually(lambda number=number: len(queue._waiting) == number)
    gate.open.set()
    for thread in threads:
        thread.result()
    assert gate.sizes[:2] == [1, 1] and sum(gate.sizes) == 5
    assert len(queue._idle) == 2


@pytest.mark.parametrize("writers", [1, 2])
def test_every_write_is_committed_once_however_they_come_together(writers, group_commit):
    _, found = claim_many(12)
    queue = group_commit(writers)

    def commit_all(claimed):
        for number in range(20):
            write = step_write(claimed, f"step {number}")
            if not queue.commit(write):
                with queue.connection() as lent:
                    assert records.record(lent, write) is Outcome.WRITTEN

    for thread in [Background(lambda claimed=claimed: commit_all(claimed)) for claimed in found]:
        thread.result()
    assert StepRecord.objects.count() == 12 * 20
    assert queue._waiting == [] and len(queue._idle) == writers


def test_a_commit_takes_at_most_64_writes(monkeypatch, group_commit):
    _, found = claim_many(70)
    gate, queue = Gate(monkeypatch), group_commit()
    threads = commit_behind(queue, gate, step_write(found[0], "a"), [step_write(claimed, "a") for claimed in found[1:]])
    assert all(thread.result() for thread in threads)
    assert gate.sizes == [1, 64, 5]
    assert StepRecord.objects.count() == 70


def test_a_body_goes_on_only_when_its_record_is_committed(group_commit):
    _, found = claim_many(1)
    assert group_commit().commit(step_write(found[0], "first"))
    with second_connection() as other, other.cursor() as cursor:
        cursor.execute(f"SELECT name FROM {tables.STEP}")
        assert cursor.fetchall() in ([("first",)], (("first",),))


def test_an_error_of_a_shared_commit_leaves_each_to_write_on_its_own(monkeypatch, group_commit):
    runs, found = claim_many(4)
    gate, queue = Gate(monkeypatch), group_commit()
    gate.errors = [None, OperationalError("deadlock")]
    threads = commit_behind(queue, gate, step_write(found[0], "a"), [step_write(claimed, "a") for claimed in found[1:]])
    assert [thread.result() for thread in threads] == [True, False, False, False]
    assert StepRecord.objects.count() == 1
    assert queue.commit(step_write(found[1], "a")) is True  # the lead was handed on
    assert runs


def test_an_error_of_a_lone_commit_is_raised_and_the_next_one_leads(monkeypatch, group_commit):
    _, found = claim_many(2)
    gate, queue = Gate(monkeypatch), group_commit()
    gate.errors = [OperationalError("gone"), None]
    threads = commit_behind(queue, gate, step_write(found[0], "a"), [step_write(found[1], "a")])
    with pytest.raises(OperationalError, match="gone"):
        threads[0].result()
    assert threads[1].result() is True


def test_a_thread_that_cannot_connect_does_not_keep_the_lead(monkeypatch, group_commit):
    _, found = claim_many(2)
    queue = group_commit()

    def refused(writer):
        raise OperationalError("no connection")

    connection.close()
    with monkeypatch.context() as patched:
        patched.setattr(Writer, "connection", refused)
        with pytest.raises(OperationalError):
            queue.commit(step_write(found[0], "a"))
    assert queue.commit(step_write(found[1], "a")) is True


def test_a_fenced_write_is_left_out_of_a_shared_commit(monkeypatch, group_commit):
    runs, found = claim_many(4)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {tables.RUN} SET claim_token = 1 WHERE id = %s", [dialect.key(connection, found[1].run_id)]
        )
    runs[2].cancel()
    gate, queue = Gate(monkeypatch), group_commit()
    threads = commit_behind(queue, gate, step_write(found[0], "a"), [step_write(claimed, "a") for claimed in found[1:]])
    assert [thread.result() for thread in threads] == [True, False, False, True]
    assert StepRecord.objects.count() == 2


def test_a_duplicate_is_left_out_of_a_shared_commit(monkeypatch, group_commit):
    _, found = claim_many(3)
    assert batches.write_many(connection, [step_write(found[1], "a")])
    gate, queue = Gate(monkeypatch), group_commit()
    gate.sizes.clear()
    threads = commit_behind(queue, gate, step_write(found[0], "a"), [step_write(claimed, "a") for claimed in found[1:]])
    assert [thread.result() for thread in threads] == [True, False, True]


@pytest.mark.parametrize("kind", ["record", "end"])
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_run_that_somebody_has_locked_holds_up_no_other(monkeypatch, kind, is_alone, group_commit):
    runs, found = claim_many(3)
    write = step_write if kind == "record" else lambda claimed, name: end_of(claimed)
    queue = group_commit()
    others = [write(claimed, "a") for claimed in found[1:]]
    with locked(runs[0]):
        held_up = Background(lambda: queue.commit(write(found[0], "a")))
        if is_alone:
            held_up.join(1)
        threads = [Background(lambda one=one: queue.commit(one)) for one in others]
        if connection.vendor != "sqlite":  # where whoever writes locks everything
            assert held_up.result(2) is False
            for thread in threads:
                thread.result(2)
    for thread in (held_up, *threads):
        thread.result()
    if kind == "record":
        written = set(StepRecord.objects.values_list("run_id", flat=True))
        assert {run.pk for run in runs[1:]} <= written


def test_an_end_leaves_the_run_ended():
    runs, found = claim_many(2)
    with_others = batches.write_many(connection, [end_of(claimed) for claimed in found])
    assert with_others == {run.pk for run in runs}
    assert [status_of(run) for run in runs] == ["succeeded", "succeeded"]
    assert all(run.output == 1 and run.finished_at is not None for run in runs)


# -- Writers that wait for something ---------------------------------------------------------------


class Stuck:
    """Threads that hold a connection of the group commit until they may go on, as if they waited for a lock."""

    def __init__(self, queue, count):
        self._go_on, held = threading.Event(), threading.Barrier(count + 1)

        def hold():
            with queue.connection():
                held.wait(10)
                assert self._go_on.wait(10)

        self._threads = [Background(hold) for _ in range(count)]
        held.wait(10)

    def go_on(self):
        self._go_on.set()
        for thread in self._threads:
            thread.result()


@pytest.fixture
def soon_long_held(monkeypatch):
    monkeypatch.setattr(module, "_LONG_HELD", 0.05)


if settings.DATABASE != "sqlite":  # where whoever writes waits for the same file

    def test_writers_that_are_held_for_long_hold_up_no_other_run(group_commit, soon_long_held):
        _, found = claim_many(6)
        queue = group_commit(writers=2)
        stuck = Stuck(queue, 2)
        writing = [Background(lambda one=one: queue.commit(step_write(one, "a"))) for one in found]
        assert [thread.result(5) for thread in writing] == [True] * 6
        assert len(queue._writers) == 3  # the spare one stays while it is needed
        stuck.go_on()
        holding = Stuck(queue, 3)  # all of them are in use, and none for long
        holding.go_on()
        eventually(lambda: len(queue._writers) == len(queue._idle) == 2)


def test_reader_takes_a_spare_connection_too(group_commit, soon_long_held):
    queue = group_commit()
    stuck = Stuck(queue, 1)

    def read():
        with queue.connection() as lent, lent.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone()

    assert Background(read).result(5) == (1,)
    stuck.go_on()


def test_thread_that_is_interrupted_while_it_waits_keeps_no_writer(group_commit):
    """Whatever is raised into a thread that waits, those behind it still get their turn."""
    _, found = claim_many(2)
    queue = group_commit()
    stuck = Stuck(queue, 1)
    waiting = Background(lambda: queue.commit(step_write(found[0], "a")))
    eventually(lambda: len(queue._waiting) == 1)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(waiting.ident), ctypes.py_object(KeyError))
    with pytest.raises(KeyError):
        waiting.result()
    stuck.go_on()
    assert Background(lambda: queue.commit(step_write(found[1], "a"))).result(5) is True
    assert queue._waiting == [] and len(queue._idle) == 1


# -- Whose connection ------------------------------------------------------------------------------


def own_connection_is_open():
    return connections["default"].connection is not None


def test_thread_without_a_connection_borrows_one(group_commit):
    _, found = claim_many(1)
    queue = group_commit()

    def write():
        assert queue.commit(step_write(found[0], "a"))
        with queue.connection() as lent:
            assert lent is not connections["default"]
            outcome = records.record(lent, step_write(found[0], "a"))
        return outcome, own_connection_is_open()

    assert Background(write).result() == (Outcome.TAKEN, False)


def test_thread_with_a_connection_uses_its_own(group_commit):
    _, found = claim_many(1)
    queue = group_commit()
    assert queue.commit(step_write(found[0], "a"))
    with queue.connection() as lent:
        assert lent is connections["default"]
    assert queue._writers[0]._connection is None


def test_connection_that_broke_while_it_was_lent_is_replaced(group_commit):
    queue = group_commit()

    def use():
        with queue.connection() as lent, lent.cursor() as cursor:
            cursor.execute("SELECT 1")
            return lent

    def break_it():
        with queue.connection() as lent, lent.cursor() as cursor:
            lose_connection(lent)
            cursor.execute("SELECT 1")

    first = Background(use).result()
    assert Background(use).result() is first
    if connection.vendor != "sqlite":
        with pytest.raises(OperationalError):
            Background(break_it).result()
        assert Background(use).result() is not first


def test_connection_that_the_server_closed_meanwhile_is_replaced_before_it_is_used(group_commit, monkeypatch):
    monkeypatch.setattr(writers_module, "_TRUSTED", 0.0)
    queue = group_commit()

    def use():
        with queue.connection() as lent, lent.cursor() as cursor:
            cursor.execute("SELECT 1")
            return lent, lent.connection

    lent, raw = Background(use).result()
    lose_connection(lent)
    _, other = Background(use).result()
    assert (other is raw) == (connection.vendor == "sqlite")


def test_unused_connections_are_closed_and_opened_again(group_commit):
    queue = group_commit(writers=2)

    def use():
        with queue.connection() as lent, lent.cursor() as cursor:
            cursor.execute("SELECT 1")
            return lent

    lent = Background(use).result()
    queue.close_unused(60)
    assert lent.connection is not None
    queue.close_unused(0)
    assert lent.connection is None and len(queue._idle) == 2
    assert Background(use).result().connection is not None


def test_connection_that_is_held_when_all_are_closed_is_closed_when_it_comes_back(group_commit):
    queue = group_commit()

    def use():
        with queue.connection() as lent, lent.cursor() as cursor:
            cursor.execute("SELECT 1")
            queue.close()
            assert lent.connection is not None
            return lent

    assert Background(use).result().connection is None
