# SPDX-License-Identifier: MIT
"""Who infers a message's size: plain without cover, not at all from cells."""

import numpy as np
import pytest

from mesh.audit import sizes
from mesh.audit.sizes import Sized, excess, figures, learned, sized
from mesh.audit.statistics import spearman
from mesh.audit.trace import Event
from tests.audit.worlds import bare, covered, messages

SEED = 9
SECONDS = 240.0


def test_only_what_the_place_handed_in_counts() -> None:
    trace = covered(60, np.random.default_rng(SEED)).first
    events = [
        Event(3.0, 900, "b", "in", "here"), Event(2.0, 500, "a", "in", "here"),
        Event(4.0, 700, "c", "out", "here"), Event(5.0, 700, "d", "in", "there"),
        Event(-1.0, 700, "e", "in", "here"), Event(99.0, 700, "f", "in", "here"),
    ]  # fmt: skip
    found = sized(trace, events, "here")
    assert found.at.tolist() == [2.0, 3.0]
    assert found.size.tolist() == [500.0, 900.0]


def test_size_is_plain_without_cover_and_not_to_be_had_with_it() -> None:
    rng = np.random.default_rng(SEED)
    at = messages(SECONDS, rng)
    size = rng.integers(1500, 30_000, len(at))
    naked = bare(SECONDS, rng, at, size)
    plain = Sized(naked.second, naked.left, size.astype(float))
    assert spearman(excess(plain, rng), plain.size) > 0.9
    hidden = covered(SECONDS, rng)
    cells = Sized(hidden.second, at, size.astype(float))
    assert abs(spearman(learned(cells, rng), cells.size)) < 0.25
    (said,) = figures(cells, plain, rng, guesses=["excess"])
    assert said.value < 0.2
    assert said.unit == "rho"
    assert said.count == len(at)
    assert said.controls[1].found


def test_who_infers_shuffled_sizes_shows_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sizes that are the same in any order stand for one who knows them all."""
    rng = np.random.default_rng(SEED)
    naked = bare(60, rng)
    size = np.full(len(naked.left), 2_000.0)
    size[0] = 9_000.0
    plain = Sized(naked.second, naked.left, size)
    monkeypatch.setattr(sizes, "spearman", lambda *_: 0.97)
    (said,) = figures(plain, plain, rng, guesses=["excess"])
    assert [each.found for each in said.controls] == [True, False]
