"""What production refuses is refused in a `TestCase`, too; and the other way round."""

from __future__ import annotations

import asyncio
import signal

from django.contrib.auth.models import Group, Permission
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase, skipUnlessDBFeature

from django_steps import workflow
from django_steps.testing import run_workflow

from .workflows import kit_order


def one_step(name, function, **options):
    """A workflow with one step."""

    @workflow(name=name)
    def body(step):
        return step.define("do", function, **options).run()

    return body


class Behaviour:
    """What is the same in both kinds of test cases, and so in a worker."""

    def outcome_of(self, function, **options):
        """The result of a step, or the class of its error."""
        number = self.__dict__["_number"] = self.__dict__.get("_number", 0) + 1
        run = run_workflow(
            one_step(f"kit_strict_{type(self).__name__}_{self._testMethodName}_{number}", function, **options)
        )
        return run.error["type"].rpartition(".")[2] if run.error else run.result()

    @skipUnlessDBFeature("has_select_for_update")
    def test_locking_rows_needs_a_transaction(self):
        def lock():
            return list(Group.objects.select_for_update().values_list("name", flat=True))

        def lock_in_transaction():
            with transaction.atomic():
                return lock()

        Group.objects.create(name="g")
        self.assertEqual(self.outcome_of(lock), "TransactionManagementError")
        self.assertEqual(self.outcome_of(lock_in_transaction), ["g"])
        self.assertEqual(self.outcome_of(lock, atomic=True), ["g"])
        self.assertTrue(
            self.outcome_of(lambda: Group.objects.update_or_create(name="g", defaults={"name": "h"})[1] is False)
        )

    @skipUnlessDBFeature("can_defer_constraint_checks")
    def test_a_deferred_constraint_fails_where_the_transaction_ends(self):
        def write():
            Group.objects.create(name="g")
            Permission.objects.create(name="p", codename="p", content_type_id=987654)

        def write_in_transaction():
            try:
                with transaction.atomic():
                    write()
            except IntegrityError:
                return "refused"
            return "accepted"

        def write_and_correct():
            write()
            Permission.objects.filter(codename="p").delete()
            return "corrected"

        self.assertEqual(self.outcome_of(write, atomic=True), "IntegrityError")
        self.assertEqual(self.outcome_of(write_in_transaction), "refused")
        self.assertFalse(Group.objects.exists() or Permission.objects.filter(codename="p").exists())
        self.assertEqual(self.outcome_of(write_and_correct, atomic=True), "corrected")
        self.assertTrue(Group.objects.exists())

    @skipUnlessDBFeature("can_defer_constraint_checks")
    def test_a_deferred_constraint_fails_with_a_statement_outside_of_any_transaction(self):
        def write():
            Group.objects.create(name="before")
            Permission.objects.create(name="p", codename="p", content_type_id=987654)

        def update():
            Permission.objects.filter(pk=Permission.objects.first().pk).update(content_type_id=987654)

        def go_on():
            for attempt in (write, update):
                try:
                    attempt()
                except IntegrityError:
                    Group.objects.get_or_create(name="after")
            return Permission.objects.filter(content_type_id=987654).count()

        self.assertEqual(self.outcome_of(write), "IntegrityError")
        self.assertEqual(self.outcome_of(update), "IntegrityError")
        self.assertEqual(list(Group.objects.values_list("name", flat=True)), ["before"])
        Group.objects.all().delete()
        self.assertEqual(self.outcome_of(go_on), 0)
        self.assertEqual(set(Group.objects.values_list("name", flat=True)), {"before", "after"})

    @skipUnlessDBFeature("can_defer_constraint_checks")
    def test_a_step_may_go_on_after_a_transaction_that_a_constraint_has_refused(self):
        def write():
            for _ in range(2):
                try:
                    with transaction.atomic():
                        Permission.objects.create(name="p", codename="p", content_type_id=987654)
                except IntegrityError:
                    Group.objects.get_or_create(name="after")
            return Group.objects.count()

        self.assertEqual(self.outcome_of(write), 1)
        self.assertEqual(self.outcome_of(write, atomic=True), "IntegrityError")

    def test_signal_handlers_cannot_be_set(self):
        before = signal.getsignal(signal.SIGUSR1)

        def handle():
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

        self.assertEqual(self.outcome_of(handle), "ValueError")
        self.assertEqual(self.outcome_of(handle, atomic=True), "ValueError")
        self.assertEqual(self.outcome_of(lambda: asyncio.run(asyncio.sleep(0, "slept"))), "slept")
        self.assertEqual(signal.getsignal(signal.SIGUSR1), before)
        signal.signal(signal.SIGUSR1, before)

    def test_temporary_tables_are_gone_on_the_next_pass(self):
        for number, name in enumerate(("kit_temporary", connection.ops.quote_name("kit temporary"))):

            def ask(sql, name=name):
                with connection.cursor() as cursor:
                    cursor.execute(sql.format(name))
                    return cursor.fetchone()[0] if cursor.description else None

            def create(ask=ask):
                ask("CREATE TEMPORARY TABLE {} (number integer)")
                ask("INSERT INTO {} VALUES (7)")
                return ask("SELECT number FROM {}")

            @workflow(name=f"kit_temporary_{type(self).__name__}_{number}")
            def body(step, create=create, ask=ask):
                found = [step.define("create", create).run()]
                step.sleep("wait", "1d")
                try:
                    step.define("read", lambda: ask("SELECT number FROM {}")).run()
                except DatabaseError:
                    found.append(step.define("create again", create).run())
                return found

            self.assertEqual(run_workflow(body).result(), [7, 7])
            self.assertEqual(run_workflow(body, straight_through=True).result(), [7, 7])

    def test_temporary_tables_of_a_step_are_gone_in_the_next_one(self):
        def execute(sql):
            with connection.cursor() as cursor:
                cursor.execute(sql)

        for atomic in (False, True):

            @workflow(name=f"kit_temporary_{type(self).__name__}_of_step_{atomic}")
            def body(step, atomic=atomic):
                sql = "CREATE TEMPORARY TABLE kit_of_a_step (number integer)"
                step.define("create", execute, atomic=atomic).run(sql)
                step.define("read", execute).run("SELECT number FROM kit_of_a_step")

            run = run_workflow(body, straight_through=True)
            self.assertEqual((run.status, run.error and run.error["step"]), ("failed", "read"))

    def test_temporary_tables_of_the_test_stay(self):
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE kit_of_the_test (number integer)")
            run_workflow(kit_order, {"order": 1})
            cursor.execute("SELECT count(*) FROM kit_of_the_test")
            cursor.execute(f"DROP {'TEMPORARY' if connection.vendor == 'mysql' else ''} TABLE kit_of_the_test")

    def test_a_body_may_not_lock_rows_either(self):
        @workflow(name=f"kit_locks_in_body_{type(self).__name__}")
        def body(step):
            return len(Group.objects.select_for_update())

        run = run_workflow(body)
        expected = "TransactionManagementError" if connection.features.has_select_for_update else None
        self.assertEqual(run.error and run.error["type"].rpartition(".")[2], expected)


class InTestCase(Behaviour, TestCase):
    @skipUnlessDBFeature("has_select_for_update")
    def test_the_test_itself_may_lock_rows(self):
        run_workflow(kit_order, {"order": 1})
        self.assertEqual(len(Group.objects.select_for_update()), 0)


class InTransactionTestCase(Behaviour, TransactionTestCase):
    pass
