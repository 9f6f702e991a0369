"""Steps in a test see what they see in a worker: autocommit in a `TestCase`, and real commits in a `TransactionTestCase`."""

from __future__ import annotations

from contextvars import ContextVar

from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase

from django_steps import current_step, workflow
from django_steps.testing import drain, run_workflow
from tests.app import effects
from tests.app.models import Effect

from .workflows import kit_greeting, kit_order

tenant = ContextVar("tenant", default="none")


def make_twice(name):
    Group.objects.create(name=f"{name} before")
    Group.objects.create(name=name)
    Group.objects.create(name=name)


def make_and_go_on(name):
    Group.objects.create(name=name)
    try:
        Group.objects.create(name=name)
    except IntegrityError:
        Group.objects.filter(name="not there").delete()
        with transaction.atomic():
            Group.objects.get_or_create(name=f"{name} after")
        return Group.objects.count()


@workflow
def kit_writes(input, step):
    try:
        step.define("twice", make_twice, atomic=input["atomic"]).run("a")
    except IntegrityError:
        return step.define("go on", make_and_go_on).run("b")


@workflow
def kit_on_commit(input, step):
    def do():
        transaction.on_commit(lambda: effects.leave("outside"))
        with transaction.atomic():
            transaction.on_commit(lambda: effects.leave("inside"))
            effects.leave("function")
        try:
            with transaction.atomic():
                transaction.on_commit(lambda: effects.leave("rolled back"))
                raise OSError
        except OSError:
            pass
        if input.get("fails"):
            transaction.on_commit(lambda: 1 / 0)

    step.define("do", do, atomic=input["atomic"]).run()


def names():
    return set(Group.objects.values_list("name", flat=True))


class Behaviour:
    """What is the same in both kinds of test cases."""

    def test_a_statement_that_fails_takes_back_only_itself(self):
        run = run_workflow(kit_writes, {"atomic": False})
        self.assertEqual(run.result(), 4)
        self.assertEqual(names(), {"a before", "a", "b", "b after"})

    def test_an_atomic_step_that_fails_takes_back_everything_it_wrote(self):
        run = run_workflow(kit_writes, {"atomic": True})
        self.assertEqual(run.result(), 2)
        self.assertEqual(names(), {"b", "b after"})

    def test_an_error_of_the_database_does_not_spoil_the_test(self):
        @workflow(name=f"kit_spoils_{type(self).__name__}")
        def body(input, step):
            step.define("twice", make_twice).run("a")

        with self.assertLogs("django_steps.testing", "ERROR"):
            run = run_workflow(body)
        self.assertIn("IntegrityError", run.error["type"])
        self.assertEqual(names(), {"a before", "a"})

    def test_callbacks_of_commits_are_called(self):
        run = run_workflow(kit_on_commit, {"atomic": False})
        self.assertEqual(sorted(effects.names()), ["function", "inside", "outside"])
        run = run_workflow(kit_on_commit, {"atomic": True})
        self.assertEqual(run.status, "succeeded")
        self.assertEqual(sorted(effects.names()), ["function", "function", "inside", "inside", "outside", "outside"])

    def test_a_callback_that_fails_is_the_step_s_failure_unless_it_is_atomic(self):
        with self.assertLogs("django_steps", "ERROR"):
            run = run_workflow(kit_on_commit, {"atomic": False, "fails": True})
        self.assertEqual((run.status, run.error["step"]), ("failed", "do"))
        with self.assertLogs("django_steps", "ERROR"):
            run = run_workflow(kit_on_commit, {"atomic": True, "fails": True})
        self.assertEqual(run.status, "succeeded")

    def test_callbacks_of_commits_belong_to_the_step(self):
        for atomic in (True, False):
            found = []

            @workflow(name=f"kit_starts_on_commit_{type(self).__name__}_{atomic}")
            def body(input, step):
                def do():
                    tenant.set("acme")
                    transaction.on_commit(lambda: found.append((current_step().name, tenant.get())))  # noqa: B023
                    with transaction.atomic():
                        transaction.on_commit(lambda: kit_greeting.start({"name": "started on commit"}))

                step.define("do", do, atomic=input["atomic"]).run()

            Effect.objects.all().delete()
            with self.assertNoLogs("django_steps", "ERROR"):
                self.assertEqual(run_workflow(body, {"atomic": atomic}).status, "succeeded")
                drain()
            self.assertEqual(found, [("do", "acme")])
            self.assertEqual(effects.names(), ["hello started on commit", "bye started on commit"])

    def test_callbacks_of_what_a_failed_step_has_committed_are_called(self):
        @workflow(name=f"kit_fails_after_commit_{type(self).__name__}")
        def body(input, step):
            def do():
                with transaction.atomic():
                    transaction.on_commit(lambda: kit_greeting.start({"name": "started"}))
                raise OSError

            step.define("do", do, atomic=input["atomic"]).run()

        for atomic, names in ((False, ["hello started", "bye started"]), (True, [])):
            Effect.objects.all().delete()
            with self.assertLogs("django_steps.testing", "ERROR") as logs:
                self.assertEqual(run_workflow(body, {"atomic": atomic}).status, "failed")
            self.assertEqual(len(logs.output), 1, logs.output)
            drain()
            self.assertEqual(effects.names(), names)

    def test_a_step_in_a_transaction_of_the_body_is_an_error(self):
        @workflow(name=f"kit_body_atomic_{type(self).__name__}")
        def body(input, step):
            with transaction.atomic():
                step.define("inside", lambda: None).run()

        with self.assertLogs("django_steps.testing", "ERROR"):
            run = run_workflow(body)
        self.assertIn("StepInTransaction", run.error["type"])

    def test_a_durable_transaction_in_a_step_is_the_outermost(self):
        @workflow(name=f"kit_durable_{type(self).__name__}")
        def body(input, step):
            @step.define("durable")
            def durable():
                with transaction.atomic(durable=True):
                    Group.objects.create(name="durable")

            durable.run()

        self.assertEqual(run_workflow(body).status, "succeeded")

    def test_long_results_of_the_database_can_be_streamed(self):
        @workflow(name=f"kit_streams_{type(self).__name__}")
        def body(input, step):
            @step.define("stream")
            def stream():
                Group.objects.bulk_create(Group(name=str(number)) for number in range(20))
                return len([Group.objects.filter(pk=group.pk).get() for group in Group.objects.iterator(chunk_size=5)])

            return stream.run()

        self.assertEqual(run_workflow(body).result(), 20)

    def test_everything_that_drain_does_works_here(self):
        kit_order.start({"order": 1})
        drain()
        drain(advance="30d")
        self.assertEqual(effects.names(), ["charge", "ship"])

    async def test_async_code_calls_the_kit_through_sync_to_async(self):
        run = await kit_greeting.astart({"name": "a", "pause": "1d"})
        await sync_to_async(drain)()
        await sync_to_async(drain)(advance="1d")
        self.assertIsNone(await run.aresult())


class InTestCase(Behaviour, TestCase):
    def test_nothing_is_committed(self):
        run_workflow(kit_greeting, {"name": "a"})
        self.assertTrue(connection.in_atomic_block)


class InTransactionTestCase(Behaviour, TransactionTestCase):
    def test_steps_are_committed(self):
        @workflow(name="kit_sees_no_transaction")
        def body(input, step):
            return step.define("look", lambda: connection.in_atomic_block).run()

        self.assertIs(run_workflow(body).result(), False)
