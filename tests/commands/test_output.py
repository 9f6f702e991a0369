"""How commands lay things out: tables fit, notes find room, progress leaves nothing behind."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management.base import OutputWrapper

from django_steps.presentation import output


def test_a_table_is_cut_to_the_width_of_the_terminal():
    lines = output.table(["ONE", "TWO", "THREE"], [["a" * 10, "b" * 40, "c" * 20]], width=60, shrink=1)

    assert [len(line) for line in lines[1:]] == [60]
    assert lines[1] == f"{'a' * 10}  {'b' * 25}…  {'c' * 20}"


def test_a_table_that_goes_into_a_file_is_not_cut():
    assert output.table(["ONE"], [["a" * 500]])[1] == "a" * 500


def test_colours_do_not_disturb_a_table():
    paint = {"failed": lambda text: f"\x1b[31m{text}\x1b[0m"}
    lines = output.table(["STATUS", "NAME"], [["failed", "a"], ["pending", "b"]], paint=paint)
    assert lines == ["STATUS   NAME", "\x1b[31mfailed\x1b[0m   a", "pending  b"]
    assert [output.visible_length(line) for line in lines] == [13, 10, 10]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (None, ["RUN  NAME", "1    one   why it failed, at some length", "2    two"]),
        (80, ["RUN  NAME", "1    one   why it failed, at some length", "2    two"]),
        (20, ["RUN  NAME", "1    one", "  why it failed, at…", "2    two"]),
    ],
)
def test_notes_are_beside_their_rows_where_there_is_room_and_below_elsewhere(width, lines):
    rows = ["RUN  NAME", "1    one", "2    two"]
    assert output.with_notes(rows, ["why it failed, at some length", ""], width) == lines


def test_progress_is_shown_on_a_terminal_only():
    plain = StringIO()
    with output.Progress(OutputWrapper(plain)) as progress:
        progress.show("1 of 2")
    assert plain.getvalue() == ""


def test_progress_leaves_nothing_behind_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    with output.Progress(OutputWrapper(terminal)) as progress:
        progress.show("1 of 2")
    assert terminal.getvalue() == "\r1 of 2\r      \r"
