# SPDX-License-Identifier: MIT
from dataclasses import dataclass
from pathlib import Path

import pytest

import benchmarks
from benchmarks.result import Result, Scale, Tell, single
from benchmarks.suite import PARTS, as_result, suite

SOON = {"goodput", "handshake"}
"""Parts whose modules are not there yet."""


def good(scale: Scale, tell: Tell) -> Result:
    tell("works", 0.5)
    return Result("good", "Good", (single("x", "s", scale.rounds),))


def bad(scale: Scale, tell: Tell) -> Result:
    raise RuntimeError("the sink has 3 of 4 messages")


def worse(scale: Scale, tell: Tell) -> Result:
    raise SystemExit("smtp-sink is not installed")


def test_what_fails_is_told_and_the_others_go_on() -> None:
    heard: list[tuple[str, str, float]] = []
    kept: list[int] = []
    report = suite(
        ["bad", "worse", "good"],
        Scale(rounds=7),
        lambda *said: heard.append(said),
        lambda report: kept.append(len(report.results)),
        lambda name: {"bad": bad, "worse": worse, "good": good}[name],
    )
    first, second, third = report.results
    assert first.failure.startswith("the sink has 3 of 4 messages")
    assert second.failure.startswith("smtp-sink is not installed")
    assert third.figures[0].value == 7
    assert not third.failure
    assert report.failed
    assert [said for name, said, _ in heard if name == "good"] == [
        "begins", "works", "done",
    ]  # fmt: skip
    assert ("bad", "failed", 1.0) in heard
    assert kept == [1, 2, 3]


def test_a_part_that_is_not_there_is_told() -> None:
    report = suite(["nothing"], Scale(), lambda *_: None)
    assert "nothing" in report.results[0].failure


def test_numbers_of_another_dataclass_are_figures() -> None:
    @dataclass
    class Found:
        bytes_a_second: float
        tls: str
        rounds: tuple[float, ...]

    result = as_result("goodput", Found(3e8, "TLS 1.3", (1.0, 2.0)))
    (figure,) = result.figures
    assert (figure.name, figure.value) == ("bytes a second", 3e8)
    assert result.settings == {"tls": "TLS 1.3", "rounds": "(1.0, 2.0)"}
    with pytest.raises(TypeError, match="no result"):
        as_result("goodput", 3)


@pytest.mark.parametrize("name", sorted(set(PARTS) - SOON))
def test_each_part_is_a_module(name: str) -> None:
    text = (Path(benchmarks.__file__).parent / f"{name}.py").read_text()
    assert "\ndef run(scale: Scale, tell: Tell) -> " in text
