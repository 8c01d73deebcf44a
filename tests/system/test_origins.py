# SPDX-License-Identifier: MIT
"""The origins' own case, as a sample: real nodes, real wires, an attacker who sees.

How many messages there are is the seed's alone.  By body all are followed by bare SMTP and
none over the mesh: no host is too busy for that.  By size and time a busy host may part
or delay writes: so by bare SMTP most is asked for, and over the mesh no more than
following.ERRORS standard errors above chance, which a fair clock passes once in 10,000
runs; the same check must find the attacker on bare SMTP.
"""

import os
from collections.abc import Callable

import pytest

from mesh.audit.figures import Control, Figure
from mesh.audit.spaces import TOOLS
from tests.following import Followed
from tests.system.origins import BODY, PLAN, SIZE, WAYS, Way, follow, holds

SEED = 7
MOST = 0.8
MESSAGES = 12
"""Fewer would bound nothing."""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_by_smtp_every_message_is_followed_and_over_the_mesh_none(
    tool: Callable[[str, str], str],
) -> None:
    for name, package in TOOLS.items():
        tool(name, package)
    plain = follow("plain", PLAN, seed=SEED).followed
    mesh = follow("chain", PLAN, seed=SEED).followed
    for where in WAYS:
        bare, covered = plain[Way(where, BODY)], mesh[Way(where, BODY)]
        assert bare.found == bare.messages >= MESSAGES, where
        assert covered.messages >= MESSAGES, where
        assert covered.names == 0, where
        bare = plain[Way(where, SIZE)]
        assert bare.share >= MOST, where
        assert bare.beyond_chance, where
    assert not mesh[Way("through bravo", SIZE)].beyond_chance


def test_the_run_holds_only_where_all_of_it_does() -> None:
    ways = [Way(where, how) for where in WAYS for how in (BODY, SIZE)]
    all_of_them = dict.fromkeys(ways, Followed(100, 100, 100, 1.0, 3.0, 8.0))
    nobody = {
        way: Followed(100, 0 if way.how == BODY else 100, 2, 1.0, 3.0, 8.0)
        for way in ways
    }
    found = (Control("no cover", 1.0, ">= 0.99", True),)
    fine = Figure("m", "learned", 0.51, 0.6, 0.7, "AUC", 100, "", found)
    leaky = Figure("m", "learned", 0.71, 0.8, 0.7, "AUC", 100, "", found)
    assert holds(all_of_them, nobody, [fine])
    assert holds(all_of_them, nobody, [])
    assert not holds(all_of_them, nobody, [fine, leaky])
    assert not holds(nobody, nobody, [fine])
    assert not holds(all_of_them, all_of_them, [fine])
    alike = Way("through bravo", BODY)
    for broken in (
        Followed(100, 1, 0, 0.0, 0.0, 2.0),
        Followed(100, 9, 9, 1.0, 3.0, 8.0),
    ):
        assert not holds(all_of_them, {**nobody, alike: broken}, [fine])
