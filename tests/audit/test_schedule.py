# SPDX-License-Identifier: MIT
"""The time is shared among as many worlds as it suffices for."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.audit import schedule
from mesh.audit.bounds import auc_promise
from mesh.audit.cells import GUARD_SECONDS
from mesh.audit.lab import PIECE_SECONDS_MAX
from mesh.audit.schedule import BLOCKS_MIN, WORLDS, Schedule
from mesh.audit.worlds import Plan
from mesh.core.clock import ERLANG_SHAPE

MINUTES = st.floats(1.0, 5_000.0)


def windows_of(plan: Plan, cells: int) -> int:
    """At least, in a block but its guard: five errors less than on average."""
    mean = (plan.seconds - 2 * GUARD_SECONDS) * plan.rate
    return int((mean - 5 * math.sqrt(mean / ERLANG_SHAPE)) // cells)


@settings(max_examples=30)
@given(MINUTES, st.integers(1, 4))
def test_a_run_is_as_long_as_it_is_said(minutes: float, links: int) -> None:
    plan = Schedule(minutes, links)
    planned = sum(map(plan.seconds_of, plan.worlds))
    assert planned == pytest.approx(minutes * 60) or not plan.worlds
    for world in plan.worlds:
        jobs = [job for job in plan.jobs() if job.world is world]
        if world.plan is None:
            assert not jobs
            continue
        assert plan.seconds_of(world) >= world.least
        assert {job.link for job in jobs} == set(range(plan.links_of(world)))
        taken = sum(job.seconds for job in jobs) / plan.links_of(world)
        # Blocks are whole ones, and pieces have equally many.
        assert 0.5 * world.least <= taken <= 1.6 * plan.seconds_of(world)
        for job in jobs:
            assert job.blocks >= BLOCKS_MIN
            assert job.blocks * job.plan.seconds <= PIECE_SECONDS_MAX


@given(MINUTES)
def test_a_longer_run_has_the_same_worlds_and_more(minutes: float) -> None:
    few, many = Schedule(minutes).worlds, Schedule(2 * minutes).worlds
    assert many[: len(few)] == few
    assert few == WORLDS[: len(few)]


def test_two_minutes_have_controls_and_messages() -> None:
    assert [world.key for world in Schedule(2).worlds] == [
        "quiet", "greedy", "chain", "plain", "probed",
    ]  # fmt: skip
    assert Schedule(10).worlds == WORLDS


def test_pieces_go_round_the_worlds() -> None:
    keys = [beside[0].world.key for beside in Schedule(600, 2).rounds()]
    assert sorted(keys[:7]) == sorted(w.key for w in WORLDS if w.plan is not None)
    numbers = [job.pieces for job in Schedule(600).jobs() if job.world.key == "quiet"]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("links", [1, 2, 18])
def test_links_of_a_world_are_taken_side_by_side(links: int) -> None:
    """As many as the plan says, each of them once, all with a piece of one number."""
    plan = schedule.whole(links)
    seen = []
    for beside in plan.rounds():
        (world,) = {job.world for job in beside}
        (number,) = {job.pieces for job in beside}
        assert [job.link for job in beside] == list(range(plan.links_of(world)))
        seen.append((world.key, number))
    assert len(set(seen)) == len(seen)
    assert max(map(len, plan.rounds())) == links
    # Together they are as long as was planned.
    quiet = [beside for beside in plan.rounds() if beside[0].world.key == "quiet"]
    hours = sum(beside[0].seconds for beside in quiet) / 3600
    assert hours == pytest.approx(plan.seconds_of(quiet[0][0].world) / 3600, rel=0.1)


def test_hours_have_blocks_for_the_longest_window() -> None:
    (job, *_) = Schedule(12 * 60).jobs()
    assert job.plan.seconds * job.plan.rate >= 3_600
    (job, *_) = Schedule(10).jobs()
    assert job.plan.rate == schedule.SHORT_RATE


def test_a_chain_has_as_much_mail_a_second_in_a_short_run_as_in_a_long_one() -> None:
    """With more of it nobody follows a message even where nothing hides it."""
    rates = {
        (job.world.key, job.plan.rate)
        for minutes in (30, 600)
        for job in Schedule(minutes).jobs()
        if job.world in (schedule.CHAIN, schedule.PLAIN)
    }
    assert rates == {("chain", schedule.RATE), ("plain", schedule.RATE)}


def test_titles_have_the_rate_where_there_is_one() -> None:
    plan = Schedule(60)
    assert [plan.title(world) for world in WORLDS[:5]] == [
        "pair, renewal, 64 cells/s", "pair, greedy: no cover",
        "chain, renewal, 64 cells/s", "chain, plain SMTP: no cover",
        "loopback, renewal, 1 cell/s",
    ]  # fmt: skip


def test_the_header_has_the_worlds() -> None:
    rows = re.findall(
        r"(?m)^    (\w+) .* (\d+) +(0\.\d\d) +(\d+\.\d\d)$", schedule.__doc__ or ""
    )
    assert [(row[0], *map(float, row[1:])) for row in rows] == [
        (world.key, world.least, world.share, world.whole) for world in WORLDS
    ]


@given(st.integers(1, 100))
def test_the_whole_has_what_is_promised(links: int) -> None:
    plan = schedule.whole(links)
    assert plan.worlds == WORLDS
    for world in WORLDS:
        jobs = [job for job in plan.jobs() if job.world is world]
        beside = {job.link for job in jobs}
        assert len(beside) <= min(links, world.beside)
        if world in (schedule.QUIET, schedule.LOADED):
            assert sum(job.blocks for job in jobs) >= 2 * 1_000
            assert all(job.plan.seconds * job.plan.rate >= 3_600 for job in jobs)
            for cells in schedule.LENGTHS:
                windows = sum(job.blocks * windows_of(job.plan, cells) for job in jobs)
                assert windows >= 2 * auc_promise(cells).enough
        if world.most == schedule.BRIEF_SECONDS:
            assert sum(job.blocks for job in jobs) >= 3_000
            assert all(job.plan.seconds == schedule.BRIEF_SECONDS for job in jobs)
