# SPDX-License-Identifier: MIT
"""Hypothesis without chance and without deadlines, fake time that waits for threads."""

import gc
import os
from collections.abc import Iterator

import pytest
import trio.testing
from hypothesis import HealthCheck, settings

from tests.harness import Patience, patient_clock

# How fast examples come is measured by a clock: on a busy host that test would fail.
settings.register_profile(
    "mesh",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mesh")

# Nodes of tests start from compiled modules, as installed ones do (scripts/setup).
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    """What holds this test's fake clock while a thread works."""
    return Patience(monkeypatch)


@pytest.fixture
def autojump_clock(patience: Patience) -> trio.testing.MockClock:
    """In the place of pytest-trio's, which would not wait for threads."""
    return patient_clock(patience)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spools and drop folders of a few slots: what is made in hundreds costs nothing."""
    from tests.node.spooling import few_slots

    few_slots(monkeypatch)


@pytest.fixture
def quick() -> Iterator[None]:
    """What was there before is no garbage: many collections follow."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
