"""The machine of `tests/engine/test_model.py` once more, for longer."""

from __future__ import annotations

import hypothesis
import pytest

from tests.engine.test_model import check, machine  # noqa: F401


@pytest.mark.faults
def test_interruptions_at_any_point_leave_no_trace_in_hundreds_of_histories(machine, report, seed):  # noqa: F811
    check(hypothesis.seed(seed)(machine), examples=150)
    report("model", histories=machine.counts["runs"], interruptions=machine.counts["interruptions"])
