# SPDX-License-Identifier: MIT
"""Pieces are there whole or not at all, and make one capture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mesh.audit.pieces import APART_SECONDS, Pieces, Taken, joined, seconds_of
from mesh.audit.simulated import simulated
from mesh.audit.trace import Event
from mesh.core.clock import Clock


def taken(seed: int, begin: float = 0.0) -> Taken:
    wires = []
    for number in range(2):
        wire = simulated(Clock.RENEWAL, 8.0, 50, np.random.default_rng([seed, number]))
        rows = wire.rows.copy()
        rows["at"] += begin
        wires.append(wire.with_rows(rows))
    return Taken(tuple(wires), (Event(begin + 1.0, 9, "a", "in", "alpha"),))


def same(one: Taken, other: Taken) -> bool:
    return one.events == other.events and all(
        np.array_equal(mine.rows, theirs.rows, equal_nan=False)
        or str(mine.rows) == str(theirs.rows)  # nan is not itself
        for mine, theirs in zip(one.wires, other.wires, strict=True)
    )


def test_a_piece_comes_back_and_is_counted(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path / "new" / "folder")
    assert pieces.numbers("pair-64") == []
    for number in (12, 3):
        pieces.put("pair-64", number, taken(number))
    pieces.put("pair-6", 1, taken(1))
    assert pieces.numbers("pair-64") == [3, 12]
    assert same(pieces.get("pair-64", 12), taken(12))
    assert [same(*both) for both in zip(pieces.all("pair-64"), map(taken, (3, 12)), strict=True)] == [True, True]  # fmt: skip


def test_a_piece_of_which_a_part_was_written_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = Pieces(tmp_path)
    with monkeypatch.context() as broken:

        def cut(*_: object) -> None:
            raise KeyboardInterrupt

        broken.setattr("mesh.audit.pieces.save_events", cut)
        with pytest.raises(KeyboardInterrupt):
            pieces.put("pair", 1, taken(1))
    assert pieces.numbers("pair") == []
    pieces.put("pair", 1, taken(2))
    assert same(pieces.get("pair", 1), taken(2))
    assert [path.name for path in tmp_path.iterdir()] == ["pair-0001"]


def test_pieces_follow_each_other_whenever_they_were_made() -> None:
    parts = [taken(1, 1e9), taken(2, 1e9 + 0.5)]
    whole = joined(iter(parts))
    assert whole is not None
    assert [event.ident for event in whole.events] == ["0/a", "1/a"]
    for wire in whole.wires:
        at = wire.rows["at"]
        assert (np.diff(at) >= 0).all()
        first, second = (at[wire.rows["block"] == block] for block in (0, 1))
        assert (len(first), len(second)) == (100, 100)
        assert second[0] - first[-1] > APART_SECONDS / 2
    # Wires and events of a piece are moved together.
    for number, part in enumerate(parts):
        for wire, own in zip(whole.wires, part.wires, strict=True):
            mine = wire.rows["at"][wire.rows["block"] == number]
            away = whole.events[number].at - mine[0]
            assert away == pytest.approx(part.events[0].at - own.rows["at"][0])
    assert seconds_of(parts) == pytest.approx(
        sum(
            max(wire.rows["at"][-1] for wire in part.wires)
            - min(wire.rows["at"][0] for wire in part.wires)
            for part in parts
        )
    )


def test_nothing_makes_nothing() -> None:
    assert joined([]) is None


def test_pieces_of_two_rates_are_not_one_world() -> None:
    other = Taken(tuple(replace(wire, rate=4.0) for wire in taken(1).wires))
    with pytest.raises(ValueError, match="one rate"):
        joined([taken(1), other])


def test_what_is_no_trace_is_said(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    pieces.put("pair", 1, taken(1))
    np.savez(tmp_path / "pair-0001" / "wire-1.npz", rows=np.zeros(2))
    with pytest.raises(ValueError, match="no trace"):
        pieces.get("pair", 1)
