"""What an operator does: find out what failed, why, and put it right, in a browser and with real workers."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from playwright.sync_api import expect

from django_steps.models import WorkflowRun
from testproject.shop.flaky_api import FlakyApi
from testproject.shop.models import Activity, Customer, Order, Product, Service
from testproject.shop.samples import switch
from testproject.shop.workflows import process_order
from tests.app.workflows import sleeper, slow_middle, three_steps
from tests.staging import eventually

RUNS = "/admin/django_steps/workflowrun/"


def address(run):
    return f"{RUNS}{run.pk}/change/"


def status_of(page):
    return page.locator(".steps-now .steps-status")


@pytest.fixture
def api():
    with FlakyApi() as api:
        yield api


@pytest.fixture
def worker(start_worker, api, tmp_path):
    return start_worker("--poll-interval", "0.1", environment={"SHOP_API_URL": api.url})


@pytest.fixture
def failed_orders(worker):
    """Orders whose last step failed, since the mail service is off: `failed_orders(2)`."""
    customer = Customer.objects.create(name="Ada", email="ada@example.com", device_token="phone")
    Product.objects.create(sku="mug", name="Mug", price=Decimal("7.50"), stock=100)
    switch(Service.Name.MAIL, on=False)

    def start(count=1):
        runs = []
        for _number in range(count):
            order = Order.objects.create(customer=customer, total=Decimal("15.00"))
            items = [{"sku": "mug", "quantity": 2}]
            values = {"order_id": order.pk, "items": items, "email": customer.email}
            runs.append(process_order.start(values, key=f"order-{order.pk}"))
        eventually(lambda: WorkflowRun.objects.filter(status="failed").count() == count)
        return runs

    return start


def test_one_order_failed_and_is_fixed_from_the_admin(open_page, admin_user, failed_orders):
    (run,) = failed_orders()
    three_steps.start({}).result(timeout=10)
    page = open_page()
    page.goto("/admin/")
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill("night shift")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Workflow runs").first.click()
    page.get_by_role("link", name="failed", exact=True).click()
    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("ServiceDown")
    rows.first.get_by_role("link").first.click()

    expect(page.get_by_role("heading", name="Step “send_email” failed")).to_be_visible()
    expect(page.locator(".steps-error")).to_contain_text("switched off")
    page.get_by_text("Traceback", exact=True).click()
    expect(page.locator("#steps-traceback pre")).to_contain_text("send_plain_email")

    page.goto("/admin/shop/service/")
    page.locator("input[name=form-0-is_on]").check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".messagelist .success")).to_be_visible()

    page.goto(address(run))
    page.get_by_role("link", name="Retry from step “send_email”").click()
    expect(page.locator(".steps-ask")).to_contain_text("The results of 2 other steps are kept")
    page.get_by_role("button", name="Retry from step “send_email”").click()
    expect(page.locator(".messagelist")).to_contain_text("Retried: the run continues with step “send_email”.")
    expect(status_of(page)).to_have_text("succeeded")  # the page follows the run by itself
    expect(page.locator(".steps-error")).to_have_count(0)
    assert Activity.objects.filter(run_id=str(run.pk), step="validate_payment").count() == 1


def test_sleeping_run_is_canceled(log_in, worker):
    run = sleeper.start({"duration": "1h"})
    eventually(lambda: WorkflowRun.objects.get().status == "sleeping")
    page = log_in()
    page.goto(address(run))
    expect(page.locator(".steps-now")).to_contain_text("waits until")
    page.get_by_role("link", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(status_of(page)).to_have_text("canceled")
    assert WorkflowRun.objects.get().status == "canceled"


def test_retry_from_a_step_executes_it_again(log_in, failed_orders):
    (run,) = failed_orders()
    switch(Service.Name.MAIL, on=True)
    page = log_in()
    page.goto(address(run))
    page.get_by_role("link", name="Retry from here (update_inventory)").click()
    expect(page.locator(".steps-ask")).to_contain_text("So is the 1 step recorded after it")
    page.get_by_role("button", name="Retry from step “update_inventory”").click()
    expect(status_of(page)).to_have_text("succeeded")
    assert Activity.objects.filter(run_id=str(run.pk), what="reserve stock").count() == 2
    assert Activity.objects.filter(run_id=str(run.pk), what="charge").count() == 1


def test_many_are_retried_at_once(log_in, failed_orders):
    failed_orders(3)
    three_steps.start({}).result(timeout=10)
    switch(Service.Name.MAIL, on=True)
    page = log_in()
    page.goto(RUNS)
    page.locator("#action-toggle").check()
    page.get_by_label("Action:").select_option(label="Retry selected runs")
    page.get_by_role("button", name=re.compile("^(Go|Run)")).click()
    expect(page.locator(".steps-ask")).to_contain_text("3 runs will be retried")
    page.get_by_role("button", name="Retry").click()
    done = "3 retried (from step “send_email”), 1 skipped: already succeeded"
    expect(page.locator(".messagelist")).to_contain_text(done)
    eventually(lambda: WorkflowRun.objects.filter(status="succeeded").count() == 4)


def test_order_is_found_by_a_part_of_its_key(log_in, failed_orders):
    _first, run = failed_orders(2)
    page = log_in()
    page.goto(RUNS)
    page.locator("#searchbar").fill(run.key.removeprefix("or"))
    page.get_by_role("button", name="Search").first.click()
    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text(run.key)
    rows.first.get_by_role("link").first.click()
    expect(page.get_by_role("heading", name=run.key)).to_be_visible()


def test_everything_works_from_the_keyboard(log_in, failed_orders):
    failed_orders()
    switch(Service.Name.MAIL, on=True)
    page = log_in()
    page.goto(f"{RUNS}?status__exact=failed")
    tab_to(page, "th.field-run_name a")
    enter(page)
    tab_to(page, ".steps-tool.primary")
    tab_to(page, ".steps-row")
    expect(page.locator(".steps-row:focus .steps-detail")).to_be_visible()
    page.goto(page.url)
    tab_to(page, ".steps-tool.primary")
    enter(page)
    tab_to(page, ".submit-row input[type=submit]")
    enter(page)
    expect(status_of(page)).to_have_text("succeeded")


def tab_to(page, selector):
    """Press Tab until the element has the focus, and check that this can be seen."""
    for _press in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            break
    else:
        raise AssertionError(f"{selector} can't be reached from the keyboard")
    mark = "e => getComputedStyle(e).outlineStyle + getComputedStyle(e.querySelector('rect') || e).stroke"
    assert page.evaluate(f"({mark})(document.activeElement)") != "nonenone"


def enter(page):
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_page_of_a_running_run_follows_it_and_keeps_what_is_unfolded(log_in, worker):
    run = slow_middle.start({"seconds": 4})
    page = log_in()
    eventually(lambda: WorkflowRun.objects.get().steps.exists())
    page.goto(address(run))
    page.locator("#steps-value-1 summary").click()
    expect(page.locator("#steps-value-1 pre")).to_be_hidden()
    expect(status_of(page)).to_have_text("succeeded")
    expect(page.locator("#steps-value-1 pre")).to_be_hidden()
    expect(page.get_by_role("row", name="slow")).to_be_visible()


def test_date_range_and_calendar_work_under_the_policy(log_in, worker):
    run = three_steps.start({})
    run.result(timeout=10)
    page = log_in()
    page.goto(RUNS)
    form = page.locator("form[id^=created-at]")
    form.locator("input").first.fill("2020-01-01")
    form.locator("input[type=text]").nth(1).fill("2020-01-31")
    form.get_by_role("button", name="Search").click()
    expect(page.locator(".paginator")).to_contain_text("0 workflow runs")
    page.goto(RUNS)
    page.locator("form[id^=created-at] .datetimeshortcuts a", has_text="Today").first.wait_for(state="attached")


def test_workflow_is_started_with_a_form(log_in, worker):
    page = log_in()
    page.goto(RUNS)
    page.get_by_role("link", name="Start a workflow").click()
    page.get_by_role("link", name="three_steps", exact=True).click()
    page.get_by_label("Input").fill("{not json")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".errornote")).to_be_visible()
    page.get_by_label("Input").fill('{"a": 1}')
    page.get_by_role("button", name="Start").click()
    expect(status_of(page)).to_have_text("succeeded")


def test_page_rests_while_its_tab_is_hidden(log_in, worker):
    run = sleeper.start({"duration": "1h"})
    eventually(lambda: WorkflowRun.objects.get().status == "sleeping")
    page = log_in()
    requests = []
    page.goto(address(run))
    page.on("request", lambda request: requests.append(request.url))
    with page.expect_request(lambda request: request.url.endswith(address(run))):
        pass
    page.evaluate(
        "() => { Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    requests.clear()
    page.wait_for_timeout(2500)
    assert requests == []
