# SPDX-License-Identifier: MIT
"""A sample of the power cuts (scripts/power-cut: more), and that they find what is planted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.power import cut
from tests.system.power.child import PLANTED

# Bugs that show in one node, which starts sooner than a link does.
ALONE = {"ack-before-commit", "no-directory-fsync", "one-arena-copy"}


def test_a_power_cut_loses_nothing(
    tmp_path: Path, tool: Callable[[str, str], str]
) -> None:
    tool("strace", "strace")
    outcome = cut.run(tmp_path, accepts=20, states=400, events=4)
    assert outcome.good, outcome.wrong


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found(
    tmp_path: Path, tool: Callable[[str, str], str], planted: str
) -> None:
    tool("strace", "strace")
    events = 0 if planted in ALONE else 1
    outcome = cut.run(tmp_path, 12, 1500, planted=planted, events=events)
    assert any(outcome.wrong.values())
