# SPDX-License-Identifier: MIT
from dataclasses import dataclass
from pathlib import Path

import pytest

import benchmarks
from benchmarks.result import Report, Result, Scale, Series, Tell, single
from benchmarks.suite import MINUTES, PARTS, SIDES, UNFINISHED, reason, repeated, suite


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


def rows(scale: Scale, tell: Tell) -> Result:
    """Find one thing, say so, and then break, or be broken off."""
    scale.found(Result("rows", "Rows", (single("x", "s", 1.0),)))
    if scale.rounds == 1:
        raise KeyboardInterrupt
    raise RuntimeError("the sink is gone")


def test_what_was_found_before_a_failure_is_kept() -> None:
    kept: list[Report] = []
    report = suite(
        ["good", "rows"], Scale(), lambda *_: None, kept.append,
        lambda name: {"rows": rows, "good": good}[name],
    )  # fmt: skip
    last = report.results[1]
    assert last.figures[0].value == 1
    assert last.failure.startswith("the sink is gone")
    assert [len(each.results) for each in kept] == [1, 2, 2]


def test_a_run_that_is_ended_has_what_it_has() -> None:
    kept: list[Report] = []
    with pytest.raises(KeyboardInterrupt):
        suite(["rows"], Scale(rounds=1), lambda *_: None, kept.append, lambda _: rows)
    [report] = kept
    assert report.results[0].figures[0].value == 1
    assert report.results[0].failure == UNFINISHED
    assert report.failed


def test_how_long_each_part_takes_is_said() -> None:
    assert list(MINUTES) == list(PARTS)


def test_a_part_that_is_not_there_is_told() -> None:
    report = suite(["nothing"], Scale(), lambda *_: None)
    assert "nothing" in report.results[0].failure


@dataclass
class Found:
    """As such a part gives it."""

    messages: int
    octets_per_second: dict[str, float]
    cpu_ms_per_mb: dict[str, float]


def test_a_part_that_measures_both_sides_is_asked_each_round() -> None:
    asked: list[int] = []

    def measure(messages: int = 200) -> Found:
        asked.append(messages)
        rate = 100.0 * len(asked)
        return Found(
            messages, {"stunnel": 2 * rate, "mesh": rate}, {"stunnel": 1, "mesh": 3}
        )

    result = repeated("goodput", measure, Scale(rounds=3), lambda *_: None)
    rate, cpu = result.figures
    assert asked == [200] * 3
    assert rate.ours == Series("mesh", (100.0, 200.0, 300.0))
    assert (rate.value, rate.bound, rate.verdict) == (0.5, 0.4, "holds")
    assert not cpu.at_least
    assert cpu.verdict == "open"
    assert result.settings == {"messages": "200"}
    repeated("goodput", measure, Scale(is_quick=True, rounds=1), lambda *_: None)
    assert asked[-1] == 5


@pytest.mark.parametrize("name", sorted(set(PARTS) - set(SIDES)))
def test_each_part_is_a_module(name: str) -> None:
    text = (Path(benchmarks.__file__).parent / f"{name}.py").read_text()
    assert "\ndef run(scale: Scale, tell: Tell) -> " in text


def test_of_what_failed_together_the_first_is_told() -> None:
    inner = ExceptionGroup("inner", [RuntimeError("the server is gone")])
    assert reason(ExceptionGroup("outer", [inner])) == "the server is gone"
