# SPDX-License-Identifier: MIT
"""The pump, over socket pairs."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mesh.errors import IoError
from mesh.node.guard import Guard
from mesh.node.pump import (
    LINGER_SECONDS,
    LOOKS_MAX,
    READ,
    TURN_MAX,
    TURN_SECONDS,
    WRITE,
    Pump,
    Seat,
)


class Owner:
    """Notes what it hears; reads an octet a call, unless told otherwise."""

    def __init__(self, pump: Pump, near: socket.socket, far: socket.socket) -> None:
        near.setblocking(False)
        self.near, self.far = near, far
        self.heard: list[bytes] = []
        self.events: list[int] = []
        self.dropped = 0
        self.answers = False
        self.act: Callable[[int], None] = self.read
        self.seat: Seat = pump.add(near, self)

    def serve(self, events: int) -> bool:
        self.events.append(events)
        self.act(events)
        return self.answers

    def read(self, _: int) -> None:
        self.heard.append(self.near.recv(1))
        if not self.heard[-1]:
            self.end()

    def end(self) -> None:
        self.seat.leave()
        self.near.close()

    def drop(self) -> None:
        self.dropped += 1
        self.end()


Make = Callable[[], Owner]


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.fixture
def pump(guard: Guard) -> Pump:
    return Pump(guard)


@pytest.fixture
def make(pump: Pump) -> Iterator[Make]:
    with ExitStack() as stack:

        def pair() -> Owner:
            near, far = socket.socketpair()
            stack.enter_context(near)
            stack.enter_context(far)
            return Owner(pump, near, far)

        yield pair


async def test_each_that_is_ready_is_served(pump: Pump, make: Make) -> None:
    before, idle = make(), make()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        await wait_all_tasks_blocked()
        while_it_runs = make()
        for owner in (before, while_it_runs):
            owner.far.send(b"xy")
        await wait_all_tasks_blocked()
        assert before.heard == while_it_runs.heard == [b"x", b"y"]
        before.far.send(b"z")
        before.far.close()
        await wait_all_tasks_blocked()
        assert before.heard == [b"x", b"y", b"z", b""]
        assert not idle.events
        nursery.cancel_scope.cancel()


async def test_after_its_end_it_can_run_again(pump: Pump, make: Make) -> None:
    for said in (b"a", b"b"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            await wait_all_tasks_blocked()
            owner = make()
            owner.far.send(said)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert owner.heard == [said]


async def test_what_is_waited_for_can_change(pump: Pump, make: Make) -> None:
    owner = make()
    owner.act = lambda _: owner.seat.want(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        owner.far.send(b"x")
        await wait_all_tasks_blocked()
        assert owner.events == [READ]
        owner.far.close()  # one that is gone is no news to who waits for nothing
        await wait_all_tasks_blocked()
        assert owner.events == [READ]
        owner.seat.want(WRITE)
        await wait_all_tasks_blocked()
        assert len(owner.events) == 2
        assert owner.events[1] & WRITE
        owner.act = owner.read
        owner.seat.want(READ)
        owner.seat.want(READ)
        await wait_all_tasks_blocked()
        assert owner.heard == [b"x", b""]
        owner.seat.want(READ | WRITE)  # it has left, and its socket is closed
        owner.seat.leave()
        nursery.cancel_scope.cancel()


async def test_who_leaves_is_served_no_more_in_the_same_turn(
    pump: Pump, make: Make
) -> None:
    owners = [make(), make()]

    def end_both(_: int) -> None:
        for owner in owners:
            owner.end()

    for owner in owners:
        owner.act = end_both
        owner.far.send(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sum(len(owner.events) for owner in owners) == 1


async def test_a_bug_ends_one_connection(pump: Pump, make: Make, guard: Guard) -> None:
    bad, good = make(), make()
    bad.act = lambda _: [][1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        for owner in (bad, good):
            owner.far.send(b"x")
        await wait_all_tasks_blocked()
        assert (bad.dropped, bad.near.fileno(), guard.bugs) == (1, -1, 1)
        good.far.send(b"y")
        await wait_all_tasks_blocked()
        assert good.heard == [b"x", b"y"]
        nursery.cancel_scope.cancel()


async def test_a_disk_in_doubt_ends_the_pump(pump: Pump, make: Make) -> None:
    owner = make()

    def fail(_: int) -> None:
        raise IoError("the disk")

    owner.act = fail
    owner.far.send(b"x")
    with pytest.raises(IoError):
        await pump.run()
    assert not owner.dropped
    owner.seat.want(READ | WRITE)  # nobody serves it any more


async def test_others_have_their_turn_and_nobody_is_left_out(
    pump: Pump, make: Make
) -> None:
    """Sockets that are always ready: each is served as often, and a task runs too."""
    owners = [make() for _ in range(3 * TURN_MAX)]
    longest = 0
    calls = 0
    turns = 0

    def count(_: int) -> None:
        nonlocal calls
        calls += 1

    for owner in owners:
        owner.act = count
        owner.far.send(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        while turns < 50:
            calls = 0
            await trio.lowlevel.checkpoint()
            turns += 1
            longest = max(longest, calls)
        nursery.cancel_scope.cancel()
    assert longest <= 2 * TURN_MAX  # last of all tasks once, and then the first
    served = [len(owner.events) for owner in owners]
    assert max(served) - min(served) <= 1


async def test_who_sends_without_end_is_not_alone(pump: Pump, make: Make) -> None:
    owner = make()
    owner.act = lambda _: None  # there is always more
    owner.far.send(b"x")
    before = after = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump.run)
        for _ in range(20):
            before = len(owner.events)
            await trio.lowlevel.checkpoint()
            after = max(after, len(owner.events) - before)
        nursery.cancel_scope.cancel()
    assert 0 < after <= 2 * LOOKS_MAX


async def test_a_turn_has_something_around_it(guard: Guard) -> None:
    said: list[str] = []

    @contextmanager
    def turn() -> Iterator[None]:
        said.append("begin")
        yield
        said.append("end")

    pump = Pump(guard, turn)
    with ExitStack() as stack:
        for name in ("a", "b"):
            near, far = (stack.enter_context(sock) for sock in socket.socketpair())
            owner = Owner(pump, near, far)
            owner.act = partial(_say, owner, said, name)
            far.send(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert (said[0], sorted(said[1:3]), said[3]) == ("begin", ["a", "b"], "end")


def _say(owner: Owner, said: list[str], name: str, _: int) -> None:
    said.append(name)
    owner.read(0)


async def test_long_calls_end_a_turn_and_nobody_is_left_out(guard: Guard) -> None:
    """Where each call takes a turn's whole time, each turn has one, of each in turn."""
    now = 0.0
    pump = Pump(guard, clock=lambda: now)
    with ExitStack() as stack:
        owners = []
        for _ in range(5):
            near, far = map(stack.enter_context, socket.socketpair())
            owners.append(Owner(pump, near, far))
            far.send(b"x")

        def dawdle(_: int) -> None:
            nonlocal now
            now += TURN_SECONDS

        for owner in owners:
            owner.act = dawdle
        most = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            for _ in range(50):
                before = sum(len(owner.events) for owner in owners)
                await trio.lowlevel.checkpoint()
                calls = sum(len(owner.events) for owner in owners) - before
                most = max(most, calls)
            nursery.cancel_scope.cancel()
        assert most <= 2  # last of all tasks once, and then the first
        served = [len(owner.events) for owner in owners]
        assert min(served) > 1
        assert max(served) - min(served) <= 1


@pytest.mark.parametrize(
    ("clients", "answers", "lingers"),
    [(1, True, True), (1, False, False), (2, True, False)],
)
async def test_a_lone_client_that_was_answered_is_waited_for(
    guard: Guard, clients: int, answers: bool, lingers: bool
) -> None:
    """Its next word comes while the clock is asked, and is of the same turn."""
    now, turns, looked = 0.0, 0, 0

    @contextmanager
    def turn() -> Iterator[None]:
        nonlocal turns
        turns += 1
        yield

    def clock() -> float:
        nonlocal now, looked
        now += LINGER_SECONDS / 4
        if turns == 1:
            looked += 1
            if lingers and looked == 3:  # the turn's, the call's, the wait's
                owners[0].far.send(b"y")
        return now

    pump = Pump(guard, turn, clock)
    with ExitStack() as stack:
        owners: list[Owner] = []
        for _ in range(clients):
            near, far = map(stack.enter_context, socket.socketpair())
            owners.append(Owner(pump, near, far))
            owners[-1].answers = answers
            far.send(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert owners[0].heard == ([b"x", b"y"] if lingers else [b"x"])
    assert turns == 1
    if lingers:
        assert looked < 20  # and not for ever
    else:
        assert looked == 1 + clients


async def test_nobody_waits_for_the_next_word_of_another(guard: Guard) -> None:
    """Who has handed a message over in this turn has it committed at its end."""
    now, asked = 0.0, 0

    def clock() -> float:
        nonlocal now, asked
        asked += 1
        now += LINGER_SECONDS / 4
        return now

    pump = Pump(guard, clock=clock)
    with ExitStack() as stack:
        pairs = [[*map(stack.enter_context, socket.socketpair())] for _ in range(2)]
        first, other = (Owner(pump, *pair) for pair in pairs)
        other.answers = True

        def hand_over(_: int) -> None:
            first.read(0)
            other.far.send(b"x")

        first.act = hand_over
        first.far.send(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert other.heard == [b"x"]
    assert asked == 3
