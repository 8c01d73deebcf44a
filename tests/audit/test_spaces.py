# SPDX-License-Identifier: MIT
"""When tcpdump has read all that there is for it, without one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mesh.audit import spaces
from mesh.errors import IoError

SNOOPER = """
import itertools, signal, sys
counts = itertools.chain({counts}, itertools.repeat({last}))
while True:
    signal.sigwait([signal.SIGUSR1])
    seen, there, lost = next(counts)
    print(seen, "packets captured,", there, "packets received by filter,", lost,
          "packets dropped by kernel", file=sys.stderr, flush=True)
"""
BLOCKED = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])"


@contextmanager
def snooper(*counts: tuple[int, int, int]) -> Iterator[spaces.Process]:
    """Who answers each question with the next of these, and then with the last."""
    told = SNOOPER.format(counts=list(counts), last=counts[-1])
    ready = "import sys; print('ready', file=sys.stderr, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", "\n".join((BLOCKED, ready, told))],
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stderr
            assert process.stderr.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def test_it_has_settled_when_what_was_there_is_read() -> None:
    with snooper((1, 5, 0), (4, 8, 0), (5, 9, 0), (5, 10, 1)) as process:
        spaces._settle(process)  # the last answer would be an error


def test_what_it_will_never_read_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A packet that came before its filter was there is counted and not for it."""
    monkeypatch.setattr(spaces, "STILL_SECONDS", 0.3)
    with snooper((4, 5, 0)) as process:
        spaces._settle(process)


def test_one_that_reads_on_and_on_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "SETTLE_SECONDS", 0.5)
    with (
        snooper(*((n, 10**6, 0) for n in range(100))) as process,
        pytest.raises(IoError, match="does not keep up"),
    ):
        spaces._settle(process)


def test_what_it_missed_is_said() -> None:
    with (
        snooper((4, 5, 2)) as process,
        pytest.raises(IoError, match="missed 2 packets"),
    ):
        spaces._settle(process)
