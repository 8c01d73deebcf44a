# SPDX-License-Identifier: MIT
"""Somebody at a terminal: a pseudo-terminal as standard input and error."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def typing(text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it the command reads these lines from a terminal."""
    master, slave = os.openpty()
    os.write(master, text.encode())
    with os.fdopen(slave, "r") as stdin, os.fdopen(os.dup(slave), "w") as stderr:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", stderr)
        yield
        monkeypatch.undo()
    os.close(master)
