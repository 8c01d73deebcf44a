# SPDX-License-Identifier: MIT
"""`mesh run` changes its process; here that is pytest's, and all its children's."""

import gc
import resource
import signal
from collections.abc import Iterator

import pytest

from mesh.cli import run


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a process changes of itself, changed back."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    handlers = {number: signal.getsignal(number) for number in run.SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.unfreeze()
    gc.enable()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
