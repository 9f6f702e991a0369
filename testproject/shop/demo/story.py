"""The story of the demo, in seven acts, and what has to hold at the end of each.

It judges by what the shop can see: its own log of activities, its stock, and what the services outside were asked.
What the workflows' own records say is only shown.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from uuid import UUID

from django.utils import timezone

from django_steps import StepsError
from django_steps.models import StepRecord, WorkflowRun

from .. import samples
from ..flaky_api import FlakyApi
from ..models import Activity, Customer, Product, Service
from ..payment_provider import PaymentProvider
from ..services import APPROVAL_LIMIT
from .display import Display, RunView, StepView
from .website import visit
from .workers import LEASE, WorkerProcess

PARCELS = [f"P-{number}" for number in range(1, 7)]
MANY = 200  # runs that wait at once
FEW = 20  # connections that a worker may have meanwhile
PATIENCE = 30  # seconds that anything may take before the demo gives up


class GaveUp(Exception):
    """Something that should have happened didn't, within `PATIENCE` seconds."""


class Story:
    """Tell it once, on an empty database: `Story(display, api, logs).tell()` returns what did not hold."""

    def __init__(self, display: Display, api: FlakyApi, logs: Path) -> None:
        self.display, self.api, self.logs = display, api, logs
        self.workers: list[WorkerProcess] = []
        self.broken: list[str] = []
        self._began = timezone.now()

    def tell(self) -> list[str]:
        try:
            self.start_runs()
            self.two_workers_execute_them()
            self.one_worker_is_killed()
            self.the_failed_order_is_retried()
            self.another_worker_is_killed_in_a_map()
            self.one_worker_waits_for_many_answers()
            self.a_large_order_waits_for_an_approval()
            self.its_customer_pays()
            self.stop_workers()
        except (GaveUp, StepsError) as error:
            self.broken.append(str(error))
            self._show_logs()
        finally:
            for worker in self.workers:
                if worker.is_alive:
                    worker.kill()
        self.display.heading("The runs of all acts but the sixth, and their steps")
        self.display.table(self._views())
        return self.broken

    # -- The acts --------------------------------------------------------------------------

    def start_runs(self) -> None:
        self.display.heading("1. The shop starts its workflows")
        samples.create_catalogue()
        ada, grace, third, _ = Customer.objects.order_by("pk")
        samples.switch(Service.Name.MAIL, on=False)
        self.api.fail(f"/purchases/{ada.pk}", times=1)
        self.api.fail("/jobs/stocktaking", times=2)
        self.push = f"/push/{third.device_token}"
        self.held = self.api.hold(self.push)

        self.order = samples.start_order(ada)
        self.notifications = samples.start_notifications()
        self.others = samples.start_others(ada, grace)
        self.held_step = f"notify_user_{third.pk}"
        self.display.say(f"{WorkflowRun.objects.count()} runs wait in the database for a worker.")
        self.display.say("The mail server is down: process_order will fail at its third step, send_email.")
        self.display.say(f"The push service will be slow to answer {self.held_step}.")

    def two_workers_execute_them(self) -> None:
        self.display.heading("2. Two workers execute them")
        for _ in range(2):
            self._start_worker()
        self._watch(
            lambda: self.held.has_call and all(run.is_finished for run in self._fresh(self.order, *self.others)),
            "everything but send_notifications should have ended",
        )
        self.order.refresh_from_db()
        self._check("process_order failed at its third step, send_email", self._failed_step(self.order) == "send_email")
        if self.order.error:
            self.display.say(f"  {self.order.error['type'].rpartition('.')[2]}: {self.order.error['message']}")
        self._check(
            f"the other {len(self.others)} succeeded, although two of the services they call failed at first",
            all(run.status == "succeeded" for run in self._fresh(*self.others)),
        )

    def one_worker_is_killed(self) -> None:
        killed_pid = self._executions(self.notifications, self.held_step)[0].process
        killed = next(worker for worker in self.workers if worker.pid == killed_pid)
        self.display.heading(f"3. kill -9 {killed.pid}, in the middle of {self.held_step}")
        killed.kill()
        self.display.say(f"The worker is gone; its run is free for the other when its lease of {LEASE} s has run out.")
        killed_at = time.monotonic()
        self._watch(lambda: self._fresh(self.notifications)[0].is_finished, "the other worker should have gone on")
        self.held.release()
        self.display.say(f"The run ended {time.monotonic() - killed_at:.1f} s after the kill.")

        interrupted = self._executions(self.notifications, self.held_step)
        other_steps = [activity for activity in self._executions(self.notifications) if activity.step != self.held_step]
        self._check(
            "send_notifications succeeded: worker "
            f"{interrupted[-1].process} went on where worker {killed_pid} was killed",
            self._fresh(self.notifications)[0].status == "succeeded" and interrupted[-1].process != killed_pid,
        )
        self._check(
            "the steps before were not executed again",
            len(other_steps) == len({activity.step for activity in other_steps}) == len(samples.CUSTOMERS) - 1,
        )
        self._check(
            f"{self.held_step} was executed twice, with one idempotency key: one message was delivered",
            (len(interrupted), self.api.calls(self.push), self.api.effects(self.push)) == (2, 2, 1),
        )

    def the_failed_order_is_retried(self) -> None:
        self.display.heading("4. The mail server is repaired, and the failed order retried")
        before = self._evidence(self.order)
        samples.switch(Service.Name.MAIL, on=True)
        self.order.retry()
        self._watch(lambda: self._fresh(self.order)[0].is_finished, "the retried order should have ended")
        after = self._evidence(self.order)
        self._check("process_order succeeded", self._fresh(self.order)[0].status == "succeeded")

        self.display.say(f"{'executed at':<18} {'before the retry':<24} after it")
        for name in ["validate_payment", "update_inventory", "send_email"]:
            self.display.say(f"{name:<18} {_times(before.get(name)):<24} {_times(after.get(name))}")
        self._check(
            "only send_email was executed again",
            {name for name in after if after[name] != before[name]} == {"send_email"} and len(after["send_email"]) == 2,
        )
        mug = Product.objects.get(sku="mug-1")
        self._check(
            f"the customer was charged once, and the stock went from 10 to {mug.stock}",
            mug.stock == 8 and self.api.calls(f"/charges/{self.order.input['order_id']}") == 1,
        )

    def another_worker_is_killed_in_a_map(self) -> None:
        self.display.heading("5. An order goes out in many parcels, and the worker that ships them is killed")
        self._start_worker()
        late = f"/parcels/{PARCELS[2]}"
        held, held_step = self.api.hold(late), f"parcel#{PARCELS[2]}/book"
        run = samples.start_shipping(Customer.objects.earliest("pk"), *PARCELS)
        self.display.say(f"{len(PARCELS)} parcels are shipped side by side. The carrier is slow to answer {held_step}.")
        self._watch(
            lambda: held.has_call and run.steps.filter(kind="branch").count() == len(PARCELS) - 1,
            "all other parcels should have been shipped",
        )
        recorded, before = set(run.steps.values_list("name", flat=True)), self._evidence(run)
        killed_pid = self._executions(run, held_step)[0].process
        self.display.say(
            f"All others are shipped: {len(recorded)} records. kill -9 {killed_pid}, in the middle of the map."
        )
        next(worker for worker in self.workers if worker.pid == killed_pid).kill()
        self._watch(lambda: self._fresh(run)[0].is_finished, "the other worker should have gone on with the map")
        held.release()

        after, last = self._evidence(run), self._executions(run)[-1].process
        self._check(
            f"ship_order succeeded: worker {last} went on where worker {killed_pid} was killed",
            self._fresh(run)[0].status == "succeeded" and last != killed_pid,
        )
        again = [name for name in after if name in recorded and after[name] != before[name]]
        self._check(f"of {len(recorded)} records none was executed again", len(recorded) == 17 and again == [])
        self._check(
            f"{held_step} was executed twice, with one idempotency key: one parcel was booked",
            (len(after[held_step]), self.api.calls(late), self.api.effects(late)) == (2, 2, 1),
        )
        self._check(
            "each label was printed once",
            all(len(after.get(f"parcel#{code}/label", ())) == 1 for code in PARCELS),
        )

    def one_worker_waits_for_many_answers(self) -> None:
        self.display.heading(f"6. {MANY} products are restocked, and the partner is slow to answer")
        skus = samples.stickers()[:MANY]
        held = [self.api.hold(f"/demand/{sku}") for sku in skus]
        samples.start_restocking(*skus, patience=PATIENCE, delivery="500ms")
        runs = WorkflowRun.objects.filter(workflow="restock")
        self.display.say("The body of restock is async def: all run on one event loop of the worker that is left.")
        self._watch(lambda: all(hold.has_call for hold in held), f"the partner should have been asked by {MANY} runs")
        [worker] = [worker for worker in self.workers if worker.is_alive]
        connections, running = worker.connections(), runs.filter(status="running").count()
        self._check(f"{MANY} runs wait for an answer at once, in process {worker.pid}", running == MANY)
        if connections is not None:
            self._check(f"it has {connections} connections to the database", connections <= FEW)
        for hold in held:
            hold.release()
        released_at = time.monotonic()
        self._watch(lambda: not runs.exclude(status="succeeded").exists(), f"all {MANY} runs should have succeeded")
        self.display.say(f"All have ended {time.monotonic() - released_at:.1f} s after the answers.")
        self._check(
            "each product was ordered once, and each delivery taken into the stock once",
            {self.api.effects(f"/purchase-orders/{sku}") for sku in skus} == {1}
            and set(Product.objects.filter(sku__in=skus).values_list("stock", flat=True)) == {120},
        )

    def a_large_order_waits_for_an_approval(self) -> None:
        self.display.heading(f"7. An order above {APPROVAL_LIMIT} EUR waits for an approval, and no worker is running")
        self.sale = sale = samples.start_sale(Customer.objects.earliest("pk"), "samovar-1", quantity=1)
        self._watch(lambda: self._fresh(sale)[0].status == "waiting", "take_order should have come to its wait")
        self.stop_workers()
        link = sale.event_url("approval")
        self.display.say("take_order has mailed a link to the manager, and waits up to 7 days. The link:")
        self.display.address(link)
        opened, again = visit(link), visit(link)
        self.display.say(f'Opened by GET, twice: {opened.status}, the page says "{opened.heading}".')
        self._check(
            "that changed nothing: no event, and the run waits",
            (opened.status, again.status, sale.events.count()) == (200, 200, 0)
            and self._fresh(sale)[0].status == "waiting",
        )
        pressed, again = visit(link, ok="true", note=""), visit(link, ok="false", note="")
        self.display.say(f'Its button Yes, by POST: {pressed.status}, "{pressed.heading}".')
        self.display.say(f'Then No, by POST: {again.status}, "{again.heading}".')
        self._check(
            "the first answer counts: one event lies there, for a worker to take",
            (pressed.status, again.status, sale.events.count()) == (202, 200, 1),
        )
        self._start_worker()
        self._watch(lambda: "paid" in self._fresh(sale)[0].waiting_for, "take_order should have come to its payment")
        self._check(
            "take_order went on where it was, and took the approval",
            sale.steps.get(name="approval").output["ok"] is True and len(self._evidence(sale)["ask"]) == 1,
        )

    def its_customer_pays(self) -> None:
        provider, sale = PaymentProvider(self.api), self.sale
        answers = [provider.pay(sale.key), provider.call_again(sale.key)]
        self.display.say("The customer pays. The payment provider calls the shop's webhook, and calls it once more.")
        self._watch(lambda: self._fresh(sale)[0].is_finished, "take_order should have ended")
        answers.append(provider.call_again(sale.key))
        samovar, took = Product.objects.get(sku="samovar-1"), self._time_from_payment_to_step(sale)
        self._check(f"the next step began {took * 1000:.0f} ms after the first call", 0 < took < PATIENCE)
        self._check(
            f"take_order succeeded; it was paid once, and the stock went from 1 to {samovar.stock}",
            self._fresh(sale)[0].status == "succeeded" and samovar.stock == 0 and sale.events.count() == 2,
        )
        self._check("the provider called three times, once after the end, and got 200 each time", answers == [200] * 3)

    def stop_workers(self) -> None:
        survivors = [worker for worker in self.workers if worker.is_alive]
        codes = [worker.stop() for worker in survivors]
        self._check("the worker stopped cleanly at SIGTERM", codes == [0])

    # -- Means -----------------------------------------------------------------------------

    def _start_worker(self) -> None:
        worker = WorkerProcess(self.logs / f"worker-{len(self.workers) + 1}.log")
        self.workers.append(worker)
        self.display.say(f"Worker {worker.pid} started.")

    def _check(self, text: str, holds: bool) -> None:
        self.display.check(text, holds)
        if not holds:
            self.broken.append(text)

    def _watch(self, is_over: Callable[[], bool], expectation: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_over():
            if time.monotonic() > deadline:
                raise GaveUp(f"after {PATIENCE} s: {expectation}")
            self.display.update(self._views())
            time.sleep(0.1)
        self.display.update(self._views())

    def _executions(self, run: WorkflowRun, step: str | None = None) -> list[Activity]:
        activities = Activity.objects.filter(run_id=run.pk).order_by("pk")
        return list(activities if step is None else activities.filter(step=step))

    def _evidence(self, run: WorkflowRun) -> dict[str, list[datetime]]:
        """When each step was executed, by the shop's own log."""
        times: dict[str, list[datetime]] = {}
        for activity in self._executions(run):
            times.setdefault(activity.step, []).append(activity.happened_at)
        return times

    def _time_from_payment_to_step(self, run: WorkflowRun) -> float:
        """Seconds from the event's INSERT to the begin of the step after the wait."""
        [step] = self._executions(run, "mark_paid")
        return (step.happened_at - run.events.get(name="paid").sent_at).total_seconds()

    def _failed_step(self, run: WorkflowRun) -> str | None:
        return run.error["step"] if run.status == "failed" and run.error else None

    def _fresh(self, *runs: WorkflowRun) -> list[WorkflowRun]:
        return list(WorkflowRun.objects.filter(pk__in=[run.pk for run in runs]))

    def _views(self) -> list[RunView]:
        executions = Counter(Activity.objects.values_list("run_id", "step"))
        # Those of the sixth act are too many to be shown one by one.
        runs = (
            WorkflowRun.objects.exclude(workflow="restock")
            .order_by("pk")
            .select_related("worker")
            .prefetch_related("steps")
        )
        return [self._view(run, executions) for run in runs]

    def _view(self, run: WorkflowRun, executions: Counter[tuple[UUID | None, str]]) -> RunView:
        return RunView(
            id=str(run.pk),
            name=run.workflow,
            status=run.status,
            where=self._where(run),
            started=self._since_begin(run.started_at),
            took=_duration(run.started_at, run.finished_at),
            steps=[
                StepView(
                    name=step.name,
                    status=_status(step),
                    kind=step.kind,
                    executed=executions[run.pk, step.name],
                    started=self._since_begin(step.started_at),
                    took=_duration(step.started_at, step.wakes_at if step.kind == "sleep" else step.finished_at),
                )
                for step in run.steps.all()
            ],
        )

    def _where(self, run: WorkflowRun) -> str:
        if run.status == "running" and run.worker:
            return f"{run.current_step} worker {run.worker.pid}".strip()
        if run.status == "waiting":
            return f"for {' or '.join(run.waiting_for)}"
        if run.wakes_at:
            return f"until {run.wakes_at:%H:%M:%S}"
        return ""

    def _since_begin(self, moment: datetime | None) -> str:
        return _duration(self._began, moment)

    def _show_logs(self) -> None:
        for worker in self.workers:
            self.display.heading(f"The last lines of worker {worker.pid}, {worker.log}")
            self.display.say(worker.last_lines())


def _times(moments: Iterable[datetime] | None) -> str:
    return ", ".join(f"{moment:%H:%M:%S.%f}"[:-4] for moment in moments or [])


def _status(step: StepRecord) -> str:
    """A sleep is over when its time has passed; its record keeps saying that it waits."""
    if step.kind != "sleep" or step.status != "waiting" or step.wakes_at is None:
        return step.status
    return "sleeping" if step.wakes_at > timezone.now() else "succeeded"


def _duration(start: datetime | None, end: datetime | None) -> str:
    return f"{(end - start).total_seconds():.2f} s" if start and end else ""
