"""The list of runs."""

from __future__ import annotations

from .conftest import add_step, failed_run, make_run, url


def test_list_shows_what_each_run_does_and_why_it_failed(root):
    failed_run(error=ValueError("card <declined>"))
    run = make_run("running", current_step="charge")
    add_step(run, "reserve")
    page = root.get(url("changelist")).content.decode()
    assert "ValueError: card &lt;declined&gt;" in page
    assert "1 step, now: charge" in page


def test_run_page_renders(root):
    run = failed_run()
    response = root.get(url("change", run.pk))
    page = response.content.decode()
    assert response.status_code == 200
    assert "card declined" in page
    assert "Retry from step “charge”" in page
