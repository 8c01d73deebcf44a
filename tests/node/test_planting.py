# SPDX-License-Identifier: MIT
"""A hundred exceptions planted where single connections are served: the node stays up.

More of them: scripts/cancel.  What must end the node all the same is in test_guard.py.
"""

import pytest

from mesh.node import spool
from tests.node.planting import SITES, plant_at

EACH = 7
"""Fifteen places: more than a hundred."""
pytestmark = pytest.mark.usefixtures("small", "quick", "seldom")


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spools' turns: minutes pass until whoever is silent has ended."""
    monkeypatch.setattr(spool, "FLUSH_SECONDS", 10.0)


@pytest.mark.parametrize("name", SITES)
def test_a_bug_in_one_connection_is_nobody_else_s(name: str) -> None:
    assert plant_at(name, EACH) == EACH


def test_that_they_are_a_hundred() -> None:
    assert EACH * len(SITES) >= 100
