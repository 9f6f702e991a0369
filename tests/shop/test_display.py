"""How the demo is shown, in a terminal and in a pipe."""

from __future__ import annotations

import io

from rich.console import Console

from testproject.shop.demo.display import PlainDisplay, RunView, StepView, choose_display
from testproject.shop.demo.live import LiveDisplay


def view(status: str, *steps: StepView) -> RunView:
    return RunView("1", "process_order", status, where="", started="0.10 s", took="0.40 s", steps=list(steps))


def step(name: str, status: str, kind: str = "step") -> StepView:
    return StepView(name, status, kind, executed=2, started="0.20 s", took="0.30 s")


def test_each_change_is_one_plain_line(capsys):
    display = PlainDisplay()
    display.update([view("running", step("charge", "succeeded"))])
    display.update([view("running", step("charge", "succeeded"), step("pause", "sleeping", kind="sleep"))])
    display.update([view("waiting", step("paid", "waiting", kind="event"))])
    display.update([view("failed", step("charge", "succeeded"), step("ship", "failed"))])

    assert capsys.readouterr().out.split("\n") == [
        "  process_order: charge succeeded",
        "  process_order: paid waiting",
        "  process_order waiting",
        "  process_order: ship failed",
        "  process_order failed",
        "",
    ]


def test_the_plain_table_lines_up(capsys):
    PlainDisplay().table([view("succeeded", step("charge", "succeeded"))])

    assert capsys.readouterr().out.split("\n") == [
        "  run and its steps  status     executed  started at  took",
        "  process_order      succeeded            0.10 s      0.40 s",
        "    charge           succeeded  2         0.20 s      0.30 s",
        "",
    ]


def test_a_terminal_shows_a_mark_for_each_step_and_a_table_at_the_end():
    output = io.StringIO()
    display = LiveDisplay(Console(file=output, force_terminal=True, width=100, color_system=None))
    display.heading("Two workers")
    display.update([view("running", step("charge", "succeeded"), step("ship", "failed"))])
    display.check("it held", True)
    display.check("it broke", False)
    display.table([view("succeeded", step("charge", "succeeded"))])
    display.close()

    shown = output.getvalue()
    assert "✔✘" in shown
    assert "✔ it held" in shown
    assert "✘ DID NOT HOLD: it broke" in shown
    assert shown.index("DID NOT HOLD") < shown.index("started at")


def test_a_terminal_shows_an_address_in_one_piece():
    url = f"http://127.0.0.1:8000/{'long' * 50}/"
    output = io.StringIO()
    display = LiveDisplay(Console(file=output, force_terminal=True, width=60, color_system=None))
    display.address(url)
    display.close()
    assert f"  {url}" in output.getvalue()


def test_a_pipe_gets_plain_lines():
    assert isinstance(choose_display(), PlainDisplay)
