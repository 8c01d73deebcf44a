# SPDX-License-Identifier: MIT
"""When the main process looks at what came: it sleeps as long as it may, and no longer."""

import math
import time
from typing import Any, cast

import pytest
import trio
import trio.testing

from mesh.core.clock import CLASS_MAX, period_of
from mesh.node.pacer import client
from mesh.node.pacer.board import LOG_SURE, Board
from mesh.node.pacer.client import LATER_SECONDS, MANY, Feed, Pacer
from mesh.node.pacer.histogram import ROWS_LEN
from mesh.node.pacer.lane import CLOSED
from mesh.node.pacer.ring import Ring, length_of, slots_of
from mesh.node.parking import Parking
from mesh.node.port import Ending, Port


class Fed:
    """What is woken for a link."""

    def __init__(self) -> None:
        self.changed = Parking()
        self.woken = trio.Event()

    async def run(self) -> None:
        await self.changed.park()
        self.woken.set()


def carrying(*classes: int) -> tuple[Pacer, Board, list[Fed]]:
    """A main process's hand without a process; what a pacer would show; its links."""
    pacer, feds = Pacer(), [Fed() for _ in classes]
    for number, klass in enumerate(classes):
        pacer._feeds[number] = cast("Any", feds[number])
        pacer._carried[klass] += 1
    pacer._board.begin()
    memory = cast("Any", pacer.histogram)._words.obj
    return pacer, Board(memory, ROWS_LEN), feds


@pytest.mark.parametrize("klass", range(CLASS_MAX + 1))
def test_no_ring_runs_empty_between_two_looks_and_nothing_waits_long(
    klass: int,
) -> None:
    later = carrying(0, klass)[0]._later()
    out, _ = slots_of(klass)
    between = later / period_of(klass) + 1  # instants, on average
    assert between <= max(2, out / 4)
    assert between >= 3 or klass < 9  # of a fast link many at once
    assert later <= LATER_SECONDS == carrying()[0]._later()


def test_it_sleeps_for_ever_without_links_and_not_long_before_the_first_instant() -> (
    None
):
    assert carrying()[0]._pause() == math.inf
    pacer, shown, _ = carrying(3)
    assert pacer._pause() == LATER_SECONDS  # the pacer has not shown it yet
    shown.show(time.monotonic() + 100)
    assert 99 < pacer._pause() <= 100 + LATER_SECONDS
    shown.show(time.monotonic() - 100)
    assert pacer._pause() == LATER_SECONDS


def never() -> None:
    raise AssertionError("it was taken for hung")


@pytest.mark.parametrize("instants", [1, LOG_SURE + 1])
async def test_those_that_had_instants_are_woken(instants: int) -> None:
    pacer, shown, feds = carrying(12, 12)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for fed in feds:
                nursery.start_soon(fed.run)
            nursery.start_soon(pacer._look, never)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(instants):
                shown.note(1)
            await feds[1].woken.wait()
            # Too many to know whose they were: all.
            assert feds[0].woken.is_set() == (instants > 1)
            nursery.cancel_scope.cancel()


async def test_a_link_that_is_given_is_not_left_until_a_slow_one_s_instant() -> None:
    pacer, shown, feds = carrying(0, 3)
    with trio.fail_after(6):
        async with trio.open_nursery() as nursery:
            for fed in feds:
                nursery.start_soon(fed.run)
            nursery.start_soon(pacer._look, never)
            await trio.testing.wait_all_tasks_blocked()
            shown.show(time.monotonic() + 8)
            shown.note(0)
            await feds[0].woken.wait()
            await (
                trio.testing.wait_all_tasks_blocked()
            )  # it sleeps until the 8th second
            shown.note(1)
            pacer._given.wake()
            await feds[1].woken.wait()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("shown", [False, True])
async def test_one_that_lets_its_instants_pass_is_noticed(
    monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    """Whether it had shown its links' instants before, or stopped before that."""
    monkeypatch.setattr(client, "HUNG_SECONDS", 0.2)
    pacer, board, _ = carrying(9)
    hung = trio.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pacer._look, hung.set)
            await trio.testing.wait_all_tasks_blocked()
            if shown:
                board.show(time.monotonic())
            await hung.wait()
            nursery.cancel_scope.cancel()


async def test_one_that_has_nothing_to_do_is_not_hung(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Before an instant, or when its first link for long was given just now."""
    monkeypatch.setattr(client, "HUNG_SECONDS", 0.0)
    waiting, board, _ = carrying(0)
    board.show(time.monotonic() + 100)
    waiting._board.begin = lambda: None  # type: ignore[method-assign]
    idle, shown, _ = carrying()
    fed = Fed()
    hung: list[None] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting._look, never)
        nursery.start_soon(idle._look, lambda: hung.append(None))
        await trio.sleep(300)
        nursery.start_soon(fed.run)
        idle._feeds[0] = cast("Any", fed)
        shown.note(0)
        await trio.lowlevel.checkpoint()
        idle._given.wake()
        await fed.woken.wait()
        assert not hung
        nursery.cancel_scope.cancel()


class Flooded:
    """An inside that has the next body in its ring before it has heard the last one."""

    ending: Ending | None = None
    has_data = finished = False

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.on_data = lambda: None
        self.bodies = 0
        self.flooded = True

    def receive_body(self, body: bytes) -> None:
        self.bodies += 1
        if self.flooded:
            self.ring.came()
            assert self.bodies < 100 * MANY

    def received(self) -> None:
        pass


async def test_a_flooding_peer_leaves_others_their_turn() -> None:
    memory = bytearray(length_of(12))
    ring = Ring(memory, 12)
    port = Flooded(ring)
    feed = Feed(Ring(memory, 12), cast("Port", port), lambda _: None)
    reasons: list[int] = []

    async def run() -> None:
        reasons.append(await feed.run())

    async with trio.open_nursery() as nursery:
        ring.came()
        nursery.start_soon(run)
        for turn in range(3):
            await trio.lowlevel.checkpoint()
            assert turn <= port.bodies / MANY <= turn + 1
        port.flooded = False
        for _ in range(MANY):
            ring.came()
        ring.end(CLOSED)
    assert reasons == [CLOSED]  # and what came before the end was heard
    assert port.bodies % MANY == 1
