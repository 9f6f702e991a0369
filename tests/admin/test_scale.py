"""Where moments lie on the timeline."""

from __future__ import annotations

import pytest

from django_steps.admin.run.scale import Scale


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.0, 0, 0), (0.0005, 0, 0.1), (0.1, 0, 7), (40, 60, 66)])
def test_an_attempt_is_as_wide_as_it_deserves(seconds: float, least: float, most: float) -> None:
    scale = Scale(0, 86_400, [(100, 100 + seconds)])
    assert least <= scale.percent(100 + seconds) - scale.percent(100) <= most
    assert scale.percent(86_400) == 100
