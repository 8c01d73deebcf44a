# SPDX-License-Identifier: MIT
"""A sample of the power cuts (scripts/power-cut: more), and that they find what is planted."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.power import cut
from tests.system.power.calls import Call, read
from tests.system.power.medium import Cut, Left, Medium, Tree


@pytest.fixture
def strace(tool: Callable[[str, str], str]) -> str:
    return tool("strace", "strace")


@pytest.mark.usefixtures("strace")
def test_a_power_cut_loses_nothing(tmp_path: Path) -> None:
    outcome = cut.run(tmp_path, accepts=16, states=450, events=4)
    assert outcome.good, outcome.wrong


def recorded_with(tmp_path: Path, *planted: str, events: int = 0) -> Path:
    """A short recording; without events of one node, which starts sooner than a link."""
    home = tmp_path / "story"
    home.mkdir()
    cut.record(home, accepts=8, seed=1, planted=",".join(planted), events=events)
    return home


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(
    ("planted", "events"),
    [("no-directory-fsync", 0), ("slot-overwritten-before-reply", 1)],
)
def test_a_planted_bug_loses_what_was_accepted(
    tmp_path: Path, planted: str, events: int
) -> None:
    home = recorded_with(tmp_path, planted, events=events)
    # Where all that is not certain is lost: nothing needs to be drawn.
    outcome = cut.judge(home, 1, 0, enough=lambda found: bool(found.wrong["lost"]))
    assert outcome.wrong["lost"]


@pytest.mark.usefixtures("strace")
def test_two_planted_bugs_are_told_apart(tmp_path: Path) -> None:
    """The one loses what was accepted, the other damages it, and neither does both."""
    home = recorded_with(tmp_path, "ack-before-commit", "one-arena-copy")
    # A copy is missed when the other one is torn after the keys of both have changed.
    torn = ("torn",) * cut.AT_ONCE
    outcome = cut.judge(home, 1, 1500, enough=both, late=0.7, losses=torn)
    assert both(outcome), outcome.wrong


def both(outcome: cut.Outcome) -> bool:
    return bool(outcome.wrong["lost"] and outcome.wrong["corrupt"])


# The rebuilt disk itself.

HELD: Tree = {"tmp": {"x": b"old"}, "new": {}}


def recorded(tmp_path: Path, *lines: str) -> list[Call]:
    trace = tmp_path / "trace"
    trace.write_text("".join(f"{line}\n" for line in lines))
    return list(read(trace))


def test_what_a_killed_process_was_doing_counts_when_the_files_show_it(
    tmp_path: Path,
) -> None:
    rename = r'7 rename("\x2f\x61\x2f\x74\x6d\x70\x2f\x78", "\x2f\x61\x2f\x6e\x65\x77\x2f\x78"'
    for end in (") = ?", " <unfinished ...>"):
        [call] = recorded(tmp_path, rename + end)
        assert call.killed
        done = Medium("/a", HELD)
        assert not done.feed(call)
        assert done.settle({"tmp": {}, "new": {"x": b"old"}})
        assert done.find("/a/new/x")
        assert cut_of(done).at("new/x") is None
        done.feed(Call("fsync", 9, 9, paths=["/a/new"]))
        assert cut_of(done).at("new/x") is not None
        not_done = Medium("/a", HELD)
        not_done.feed(call)
        assert not not_done.settle({"tmp": {"x": b"old"}, "new": {}})
        assert not_done.find("/a/new/x") is None


def cut_of(medium: Medium) -> Left:
    return Cut("nothing", random.Random(1)).of(medium.root)  # noqa: S311


def test_a_write_that_a_kill_ended_counts_as_far_as_it_lies_there() -> None:
    medium = Medium("/a", HELD)
    words = ["5", "3"]
    medium.feed(Call("pwrite64", 1, 1, [b"12345"], ["/a/tmp/x"], words, killed=True))
    assert medium.settle({"tmp": {"x": b"old12"}, "new": {}})


def test_what_a_signal_interrupted_did_nothing(tmp_path: Path) -> None:
    assert not recorded(tmp_path, "7 recvfrom(3, 4096) = ? ERESTARTSYS (restarted)")


def test_a_disk_that_is_not_as_the_calls_made_it_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"as calls made them: tmp/x$"):
        Medium("/a", HELD).settle({"tmp": {"x": b"new"}, "new": {}})


@pytest.mark.parametrize(
    "call",
    [
        Call("rename", 1, 1, [b"/a/tmp/y", b"/a/new/y"]),
        Call("unlink", 1, 1, [b"/a/tmp/y"]),
        Call("fsync", 1, 1, paths=["/a/tmp/y"]),
        Call("pwrite64", 1, 1, [b"1"], ["/a/tmp/y"], ["1", "0"]),
    ],
)
def test_an_unknown_name_is_an_error(call: Call) -> None:
    with pytest.raises(AssertionError, match="not known"):
        Medium("/a", HELD).feed(call)
