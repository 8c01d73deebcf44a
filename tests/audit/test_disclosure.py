# SPDX-License-Identifier: MIT
"""To whom a sender writes: plain without cover, and not to be learned with it."""

import numpy as np

from mesh.audit.disclosure import Rounds, disclose, edges, figure, link
from mesh.audit.statistics import auc
from tests.audit.worlds import bare, covered

SEED = 2


def test_who_gets_mail_when_the_sender_is_active_stands_out() -> None:
    rng = np.random.default_rng(SEED)
    active = rng.random(400) < 0.3
    received = rng.poisson(0.5, (400, 10)).astype(float)
    received[:, 3] += active
    seen = Rounds(active.astype(float), received, np.arange(10) == 3)
    assert int(disclose(seen).argmax()) == 3


def test_nothing_is_disclosed_where_all_rounds_are_alike() -> None:
    rng = np.random.default_rng(SEED)
    seen = Rounds(np.ones(50), rng.poisson(1, (50, 4)).astype(float), np.arange(4) < 1)
    assert disclose(seen).tolist() == [0.0] * 4


def test_rounds_in_which_more_is_written_are_the_active_ones() -> None:
    rng = np.random.default_rng(SEED)
    world = bare(120, rng)
    score, writes = link(world.second, world.left + 0.002)
    assert writes.sum() > 100
    assert auc(score, writes > 0) > 0.99


def test_rounds_are_alike_long_and_what_lies_outside_counts_for_none() -> None:
    trace = covered(30, np.random.default_rng(SEED)).first
    begins = edges(trace)
    width = np.diff(begins)
    assert np.allclose(width, width[0])
    sent = np.array([begins[0] - 1, begins[3] + 0.01, begins[3] + 0.02, begins[-1] + 9])
    score, writes = link(trace, sent)
    assert np.flatnonzero(writes).tolist() == [3]
    assert writes[3] == 2
    assert len(score) == len(begins) - 1


def test_the_figure_has_its_control() -> None:
    rng = np.random.default_rng(SEED)
    hidden, naked = covered(240, rng), bare(240, rng)
    control = naked.second, naked.left + 0.002
    said = figure(hidden.second, hidden.left, control, rng, worlds=5)
    assert said.shown
    assert said.value < 0.62
    assert 0.005 < said.upper - said.value < 0.3  # the rounds drawn again
