# SPDX-License-Identifier: MIT
"""Who matches messages: always without cover, never with it, and what would show."""

import numpy as np
import pytest

from mesh.audit.matching import (
    APART,
    COMMAND,
    JITTER,
    MATCHERS,
    NEAR,
    WINDOW,
    Pairs,
    Seen,
    figures,
    learned,
    near,
    octets,
    pairs_of,
    planted,
    seen,
    statistical,
    unlike,
)
from mesh.audit.statistics import auc, share_upper
from mesh.audit.trace import Event, Floats, Trace, by_time
from tests.audit.worlds import RATE, bare, covered

SEED = 5


def test_only_what_came_and_went_on_counts() -> None:
    world = covered(20, np.random.default_rng(SEED))
    events = [
        Event(2.0, 9, "b", "out", "here"), Event(2.1, 9, "b", "in", "here"),
        Event(1.0, 9, "a", "out", "here"), Event(1.5, 9, "a", "in", "here"),
        Event(3.0, 9, "c", "out", "here"), Event(0.5, 9, "d", "in", "here"),
        Event(4.0, 9, "c", "in", "elsewhere"),
    ]  # fmt: skip
    found = seen(world.first, world.second, events, "here")
    assert found.arrived.tolist() == [1.0, 2.0]
    assert found.left.tolist() == [1.5, 2.1]


def test_other_pairs_are_moved_alike_within_64_cells_and_away_from_messages() -> None:
    world = covered(60, np.random.default_rng(SEED))
    pairs = pairs_of(world, np.random.default_rng(SEED), 3)
    assert 50 < pairs.label.sum() <= len(world.left)
    waits = pairs.second - pairs.first
    grid = world.second.of(0)["at"][::WINDOW]
    for block in np.unique(pairs.block):
        mine = pairs.block == block
        assert grid[block - 1] <= pairs.second[mine & ~pairs.label].min()
        assert pairs.second[mine & ~pairs.label].max() < grid[block]
        own = waits[mine & pairs.label]
        assert all(np.abs(own - wait).min() < 1e-9 for wait in waits[mine])
    told = pairs.second[pairs.label][:, None] - world.left[None, :]
    assert np.abs(told).min(axis=1).max() <= JITTER / RATE
    others = pairs.second[~pairs.label]
    apart = np.abs(others[:, None] - world.left[None, :]).min(axis=1)
    assert apart.min() > APART / RATE


def test_without_cover_every_message_is_matched() -> None:
    rng = np.random.default_rng(SEED)
    world = bare(120, rng)
    pairs = pairs_of(world, rng)
    for how in (statistical, learned):
        assert auc(how(world, pairs, rng), pairs.label) > 0.99
    mail = octets(world.second.of(0))
    assert mail.max() > 20_000
    assert mail.min() == 0


def test_a_message_at_the_end_of_many_small_writes_is_in_sight() -> None:
    rng = np.random.default_rng(SEED)
    world = bare(60, rng)
    first, second = map(_chatty, (world.first, world.second))
    chatty = Seen(first, second, world.arrived, world.left)
    pairs = pairs_of(chatty, rng)
    assert auc(statistical(chatty, pairs, rng), pairs.label) > 0.99


def _chatty(wire: Trace, lines: int = 3 * NEAR) -> Trace:
    """As in SMTP: before each message go commands."""
    large = wire.rows[octets(wire.rows) >= COMMAND]
    said = np.repeat(large, lines)
    said["at"] -= 1e-4 * (1 + np.arange(len(said)) % lines)
    said["segments"], said["first"], said["last"] = 1, 30, 30
    return wire.with_rows(by_time(np.concatenate([wire.rows, said])))


def test_what_grew_on_its_way_is_another_message() -> None:
    rng = np.random.default_rng(SEED)
    world = bare(60, rng)
    pairs = pairs_of(world, rng)
    sent = _larger(world.second)
    alike = unlike(Seen(world.first, sent, world.arrived, world.left), pairs)
    assert np.median(alike[pairs.label]) > 0.1


def _larger(wire: Trace) -> Trace:
    rows = wire.rows.copy()
    rows["last"] += np.where(octets(rows) >= COMMAND, 40, 0).astype(rows["last"].dtype)
    return wire.with_rows(rows)


def test_a_cell_that_is_late_by_the_message_is_found() -> None:
    rng = np.random.default_rng(SEED)
    world = planted(covered(300, rng), 0.02, rng)
    pairs = pairs_of(world, rng, 1)
    assert near(world, pairs).shape == (len(pairs.label), 2 * 2 * 12 + 1)
    assert auc(learned(world, pairs, rng), pairs.label) > 0.55


def test_figures_say_what_was_reached_and_that_the_attacker_can() -> None:
    rng = np.random.default_rng(SEED)
    found = figures(covered(200, rng), bare(60, rng), rng, matchers=["statistical"])
    area, rate = found
    assert area.shown
    assert area.value < 0.58
    assert rate.shown
    assert rate.value < 0.02
    assert area.bound == 0.52
    assert rate.bound == 0.002
    assert area.count == pytest.approx(195, abs=40)


def test_guards_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never trained counts for no message; each control may come out wrong."""
    rng = np.random.default_rng(SEED)
    world = covered(120, rng)

    def half(_: Seen, pairs: Pairs, rng: np.random.Generator) -> Floats:
        """Knows all labels, those that were shuffled, too; half of them has no score."""
        trained = np.arange(len(pairs.label)) % 2 == 0
        return np.where(trained, np.nan, pairs.label + 0.1 * rng.random(len(trained)))

    def coin(_: Seen, pairs: Pairs, rng: np.random.Generator) -> Floats:
        return rng.random(len(pairs.label))

    monkeypatch.setitem(MATCHERS, "half", half)
    monkeypatch.setitem(MATCHERS, "coin", coin)
    area, rate = figures(world, world, rng, matchers=["half"])
    assert [(each.name, each.found) for each in area.controls] == [
        ("no cover", True), ("labels shuffled", False),
    ]  # fmt: skip
    assert rate.shown
    assert 0.35 * area.count < rate.count < 0.65 * area.count
    area, rate = figures(world, world, rng, matchers=["coin"])
    assert [each.found for each in area.controls] == [False, True]
    assert not rate.shown
    assert rate.upper == share_upper(round(rate.value * rate.count), rate.count)
