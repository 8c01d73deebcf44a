# SPDX-License-Identifier: MIT
"""A class that a node refuses on this host is measured all the same, and it is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import share
from benchmarks.processes import BenchmarkError
from benchmarks.result import Result, Scale, single
from benchmarks.share import ALL_THE_SAME, TRIED, UNTRIED

LATE = "a node did not start: this host wakes up to 32 us late"
ROOT = Path(__file__).parents[2]


def test_who_is_refused_goes_on_without_the_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    def measure(program: object, scale: Scale, tell: object) -> Result:
        asked.append(program)
        if program == TRIED:
            raise BenchmarkError(LATE)
        return Result("share", "Share", (single("x", "s", 1.0),))

    monkeypatch.setattr(share, "_with", measure)
    assert share.run(Scale(), lambda *_: None).notes == (LATE, ALL_THE_SAME)
    assert asked == [TRIED, UNTRIED]


def test_another_failure_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(program: object, scale: Scale, tell: object) -> Result:
        raise BenchmarkError("the sink is gone")

    monkeypatch.setattr(share, "_with", measure)
    with pytest.raises(BenchmarkError, match="gone"):
        share.run(Scale(), lambda *_: None)


LATE_HOST = """
import runpy, sys
from mesh.core.clock import Clock
from mesh.errors import ConfigError
from mesh.node.pacer.histogram import LENGTH, TRIAL, Histogram
from mesh.node.pacer.lateness import Lateness

lateness = Histogram(bytearray(LENGTH))
for _ in range(1000):
    lateness.count(TRIAL, 0.003)
try:
    Lateness(lateness).check_class(Clock.RENEWAL, 15)
except ConfigError:
    print("refused")
sys.argv = ["mesh", "--version"]
try:
    runpy.run_module("benchmarks.untried", run_name="__main__")
except SystemExit as end:
    assert not end.code
Lateness(lateness).check_class(Clock.RENEWAL, 15)
"""


def test_the_program_without_the_trial_is_mesh_and_takes_every_class() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LATE_HOST],
        check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    refused, version = run.stdout.splitlines()
    assert refused == "refused"
    assert version.startswith("mesh ")
