# SPDX-License-Identifier: MIT
"""A sample of the kill loop: what got a 250 arrives, once (scripts/kill-loop: more)."""

from pathlib import Path

from tests.system import kill_loop


def test_six_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    outcome = kill_loop.run(tmp_path, kills=6, seed=2, clock="renewal", cells="256")
    assert outcome.good, outcome
