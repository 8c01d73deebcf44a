# SPDX-License-Identifier: MIT
"""What a lab plans, keeps and takes up again; that it runs is in tests/system."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.audit.cells import Block
from mesh.audit.lab import (
    Captured,
    Plan,
    capture_pieces,
    load_captured,
    throw,
    together,
)
from mesh.audit.post import PlainLetters, Post
from mesh.audit.trace import ROW, Event, Trace
from mesh.core.cell import BODY_LEN
from mesh.errors import UsageError


def captured(seed: float) -> Captured:
    """Two blocks of a pair, by hand."""
    rows = np.zeros(4, ROW)
    rows["at"] = seed + np.arange(4)
    rows["block"] = [0, -1, 1, 1]
    rows["busy"] = [False, False, True, True]
    return Captured(
        {"alpha-bravo": Trace(rows, 64.0, "renewal", "by hand")},
        [Event(seed + 2.5, 900, "ab12", "in", "alpha")],
        [Block(seed, seed + 1, False), Block(seed + 2, seed + 3, True)],
    )


@pytest.mark.parametrize(
    ("world", "names", "wires", "nodes", "cells"),
    [
        ("pair", "alpha bravo", 1, 2, 1),
        ("chain", "alpha bravo charlie sink", 3, 3, 2),
        ("plain", "alpha bravo charlie sink", 3, 0, 0),
    ],
)
def test_each_world_has_its_machines_and_wires(
    world: str, names: str, wires: int, nodes: int, cells: int
) -> None:
    plan = Plan(world=world)
    plan.check()
    assert " ".join(plan.names) == names
    assert (len(plan.wires), len(plan.nodes)) == (wires, nodes)
    assert sum(map(plan.has_cells, plan.wires)) == cells
    assert str(plan.wires[0]) == "alpha-bravo"


def test_the_octets_of_a_load_are_the_link_s() -> None:
    """A load of 1 is what the cells carry; log-uniform sizes have the mean of the law."""
    plan = Plan(rate=8.0, octets=(1_000, 50_000))
    assert plan.octets_a_second == 8 * BODY_LEN
    drawn = np.exp(np.random.default_rng(1).uniform(np.log(1e3), np.log(5e4), 100_000))
    assert plan.mean_octets == pytest.approx(drawn.mean(), rel=0.01)
    assert Plan(octets=(700, 700)).mean_octets == 700


@pytest.mark.parametrize(
    "plan",
    [
        Plan(world="ring"),
        Plan(load=1.5),
        Plan(load=-0.5),
        Plan(rate=0),
        Plan(octets=(0, 9)),
        Plan(busy=0),
        Plan(busy=1.5),
    ],
)
def test_what_is_no_plan_is_refused(plan: Plan) -> None:
    with pytest.raises(UsageError):
        plan.check()


@given(st.integers(0, 30), st.integers(0, 99))
def test_coins_come_down_on_both_sides(blocks: int, seed: int) -> None:
    coins = throw(blocks, np.random.default_rng(seed))
    assert len(coins) == blocks
    least = min(2, blocks // 2)
    assert least <= sum(coins) <= blocks - least


@given(st.integers(2, 30), st.sampled_from([0.25, 0.9, 1.0]), st.integers(0, 9))
def test_where_mail_is_compared_with_mail_few_blocks_are_idle(
    blocks: int, busy: float, seed: int
) -> None:
    coins = throw(blocks, np.random.default_rng(seed), busy)
    assert len(coins) == blocks
    assert coins.count(False) == max(1, round((1 - busy) * blocks))


@given(st.integers(1, 40_000), st.integers(2, 4))
def test_a_letter_goes_along_its_route_and_keeps_its_size(
    octets: int, length: int
) -> None:
    route = ("alpha", "bravo", "charlie", "sink")[:length]
    letters = PlainLetters()
    content, went = letters.write(route, octets, "c0ffee"), []
    assert octets - 100 < len(content) < octets + 200
    for place in route[1:]:
        assert content.endswith(b"x\r\n")
        ident, to, content = letters.take(place, content)
        assert ident == "c0ffee"
        went.append(to)
    assert went == [*route[2:], ""]


def test_what_is_on_its_way_is_counted_while_nobody_changes_it() -> None:
    post, kept_out = Post({}, {}, PlainLetters()), []

    class Watched(dict[str, tuple[str, int]]):
        def values(self) -> Any:
            other = threading.Thread(target=knock)
            other.start()
            other.join()
            return super().values()

    def knock() -> None:
        kept_out.append(not post._changed.acquire(blocking=False))

    post._under_way = Watched(x=("alpha", 2), y=("bravo", 3), z=("alpha", 5))
    assert post.on_the_way_from("alpha") == 7
    assert kept_out == [True]
    post._loop.close()


def test_what_was_captured_is_kept_and_joined(tmp_path: Path) -> None:
    first, second = captured(10.0), captured(90.0)
    first.save(tmp_path / "first")
    kept = load_captured(tmp_path / "first")
    assert (kept.events, kept.blocks) == (first.events, first.blocks)
    assert (
        kept.traces["alpha-bravo"].rows.tolist()
        == first.traces["alpha-bravo"].rows.tolist()
    )
    both = together([kept, second])
    assert both.traces["alpha-bravo"].rows["block"].tolist() == [
        0,
        -1,
        1,
        1,
        2,
        -1,
        3,
        3,
    ]
    assert [event.at for event in both.events] == [12.5, 92.5]
    assert [block.begin for block in both.blocks] == [10.0, 12.0, 90.0, 92.0]


def test_pieces_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    """Neither root nor a network is needed for what was done."""
    plan, ticks = Plan(), list[int]()
    with pytest.raises(UsageError, match="1200 s of blocks"):
        capture_pieces(plan, tmp_path, pieces=2, blocks=121)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="no pieces"):
        capture_pieces(plan, tmp_path, pieces=0, blocks=4)
    for number, seed in enumerate((10.0, 90.0, 500.0)):
        captured(seed).save(tmp_path / f"piece-{number:04}")
    half = tmp_path / ".piece-0003"
    half.mkdir()
    whole = capture_pieces(
        plan, tmp_path, pieces=2, blocks=4, tick=lambda: ticks.append(1)
    )
    assert len(whole.traces["alpha-bravo"].rows) == 8
    assert len(ticks) == 2
    with pytest.raises(UsageError, match="another plan"):
        capture_pieces(Plan(rate=1.0), tmp_path, pieces=2, blocks=4)
