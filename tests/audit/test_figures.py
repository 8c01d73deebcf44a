# SPDX-License-Identifier: MIT
"""What counts as shown, and what as held."""

import math
from dataclasses import replace

import pytest

from mesh.audit.figures import Control, Figure

FOUND = Control("greedy", 0.99, "> 0.9", found=True)
NOT_FOUND = Control("1 ms late", 0.52, "> 0.9", found=False)
GOOD = Figure("idle or busy", "learned", 0.5, 0.51, 0.52, "AUC", 100, "", (FOUND,))


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (GOOD, "holds"),
        (replace(GOOD, upper=0.52), "holds"),
        (replace(GOOD, upper=0.521), "missed"),
        (replace(GOOD, upper=math.nan), "missed"),
        (replace(GOOD, bound=None), "open"),
        (replace(GOOD, controls=()), "not shown"),
        (replace(GOOD, controls=(FOUND, NOT_FOUND)), "not shown"),
        (replace(GOOD, controls=(), bound=None), "not shown"),
        (replace(GOOD, upper=0.9, bound=0.9, at_least=True), "holds"),
        (replace(GOOD, upper=0.89, bound=0.9, at_least=True), "missed"),
        (replace(GOOD, upper=math.nan, bound=0.9, at_least=True), "missed"),
    ],
)
def test_a_figure_without_a_control_that_was_found_is_never_good(
    figure: Figure, verdict: str
) -> None:
    assert figure.verdict == verdict
    assert figure.holds == (verdict == "holds")
    assert figure.shown == (verdict != "not shown")
