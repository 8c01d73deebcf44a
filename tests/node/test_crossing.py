# SPDX-License-Identifier: MIT
"""Two nodes that dial each other, replace, lose and find connections, in any order."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.link import Link
from mesh.node.inside import REPLACED_CELLS
from mesh.node.peer import Peer
from mesh.node.port import Ending
from tests.harness import Half, half, inside
from tests.node.crossing import Cord, Tip

INTERLEAVINGS = 1_000
HERE = {"alpha": "mix@alpha", "bravo": "mix@bravo"}


class Two:
    """Alpha, bravo, their cords, and the mail between them."""

    def __init__(self, alpha: Half, bravo: Half) -> None:
        self.halves = (alpha, bravo)
        self.cords: list[Cord] = []
        self.made = 0
        self.sent: dict[str, list[bytes]] = {"alpha": [], "bravo": []}

    def dial(self, near: int) -> Cord:
        self.made += 1
        cord = Cord(self.halves[near], self.halves[1 - near], self.made)
        self.cords.append(cord)
        return cord

    def submit(self, near: int, length: int) -> None:
        to = self.halves[1 - near]
        contents = self.sent[to.name]
        contents.append(b"%06d\r\n" % len(contents) * (length // 8))
        self.halves[near].submit(contents[-1], HERE[to.name])

    @property
    def peers(self) -> tuple[Peer, Peer]:
        alpha, bravo = self.halves
        return alpha.exchange.peers["bravo"], bravo.exchange.peers["alpha"]

    def links(self) -> list[Link]:
        """The link at each end."""
        tips = sorted_tips(self.carried_by_one())
        return [inside(tip.port).link for tip in tips]

    def cut(self) -> None:
        """Nothing is left."""
        for cord in self.cords:
            cord.cut()
        self.turn()
        assert not any(peer.ports for peer in self.peers)

    def step(self, chance: random.Random) -> None:
        chance.choice(self.cords).step(chance.randrange)

    def turn(self) -> None:
        for cord in self.cords:
            cord.turn()
        self.cords = [cord for cord in self.cords if not cord.ended]

    async def settle(self) -> None:
        """Until nothing changes any more: one connection, or none."""
        for _ in range(200):
            self.turn()
            tips = [tip for cord in self.cords for tip in cord.tips]
            if len(tips) <= 2 and not any(tip.port.retired for tip in tips):
                break
        for _ in range(4):
            self.turn()
        await trio.sleep(0.01)

    def carried_by_one(self) -> Cord:
        """The one connection that carries the one link, at both ends."""
        (cord,) = self.cords
        for tip, peer in zip(sorted_tips(cord), self.peers, strict=True):
            assert peer.ports == [tip.port]
            assert inside(tip.port).port is tip.port
            assert inside(tip.port).link is tip.port.strand.link
            assert not tip.port.retired
            assert tip.port.can_offer
            assert not tip.port.strand.waits
        return cord

    async def all_came(self) -> None:
        """Each message once."""
        for half_ in self.halves:
            sent = self.sent[half_.name]
            for _ in range(20_000):
                if len(half_.qmgr.queue("local:0").ready) >= len(sent):
                    break
                self.turn()
                await trio.sleep(0.01)
        for _ in range(20):
            self.turn()
            await trio.sleep(0.01)
        for half_ in self.halves:
            assert sorted(await half_.arrived()) == sorted(self.sent[half_.name])
        assert all(peer.up for peer in self.peers)


def sorted_tips(cord: Cord) -> list[Tip]:
    """Alpha's end first."""
    return sorted(cord.tips, key=lambda tip: tip.peer.name, reverse=True)


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[Two]:
    routes = {"mix@alpha": "alpha", "mix@bravo": "bravo"}
    async with (
        half(folder, "alpha", routes | {"mix@alpha": "local:0"}) as alpha,
        half(folder, "bravo", routes | {"mix@bravo": "local:0"}) as bravo,
    ):
        yield Two(alpha, bravo)


async def test_crossing_dials_end_with_one_link_on_one_connection(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """From nothing or over a link that is up, in a thousand orders; mail all the while."""
    chance = random.Random(5)  # noqa: S311  # the same at each run
    async with two(tmp_path) as world:
        for number in range(INTERLEAVINGS):
            if world.made and number % 3 == 0:
                world.cut()
            before = world.cords[:1]
            for near in chance.sample((0, 1), 2) * chance.choice((1, 1, 1, 2)):
                world.dial(near)
                if chance.random() < 0.1:
                    world.submit(chance.randrange(2), chance.choice((8, 800, 200_000)))
                for _ in range(chance.choice((0, 3, 10, 40, 160))):
                    world.step(chance)
                if chance.random() < 0.2:
                    await trio.sleep(0.01)
            await world.settle()
            cord = world.carried_by_one()
            assert cord.near.peer.name == "bravo"  # alpha, the smaller, has dialled it
            assert cord not in before
        await world.all_came()
        assert min(map(len, world.sent.values())) > 80


async def test_a_link_moves_in_whatever_order_things_come(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Nothing of it begins again: at both ends it is the same one to the end."""
    chance = random.Random(6)  # noqa: S311  # the same at each run
    async with two(tmp_path) as world:
        world.dial(0)
        await world.settle()
        links = world.links()
        for _ in range(300):
            if chance.random() < 0.2:
                world.submit(chance.randrange(2), chance.choice((8, 800, 200_000)))
                await trio.sleep(0.01)
            old = world.carried_by_one()
            new = world.dial(0)
            for _ in range(chance.choice((3, 10, 40, 160, 640))):
                world.step(chance)
            await world.settle()
            assert world.carried_by_one() is new
            assert world.links() == links
            for tip in old.tips:
                assert not tip.broken
                assert tip.ending == Ending(REPLACED_CELLS, linger=True)
        await world.all_came()


@pytest.mark.parametrize("dies", ["old", "new", "both"])
@pytest.mark.parametrize("length", [8, 200_000])
async def test_connections_that_die_at_each_step_lose_nothing_but_time(
    tmp_path: Path, autojump_clock: MockClock, dies: str, length: int
) -> None:
    """Step by step through a replacement; whatever is left, or the next one, has all."""
    again = 0
    async with two(tmp_path) as world:
        for at in range(60):
            if not world.cords:
                world.dial(0)
                await world.settle()
            links = world.links()
            old = world.carried_by_one()
            if at % 5 == 0:
                for near in (0, 1):
                    world.submit(near, length)
                await trio.sleep(0.05)
                world.turn()
            new = world.dial(0)
            things = [
                thing
                for cord in (new, old)
                for tip in cord.tips
                for thing in (tip.send, tip.receive)
            ]
            for number in range(at):
                things[number % len(things)]()
            for cord in {"old": (old,), "new": (new,), "both": (old, new)}[dies]:
                cord.cut()
            await world.settle()
            if world.cords:
                world.carried_by_one()
                again += world.links() != links
            else:
                assert not any(peer.ports for peer in world.peers)
                again += 1
        if not world.cords:
            world.dial(0)
        await world.all_came()
    # The new one takes nothing with it before it was up; the old one nothing after the
    # last words came.
    assert 0 < again < 60 if dies != "both" else again == 60


async def test_whatever_dies_at_random_all_arrives_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    chance = random.Random(7)  # noqa: S311  # the same at each run
    async with two(tmp_path) as world:
        for _ in range(400):
            if chance.random() < 0.2:
                world.submit(chance.randrange(2), chance.choice((8, 800, 200_000)))
                await trio.sleep(0.01)
            for _ in range(chance.choice((1, 1, 2))):
                world.dial(chance.randrange(2))
                for _ in range(chance.choice((0, 3, 10, 40, 160))):
                    world.step(chance)
                if chance.random() < 0.5:
                    chance.choice(world.cords).cut()
            for _ in range(chance.choice((0, 0, 10, 40))):
                world.step(chance)
            await world.settle()
            if world.cords:
                world.carried_by_one()
            assert all(len(peer.ports) == len(world.cords) for peer in world.peers)
        if not world.cords:
            world.dial(0)
        await world.all_came()
        assert min(map(len, world.sent.values())) > 30
