# SPDX-License-Identifier: MIT
"""A main process that stops for two seconds, and one that dies: what the wire shows.

The pacer and its parent are processes, in real time; the other end of the link counts
octets and knows no key.  One parent has something to say in each cell, the other never.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from mesh.core.cell import CELL_LEN
from mesh.core.clock import period_of
from tests.node.pacer.test_client import KLASS, tcp_pair

T = period_of(KLASS)
ROOT = Path(__file__).parents[3]
STOPPED_SECONDS = 2.0
END_SECONDS = 1.0
"""The contract's, after a sudden death."""

PARENT = """
import os, socket, sys, trio
from mesh.core.cell import BODY_LEN
from mesh.core.clock import Clock
from mesh.node.pacer.client import Pacer
from mesh.node.wire import SocketWire
from tests.harness import sessions

class Port:
    ending, finished, has_data = None, False, sys.argv[2] == "busy"
    on_data = staticmethod(lambda: None)
    def next_body(self):
        return b"x" * BODY_LEN
    def receive_body(self, body):
        pass
    received = staticmethod(lambda: None)

async def main():
    session, _ = sessions("alpha", "bravo", clock=Clock.RENEWAL, klass=int(sys.argv[3]))
    async with trio.open_nursery() as nursery:
        pacer = Pacer()
        await nursery.start(pacer.run)
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            print(file.read(), flush=True)
        wire = SocketWire(socket.socket(fileno=int(sys.argv[1])))
        await pacer.carry(wire, session, Port())

trio.run(main)
"""


class Far:
    """The other end of a link, whose near one another process has."""

    def __init__(
        self, sock: trio.SocketStream, parent: "subprocess.Popen[bytes]"
    ) -> None:
        self._sock, self._parent = sock, parent
        self.parent = parent.pid
        self.octets = 0
        self.ended = False

    async def pacer(self) -> int:
        """The pacer's number, which its parent says."""
        assert self._parent.stdout
        return int(await trio.to_thread.run_sync(self._parent.stdout.readline))

    async def read(self) -> bool:
        """Count what comes next; False: the connection has ended."""
        try:
            data = await self._sock.receive_some()
        except trio.BrokenResourceError:  # a reset: what we sent was not read
            data = b""
        self.octets += len(data)
        self.ended = not data
        return not self.ended

    async def cells_of(self, seconds: float) -> float:
        """How many come in so many seconds."""
        before = self.octets
        with trio.move_on_after(seconds):
            while await self.read():
                pass
        return (self.octets - before) / CELL_LEN


@contextmanager
def link(load: str) -> Iterator[Far]:
    near, far = tcp_pair()
    with near:
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(near.fileno()), load, str(KLASS)],
            stdout=subprocess.PIPE,
            pass_fds=[near.fileno()],
            cwd=ROOT,
        )
    try:
        far.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(far))
        with far:
            yield Far(stream, parent)
    finally:
        parent.kill()
        parent.communicate()


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, float]]:
    """Live it with mail and without, both at once."""
    figures: dict[str, dict[str, float]] = {"idle": {}, "busy": {}}

    async def live(load: str) -> None:
        mine = figures[load]
        with link(load) as far:
            pacer = await far.pacer()
            while far.octets < 10 * CELL_LEN:
                assert await far.read()
            os.kill(far.parent, signal.SIGSTOP)
            mine["stopped"] = await far.cells_of(STOPPED_SECONDS)
            os.kill(far.parent, signal.SIGCONT)
            mine["after"] = await far.cells_of(0.5)
            watch = os.pidfd_open(pacer)
            os.kill(far.parent, signal.SIGKILL)
            died = trio.current_time()
            while await far.read():
                pass
            mine["ended"] = trio.current_time() - died
            mine["octets"] = far.octets
            await trio.lowlevel.wait_readable(watch)  # a pidfd: the process has ended
            mine["pacer ended"] = trio.current_time() - died
            os.close(watch)

    async def both() -> None:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for load in figures:
                    nursery.start_soon(live, load)

    trio.run(both)
    return figures


@pytest.mark.parametrize("load", ["idle", "busy"])
def test_cells_go_on_while_it_stops_and_after(
    seen: dict[str, dict[str, float]], load: str
) -> None:
    expected = STOPPED_SECONDS / T
    assert expected / 2 < seen[load]["stopped"] < expected * 1.5
    assert seen[load]["after"] > 0.5 / T / 4


@pytest.mark.parametrize("load", ["idle", "busy"])
def test_all_ends_within_a_second_when_it_dies(
    seen: dict[str, dict[str, float]], load: str
) -> None:
    """Whole cells, then the end, and no process that goes on with its keys."""
    assert seen[load]["octets"] % CELL_LEN == 0
    assert seen[load]["ended"] < END_SECONDS
    assert seen[load]["pacer ended"] < END_SECONDS
