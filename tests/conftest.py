# SPDX-License-Identifier: MIT
"""Hypothesis without chance and without deadlines, fake time that waits for threads."""

import os

import pytest
import trio.testing
from hypothesis import settings

from tests.harness import Patience, patient_clock

settings.register_profile("mesh", derandomize=True, deadline=None, max_examples=60)
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
