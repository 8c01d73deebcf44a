# SPDX-License-Identifier: MIT
"""The lab on real wires: that it works, and nothing about time."""

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mesh.audit.lab import Captured, Plan, capture, load_captured
from mesh.audit.post import PlainLetters, Post, Taken
from mesh.audit.spaces import TOOLS, Wire, remove_left_overs, run, spaces
from mesh.audit.wire import read
from mesh.errors import IoError, UnavailableError

SEGMENTS = (3, 1448, 1200)
"""A cell in frames of 1,500 octets, with TCP's timestamps."""
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="a network namespace needs root"
)


@pytest.fixture(autouse=True)
def _tools(tool: Callable[[str, str], str]) -> None:
    for name, package in TOOLS.items():
        tool(name, package)


def left_overs() -> list[str]:
    """What this process has left."""
    mine = f"mesh-audit-{os.getpid()}-"
    return [path.name for path in Path("/run/netns").glob(f"{mine}*")]


def told(captured: Captured) -> Counter[tuple[str, str]]:
    """How many messages came in, and out, where."""
    return Counter((event.what, event.place) for event in captured.events)


def test_a_cell_is_three_segments_with_mail_and_without(tmp_path: Path) -> None:
    plan = Plan(rate=8.0, seconds=2.0, octets=(1_000, 8_000))
    captured = capture(plan, [False, True], keep=tmp_path)
    rows = captured.traces["alpha-bravo"].rows
    for side in (0, 1):
        for busy in (False, True):
            some = rows[(rows["side"] == side) & (rows["block"] == int(busy))]
            assert 2 <= len(some) <= 60  # 8 of the law; a loaded host may merge some
            assert (some["busy"] == busy).all()
            shapes = zip(some["segments"], some["first"], some["last"], strict=True)
            assert sum(shape == SEGMENTS for shape in shapes) >= len(some) / 2
            assert (some["gap"] > 0).all()
            assert (some["ack_delay"] >= 0).all()
    # Both hellos were seen, so windows are octets.
    assert rows["window"].min() > 0xFFFF
    assert read(tmp_path / "alpha-bravo.pcap")[0].opener is not None
    count = told(captured)[("in", "alpha")]
    assert count >= 3
    assert told(captured) == {("in", "alpha"): count, ("out", "bravo"): count}
    _, busy_block = captured.blocks
    for event in captured.events:
        assert event.at >= busy_block.begin
    assert not left_overs()
    captured.save(tmp_path / "kept")
    again = load_captured(tmp_path / "kept")
    assert (again.blocks, again.events) == (captured.blocks, captured.events)
    kept = again.traces["alpha-bravo"].rows
    assert kept["at"].tolist() == rows["at"].tolist()


def test_without_nodes_each_message_is_a_burst_on_each_wire() -> None:
    """The control: relays that send by SMTP."""
    plan = Plan(world="plain", seconds=1.2, octets=(5_000, 5_000), load=0.25)
    captured = capture(plan, [True], rng=np.random.default_rng(1))
    counts = told(captured)
    assert counts[("in", "alpha")] == counts[("out", "bravo")] > 0
    assert counts[("in", "bravo")] == counts[("out", "charlie")]
    assert counts[("in", "charlie")] == counts[("out", "sink")] > 0
    for wire, place in zip(captured.traces, ("alpha", "bravo", "charlie"), strict=True):
        rows = captured.traces[wire].rows
        sent = rows[(rows["side"] == 0) & (rows["segments"] > 0)]
        sizes = (sent["segments"] - 1.0) * sent["first"] + sent["last"]
        # A host under load may cut a burst in two.
        assert counts[("in", place)] * 5_400 > sizes.sum(), wire
        assert counts[("in", place)] * 4_900 < sizes.sum(), wire
        assert ((rows["side"] == 0) & (rows["segments"] == 0)).any()


class Lost(PlainLetters):
    """Letters that nobody can read."""

    def take(self, place: str, content: bytes) -> Taken:
        raise ValueError("what is this?")


def test_a_message_that_cannot_be_read_ends_the_lab_at_once() -> None:
    """A bounce would be one; and who waits would wait for ever."""
    with (
        spaces(("one", "other"), [Wire("one", "other")]) as made,
        Post(made, {}, Lost()) as post,
    ):
        post.send(("one", "other"), 100)
        with pytest.raises(IoError, match=r"mail goes no further: .*what is this"):
            post.wait(60.0, lambda: not post.left)
        assert [event.what for event in post.events] == ["in"]


def test_what_a_killed_lab_has_left_goes() -> None:
    killed = subprocess.Popen(["true"])
    killed.wait()
    left = f"mesh-audit-{killed.pid}-alpha"
    mine = f"mesh-audit-{os.getpid()}-alpha"
    for name in (left, mine):
        run("ip", "netns", "add", name)
    inside = subprocess.Popen(["ip", "netns", "exec", left, "sleep", "600"])
    while "sleep" not in Path(f"/proc/{inside.pid}/cmdline").read_text()[:5]:
        pass
    remove_left_overs()
    assert inside.wait(60) == -9
    there = [path.name for path in Path("/run/netns").iterdir()]
    assert (left in there, mine in there) == (False, True)
    run("ip", "netns", "del", mine)


def test_labs_that_begin_together_remove_left_overs_one_after_the_other() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = [f"mesh-audit-{gone.pid}-{number}" for number in range(6)]
    for name in left:
        run("ip", "netns", "add", name)
    with ThreadPoolExecutor(6) as labs:
        for lab in [labs.submit(remove_left_overs) for _ in range(6)]:
            lab.result()
    assert not set(left) & {path.name for path in Path("/run/netns").iterdir()}


def test_packets_get_lost_or_it_is_said_that_they_cannot() -> None:
    said = ""
    try:
        with spaces(("one", "other"), [Wire("one", "other")], 0.1):
            pass
    except UnavailableError as error:
        said = str(error)
    assert said in ("", "no loss: this kernel has no netem, or tc is missing")
    assert not left_overs()
