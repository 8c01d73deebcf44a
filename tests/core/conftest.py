# SPDX-License-Identifier: MIT
"""Coverage is of the examples that are written down, not of those that are drawn.

Each line of the core has a test that names its case.  What is drawn, or repeated over
thousands of octets, runs the same lines again: to count them there takes longer than to
run them, and a line that only chance gets to is not covered.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis
import pytest


@contextmanager
def _looking_away() -> Iterator[None]:
    measuring = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(measuring)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Run a test, and measure it unless it draws or says that it repeats."""
    function = getattr(item, "obj", None)
    repeats = "repeats" in getattr(item, "fixturenames", ())
    if repeats or hypothesis.is_hypothesis_test(function):
        with _looking_away():
            return (yield)
    return (yield)


@pytest.fixture
def repeats() -> None:
    """Say that a test does the same very often."""
