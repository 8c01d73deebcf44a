# SPDX-License-Identifier: MIT
"""The pacer's process, with real sockets and in real time: what it carries, how it ends."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from mesh.core.cell import BODY_LEN, CELL_LEN, CLOSE_BODY, PADDING
from mesh.core.clock import Clock
from mesh.core.memory import KEY_LEN
from mesh.errors import PacerError, RemoteProtocolError
from mesh.node.pacer import client
from mesh.node.pacer.client import GONE, MANY, Pacer
from mesh.node.pacer.lane import BROKEN, CLOSED, DEAD_SECONDS
from mesh.node.pacer.ring import KEYS_AT
from mesh.node.port import Ending
from mesh.node.wire import SocketWire
from tests.harness import sessions

KLASS = 9
"""64 cells a second: seconds of real time are minutes of an ordinary link."""


def body(number: int) -> bytes:
    return number.to_bytes(4, "big").ljust(BODY_LEN, b"\1")


class Box:
    """The least inside that a carrier can have."""

    def __init__(self) -> None:
        self.to_send: list[bytes] = []
        self.came: list[bytes] = []
        self.ending: Ending | None = None
        self.finished = False
        self.refuses = False
        self.heard = trio.Event()
        self.on_data: Callable[[], None] = lambda: None

    @property
    def has_data(self) -> bool:
        return bool(self.to_send)

    def next_body(self) -> bytes:
        return self.to_send.pop(0)

    def receive_body(self, octets: bytes) -> None:
        if self.refuses:
            raise RemoteProtocolError("what no honest peer says")
        self.came.append(octets)

    def received(self) -> None:
        self.heard.set()

    @property
    def words(self) -> list[bytes]:
        return [octets for octets in self.came if octets != PADDING]

    async def until(self, holds: Callable[[], object]) -> None:
        while not holds():
            self.heard = trio.Event()
            await self.heard.wait()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


class Ends:
    """Both ends of one link, carried by one pacer."""

    def __init__(self, nursery: trio.Nursery, pacer: Pacer, clock: Clock) -> None:
        self.boxes = Box(), Box()
        self.reasons: list[int | None] = [None, None]
        self.ended = trio.Event(), trio.Event()
        both = sessions("alpha", "bravo", clock=clock, klass=KLASS)
        for side, sock in enumerate(tcp_pair()):
            nursery.start_soon(self._run, pacer, side, both[side], SocketWire(sock))

    async def _run(
        self, pacer: Pacer, side: int, session: object, wire: object
    ) -> None:
        self.reasons[side] = await pacer.carry(wire, session, self.boxes[side])  # type: ignore[arg-type]
        self.ended[side].set()


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Pacer, trio.Nursery]]:
    with trio.fail_after(120):  # an end, not a time: the host may be busy
        async with trio.open_nursery() as nursery:
            pacer = Pacer()
            await nursery.start(pacer.run)
            yield pacer, nursery
            nursery.cancel_scope.cancel()


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(pid) for pid in listed.split()}


@pytest.mark.parametrize("clock", [c for c in Clock if c is not Clock.GREEDY])
async def test_what_is_said_arrives_in_order_between_zeros(clock: Clock) -> None:
    async with running() as (pacer, nursery):
        ends = Ends(nursery, pacer, clock)
        said = [body(number) for number in range(40)]
        for box in ends.boxes:
            box.to_send = list(said)
            box.on_data()
        for box in ends.boxes:
            await box.until(lambda box=box: len(box.words) == 40)  # type: ignore[misc]
            assert box.words == said


async def test_what_is_there_to_say_at_its_birth_is_in_the_first_cell() -> None:
    sides = sessions("alpha", "bravo", clock=Clock.RENEWAL, klass=KLASS)
    near, far = tcp_pair()
    box = Box()
    box.to_send = [body(1)]
    async with running() as (pacer, nursery):
        nursery.start_soon(pacer.carry, SocketWire(near), sides[0], box)
        with far:
            cell = await trio.to_thread.run_sync(far.recv, CELL_LEN, socket.MSG_WAITALL)
        assert sides[1].opener.open_untrusted(cell) == body(1)
    for side in sides:
        side.wipe()


async def test_an_end_after_so_many_cells_and_a_last_one() -> None:
    async with running() as (pacer, nursery):
        ends = Ends(nursery, pacer, Clock.RENEWAL)
        near, far = ends.boxes
        await far.until(lambda: far.came)
        near.to_send = [body(1)]
        near.ending = Ending(10)
        near.on_data()
        await ends.ended[1].wait()
        assert far.came[-1] == CLOSE_BODY
        assert far.came.count(CLOSE_BODY) == 1
        assert body(1) in far.came  # what was put before has left
        await ends.ended[0].wait()
        assert ends.reasons == [CLOSED, CLOSED]


async def test_two_that_are_replaced_hear_each_other_out() -> None:
    async with running() as (pacer, nursery):
        ends = Ends(nursery, pacer, Clock.RENEWAL)
        near, far = ends.boxes
        await far.until(lambda: far.came)
        near.ending = Ending(2, linger=True)
        near.on_data()
        await far.until(lambda: CLOSE_BODY in far.came)
        assert ends.reasons[0] is None  # it still reads
        far.to_send = [body(number) for number in range(20)]
        far.on_data()
        await near.until(lambda: len(near.words) == 20)
        far.ending = Ending(2, linger=True)
        far.on_data()
        await ends.ended[0].wait()
        await ends.ended[1].wait()
        assert near.words[-1] == CLOSE_BODY


async def test_what_an_inside_does_not_bear_ends_the_link() -> None:
    async with running() as (pacer, nursery):
        ends = Ends(nursery, pacer, Clock.RENEWAL)
        ends.boxes[0].refuses = True
        with trio.fail_after(DEAD_SECONDS):  # and not when nobody reads it any more
            await ends.ended[0].wait()
            await ends.ended[1].wait()
        assert ends.reasons == [BROKEN, CLOSED]


async def test_a_pacer_that_dies_takes_its_links_and_another_one_comes() -> None:
    async with running() as (pacer, nursery):
        (before,) = children()
        many = [Ends(nursery, pacer, Clock.RENEWAL) for _ in range(5)]
        for ends in many:
            await ends.boxes[0].until(lambda box=ends.boxes[0]: box.came)  # type: ignore[misc]
        os.kill(before, signal.SIGKILL)
        for ends in many:
            for ended in ends.ended:
                await ended.wait()
            assert ends.reasons == [GONE, GONE]
        again = Ends(nursery, pacer, Clock.RENEWAL)
        await again.boxes[1].until(lambda: again.boxes[1].came)
        (after,) = children()
        assert after != before


async def test_a_pacer_that_hangs_is_ended_and_another_one_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "HUNG_SECONDS", 1.0)
    async with running() as (pacer, nursery):
        (before,) = children()
        ends = Ends(nursery, pacer, Clock.RENEWAL)
        await ends.boxes[0].until(lambda: ends.boxes[0].came)
        os.kill(before, signal.SIGSTOP)
        for ended in ends.ended:
            await ended.wait()
        assert ends.reasons == [GONE, GONE]
        again = Ends(nursery, pacer, Clock.RENEWAL)
        await again.boxes[1].until(lambda: again.boxes[1].came)
        assert before not in children()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
async def test_what_systemd_and_a_terminal_send_to_all_ends_no_link(
    number: signal.Signals,
) -> None:
    """The main process has it too, and ends its links in order."""
    async with running() as (pacer, nursery):
        (pid,) = children()
        ends = Ends(nursery, pacer, Clock.RENEWAL)
        await ends.boxes[0].until(lambda: ends.boxes[0].came)
        os.kill(pid, number)
        ends.boxes[0].ending = Ending(4)
        ends.boxes[0].on_data()
        for ended in ends.ended:
            await ended.wait()
        assert ends.reasons == [CLOSED, CLOSED]
        assert children() == {pid}


async def test_the_wire_has_whole_cells_only_and_goes_on_while_we_do_nothing() -> None:
    async with running() as (pacer, nursery):
        near, far = tcp_pair()
        ours, _ = sessions("alpha", "bravo", clock=Clock.RENEWAL, klass=KLASS)
        box = Box()
        box.to_send = [body(number) for number in range(100)]
        nursery.start_soon(pacer.carry, SocketWire(near), ours, box)
        await trio.lowlevel.checkpoint()
        with far:
            await trio.to_thread.run_sync(_read_cells, far, 10)
            # The loop of this process stands still, as in a long fsync: cells come.
            assert _read_cells(far, 40) == 40


def _read_cells(sock: socket.socket, count: int) -> int:
    octets = 0
    while octets < count * CELL_LEN:
        octets += len(sock.recv(count * CELL_LEN - octets))
    return octets // CELL_LEN


async def test_more_links_than_packets_at_a_time_are_all_looked_at() -> None:
    async with running() as (pacer, nursery):
        many = [Ends(nursery, pacer, Clock.RENEWAL) for _ in range(MANY)]
        for ends in many:
            for box in ends.boxes:
                box.to_send = [body(1)]
                box.on_data()
        for ends in many:
            for box in ends.boxes:
                await box.until(lambda box=box: box.words)  # type: ignore[misc]


async def test_links_that_do_not_fit_at_once_are_given_one_after_the_other() -> None:
    async with running() as (pacer, nursery):
        (pid,) = children()
        os.kill(pid, signal.SIGSTOP)
        assert pacer._control is not None
        pacer._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        many = [Ends(nursery, pacer, Clock.RENEWAL) for _ in range(20)]
        await trio.testing.wait_all_tasks_blocked()
        assert len(pacer._feeds) < 40
        os.kill(pid, signal.SIGCONT)
        for ends in many:
            for box in ends.boxes:
                await box.until(lambda box=box: box.came)  # type: ignore[misc]


async def test_ends_that_do_not_fit_at_once_are_said_later() -> None:
    async with running() as (pacer, nursery):
        (pid,) = children()
        many = [Ends(nursery, pacer, Clock.RENEWAL) for _ in range(20)]
        for ends in many:
            await ends.boxes[0].until(lambda box=ends.boxes[0]: box.came)  # type: ignore[misc]
        os.kill(pid, signal.SIGSTOP)
        assert pacer._control is not None
        pacer._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for ends in many:
            ends.boxes[0].ending = Ending(1)
            ends.boxes[0].on_data()
        assert pacer._late_words
        os.kill(pid, signal.SIGCONT)
        for ends in many:
            for ended in ends.ended:
                await ended.wait()
            assert ends.reasons == [CLOSED, CLOSED]


async def test_links_that_wait_to_be_given_end_with_the_pacer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memories: list[int] = []
    create = os.memfd_create

    def kept(name: str, flags: int) -> int:
        memory = create(name, flags)
        memories.append(os.dup(memory))
        return memory

    def keys() -> list[bytes]:
        return [os.pread(memory, 2 * KEY_LEN, KEYS_AT) for memory in memories]

    async with running() as (pacer, nursery):
        monkeypatch.setattr(os, "memfd_create", kept)
        (pid,) = children()
        os.kill(pid, signal.SIGSTOP)
        assert pacer._control is not None
        pacer._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        many = [Ends(nursery, pacer, Clock.RENEWAL) for _ in range(20)]
        await trio.testing.wait_all_tasks_blocked()
        held = len(pacer._feeds)
        assert 0 < held < 40
        # One more has its keys there and waits to be given; nobody has taken any.
        assert [any(each) for each in keys()] == [True] * (held + 1)
        os.kill(pid, signal.SIGKILL)
        # Those that were still with us too: a clone would have the same keys.
        for ends in many:
            for ended in ends.ended:
                await ended.wait()
        assert {reason for ends in many for reason in ends.reasons} == {GONE}
        assert not any(map(any, keys()))
    for memory in memories:
        os.close(memory)


@pytest.mark.parametrize("whose", ["pacer", "ours"])
async def test_a_link_too_many_ends_alone(whose: str) -> None:
    async with running() as (pacer, nursery):
        (pacers,) = children()
        first = Ends(nursery, pacer, Clock.RENEWAL)
        await first.boxes[0].until(lambda: first.boxes[0].came)
        pid = pacers if whose == "pacer" else os.getpid()
        wires = [SocketWire(sock) for sock in tcp_pair()]
        one, other = sessions("alpha", "bravo", clock=Clock.RENEWAL, klass=KLASS)
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, before[1]))
        try:
            assert await pacer.carry(wires[0], one, Box()) == GONE
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wires[1].close()
        other.wipe()
        for box in first.boxes:
            count = len(box.came)
            await box.until(lambda box=box, count=count: len(box.came) > count)  # type: ignore[misc]
        assert first.reasons == [None, None]


async def test_it_is_said_while_there_is_none() -> None:
    async with running() as (pacer, _):
        assert pacer.notices == []
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        while not pacer.notices:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert pacer.notices == ["the process that sends cells starts again"]
        await pacer._started.wait()
        assert pacer.notices == []


FAILING = [
    ("#!/bin/sh\nexit 3\n", "it ended with 3: see to"),
    ("#!/bin/sh\nkill -11 $$\n", "it ended with -11: see to"),
    ("", "No such file or directory: see to"),
]


@pytest.mark.parametrize(("program", "why"), FAILING)
async def test_one_that_never_starts_is_not_tried_for_ever(
    program: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails, or crashes, or cannot be made at all."""
    broken = tmp_path / "broken"
    if program:
        broken.write_text(program)
        broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.01)
    with trio.fail_after(30):
        with pytest.RaisesGroup(
            pytest.RaisesExc(PacerError, match=why), flatten_subgroups=True
        ):
            async with trio.open_nursery() as nursery:
                await nursery.start(Pacer().run)


async def test_one_that_hangs_before_its_trial_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hanging))
    monkeypatch.setattr(client, "START_SECONDS", 0.05)
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.01)
    with pytest.RaisesGroup(
        pytest.RaisesExc(PacerError, match="ended with -9"), flatten_subgroups=True
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(Pacer().run)
    assert not children()


async def test_failures_count_in_a_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in vain, then a good one, then twice again: it runs."""
    monkeypatch.setattr(client, "RESTART_SECONDS", 0.01)
    spawn, tries = Pacer._spawn, 0

    def failing(pacer: Pacer) -> object:
        nonlocal tries
        tries += 1
        if tries % 3:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return spawn(pacer)

    monkeypatch.setattr(Pacer, "_spawn", failing)
    async with running() as (pacer, _):
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        while not pacer.notices:  # noqa: ASYNC110
            await trio.sleep(0.01)
        await pacer._started.wait()
        assert tries == 6


PARENT = """
import signal, socket, sys, trio
from mesh.core.clock import Clock
from mesh.core.memory import KEY_LEN
from mesh.node.pacer.client import Pacer
async def main():
    async with trio.open_nursery() as nursery:
        pacer = Pacer()
        await nursery.start(pacer.run)
        with open("/proc/self/task/%d/children" % __import__("os").getpid()) as file:
            print(file.read(), flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_parent(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        watch = os.pidfd_open(pid)
        parent.send_signal(number)
        parent.wait()
        # A pidfd is readable when its process has ended; nobody here reaps it.
        with suppress(ProcessLookupError):
            import select

            assert select.select([watch], [], [], 1.0)[0]
        os.close(watch)
