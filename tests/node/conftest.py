# SPDX-License-Identifier: MIT
"""Spools of few slots: an arena of thousands is made, and settled, in a tenth of a second.

There are hundreds of spools here, and few that ever hold a hundred messages at once.
What is about the size of an arena sets its own.
"""

from collections.abc import Iterator

import pytest

from mesh.node import groups, restore, upkeep


@pytest.fixture(autouse=True, scope="session")
def few_slots() -> Iterator[None]:
    """Make arenas of a few pages, and set little room aside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore, "SLOTS_MIN", 512)
        patch.setattr(upkeep, "FREE_MIN", 128)
        patch.setattr(groups, "ROOM_AHEAD", 262_144)
        yield
