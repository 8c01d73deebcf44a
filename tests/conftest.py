# SPDX-License-Identifier: MIT
"""Hypothesis without chance and without deadlines: a red run is red again."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from hypothesis import settings

from tests.harness import Patience

settings.register_profile("mesh", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("mesh")


@pytest.fixture
async def patience(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Patience]:
    """Fake time that waits for the threads which work (see the harness)."""
    del autojump_clock
    patient = Patience(monkeypatch)
    trio.lowlevel.add_instrument(patient)
    yield patient
    trio.lowlevel.remove_instrument(patient)
