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

from mesh.audit.spaces import TOOLS
from tests.system.origins import BODY, PLAN, SIZE, WAYS, Way, follow

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
    plain = follow("plain", PLAN, seed=SEED)
    mesh = follow("chain", PLAN, seed=SEED)
    for where in WAYS:
        bare, covered = plain[Way(where, BODY)], mesh[Way(where, BODY)]
        assert bare.found == bare.messages >= MESSAGES, where
        assert covered.messages >= MESSAGES, where
        assert covered.names == 0, where
        bare = plain[Way(where, SIZE)]
        assert bare.share >= MOST, where
        assert bare.beyond_chance, where
    assert not mesh[Way("through bravo", SIZE)].beyond_chance
