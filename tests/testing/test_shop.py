"""The shop's workflows, tested the way its owner would: plain test cases, and nothing outside is there."""

from __future__ import annotations

from django.core import mail
from django.test import TestCase

from django_steps.testing import FakeStep, drain, run_workflow
from testproject.shop.api import ApiError
from testproject.shop.models import Customer, Order, Product, Service
from testproject.shop.services import OutOfStock
from testproject.shop.workflows import process_order, retry_with_delay, ship_order, sync_data, welcome_with_gift


class OrderTests(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.customer = Customer.objects.create(name="Ada", email="ada@example.com")
        cls.product = Product.objects.create(sku="TEA", name="Tea", price="4.50", stock=3)
        cls.order = Order.objects.create(customer=cls.customer, total="9.00")
        cls.input = {"order_id": cls.order.pk, "items": [{"sku": "TEA", "quantity": 2}], "email": "ada@example.com"}

    def test_an_order_takes_stock_and_is_confirmed(self):
        run = run_workflow(process_order, self.input, stubs={"validate_payment": "ch_1"})
        self.assertEqual(run.result(), {"ok": True})
        self.product.refresh_from_db()
        self.assertEqual(self.product.stock, 1)
        self.assertEqual(len(mail.outbox), 1)

    def test_when_the_mail_is_back_a_retry_takes_no_stock_again(self):
        Service.objects.create(name=Service.Name.MAIL, is_on=False)
        with self.assertLogs("django_steps.testing", "ERROR"):
            run = run_workflow(process_order, self.input, stubs={"validate_payment": "ch_1"})
        self.assertEqual((run.status, run.error["step"]), ("failed", "send_email"))
        Service.objects.update(is_on=True)
        run.retry()
        drain()
        self.assertEqual(run.result(), {"ok": True})
        self.product.refresh_from_db()
        self.assertEqual(self.product.stock, 1)

    def test_nothing_is_taken_when_there_is_too_little(self):
        items = [{"sku": "TEA", "quantity": 4}]
        with self.assertLogs("django_steps.testing", "ERROR"):
            run = run_workflow(process_order, {**self.input, "items": items}, stubs={"validate_payment": "ch_1"})
        self.assertIn("OutOfStock", run.error["type"])
        self.product.refresh_from_db()
        self.assertEqual(self.product.stock, 3)

    def test_a_customer_is_welcomed_later_also_without_a_gift(self):
        welcome_with_gift.start({"user_id": self.customer.pk, "gift": "TEA", "pause": "2d"})
        [run] = drain(stubs={"reserve_gift": OutOfStock("TEA", 1)})
        self.assertEqual((run.status, len(mail.outbox)), ("sleeping", 0))
        [run] = drain(advance="2d")
        self.assertEqual((run.result(), len(mail.outbox)), ({"gift": False}, 1))

    def test_each_parcel_gets_its_label_and_a_refused_one_is_booked_by_a_retry(self):
        parcels = [{"code": "A", "grams": 900}, {"code": "B", "grams": 2100}]
        stubs = {"parcel/book": "booking", "parcel#B/book": ApiError("/parcels/B", 400)}
        run = run_workflow(ship_order, {"order_id": self.order.pk, "parcels": parcels}, stubs=stubs)
        self.assertEqual((run.status, run.failed_step), ("failed", "parcel/book"))
        run.retry()
        drain(stubs={"parcel/book": lambda code, recipient: f"{code} to {recipient}"})
        self.assertEqual(run.result()["labels"][1], "B: B to Ada")
        self.assertEqual(run.result()["postage"], 12)


class PartnerTests(TestCase):
    def test_a_partner_that_fails_twice_is_asked_three_times(self):
        answers = iter([ApiError("/purchases/7", 503), ApiError("/purchases/7", 503), []])

        def fetch(user_id):
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        run = run_workflow(sync_data, {"user_id": 7}, stubs={"fetch_from_api": fetch})
        self.assertEqual(run.result(), {"count": 0})
        self.assertEqual(run.steps.get(name="fetch_from_api").attempts, 3)

    def test_a_loop_by_hand_gives_up_after_three_attempts(self):
        stubs = {f"attempt_{number}": ApiError("/unreliable", 503) for number in (1, 2, 3)}
        run = run_workflow(retry_with_delay, {"data": 1, "delay": "1h"}, stubs=stubs)
        self.assertEqual((run.status, run.error["step"]), ("failed", "attempt_3"))
        names = list(run.steps.values_list("name", flat=True))
        self.assertEqual(names, ["attempt_1", "retry_delay", "attempt_2", "retry_delay#2", "attempt_3"])

    def test_the_order_of_steps_needs_no_database(self):
        step = FakeStep(stubs={"validate_payment": "ch_1", "update_inventory": None, "send_email": None})
        process_order(input={"order_id": 1, "items": [], "email": "ada@example.com"}, step=step)
        self.assertEqual(step.names, ["validate_payment", "update_inventory", "send_email"])
