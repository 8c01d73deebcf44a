# SPDX-License-Identifier: MIT
"""To whom a sender writes: plain without cover, and not to be learned with it."""

import numpy as np

from mesh.audit.disclosure import Rounds, activity, disclose, figure, link
from mesh.audit.simulated import simulate
from mesh.audit.statistics import auc
from mesh.core.clock import Clock
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


def test_a_round_with_more_cells_in_less_time_is_an_active_one() -> None:
    rng = np.random.default_rng(SEED)
    rows = simulate(Clock.CONSTANT, 64.0, 640, rng)
    busy = (np.arange(640) // 16) % 2 == 0
    mine = np.flatnonzero(rows["side"] == 0)
    rows["gap"][mine[busy]] /= 10
    assert auc(activity(rows), busy[::16]) > 0.99


def test_rounds_in_which_something_was_sent_are_marked() -> None:
    trace = covered(30, np.random.default_rng(SEED)).first
    at = trace.of(0)["at"]
    score, writes = link(trace, np.array([at[0] - 1, at[17], at[40], at[-1] + 1]))
    assert np.flatnonzero(writes).tolist()[:2] == [1, 2]
    assert len(score) == len(at) // 16


def test_the_figure_has_its_control() -> None:
    rng = np.random.default_rng(SEED)
    hidden, naked = covered(240, rng), bare(240, rng)
    control = naked.second, naked.left + 0.002
    said = figure(hidden.second, hidden.left, control, rng, worlds=12)
    assert said.shown
    assert said.value < 0.62
