# SPDX-License-Identifier: MIT
"""Two nodes' links from birth to death on a fake network, and all that a snooper saw.

Everything that decides about links is the node's own: gate, listener, dialer, exchange,
lanes.  The network is ours: it keeps each connection with the instants at which its
ends sent, and how much, and said FIN.  Links draw from an entropy of their own, as they
do in a node, so what mail draws changes nothing in theirs.
"""

import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from mesh.core.clock import Clock
from mesh.core.crypto import Key, x25519_public
from mesh.core.handshake import PeerKeys
from mesh.node import dialer as dialer_
from mesh.node import exchange as exchange_
from mesh.node.node import STOP_SECONDS
from mesh.node.pacer.lane import Lane
from mesh.node.port import Ending
from mesh.node.wire import Wire
from tests.descriptors import link_key_of
from tests.harness import (
    FakeWire,
    FixedEntropy,
    Half,
    Patience,
    patient_clock,
    until,
)
from tests.node import ends
from tests.node.ends import End

OTHER = {"alpha": "bravo", "bravo": "alpha"}
FIN = 0
"""In the place of a length."""

Sent = list[tuple[float, int]]
"""What one end of a connection did, each with its instant."""


class SeenWire(FakeWire):
    """A wire that also keeps when its end said FIN, and what it sent to nobody."""

    fin: float | None = None
    reset = False

    def try_send(self, data: bytes | memoryview) -> int:
        if self.other.closed and not (self.closed or self.reset):
            self.reset = True  # what follows does not leave any more
            self.sent.append((trio.current_time(), len(data)))
        return super().try_send(data)

    def end_sending(self) -> None:
        super().end_sending()
        self._fin()

    def close(self) -> None:
        super().close()
        self._fin()

    def _fin(self) -> None:
        if self.fin is None:
            self.fin = trio.current_time()

    @property
    def seen(self) -> Sent:
        """Instants and lengths, FIN last."""
        return [*self.sent, *([] if self.fin is None else [(self.fin, FIN)])]


@dataclass(frozen=True)
class Line:
    """One connection, from its dialler to whom it dialled."""

    dialler: str
    near: SeenWire
    far: SeenWire
    start: float

    def wire(self, name: str) -> SeenWire:
        """That node's end."""
        return self.near if name == self.dialler else self.far

    def cut(self) -> None:
        """Both ends hear that it is gone."""
        self.near.close()
        self.far.close()

    def silence(self) -> None:
        """Nothing gets through any more, and nobody hears of it."""
        self.near.held = self.far.held = True

    def let_through(self, octets: int) -> None:
        """So much of what each end has sent meanwhile gets through."""
        self.near.let_through(octets)
        self.far.let_through(octets)

    def let_go(self) -> None:
        """All is well again, and nothing was lost."""
        self.near.let_go()
        self.far.let_go()


@dataclass(frozen=True)
class Seen:
    """One connection as the snooper has it."""

    dialler: str
    start: float
    near: Sent
    far: Sent


class World:
    """Alpha and bravo, who are each other's only peers, and the network."""

    def __init__(
        self,
        folder: Path,
        nursery: trio.Nursery,
        klass: int = 6,
        clock: Clock = Clock.RENEWAL,
    ) -> None:
        self._folder, self._nursery = folder, nursery
        self._klass, self._clock = klass, clock
        self.ends: dict[str, End] = {}
        self.lines: list[Line] = []
        self.calls: list[tuple[float, str]] = []
        """Attempts to connect: when, and whose."""
        self.keys: dict[str, list[Key]] = {name: [link_key_of(name)] for name in OTHER}
        self._doors: dict[str, trio.Nursery] = {}
        self._kept: dict[str, trio.CancelScope] = {}

    def keys_of(self, name: str) -> PeerKeys:
        """What everybody knows of a node now."""
        link_keys = tuple(x25519_public(key) for key in self.keys[name])
        return PeerKeys(name, ends.keys_of(name).identity, link_keys)

    def half(self, name: str) -> Half:
        return self.ends[name].half

    @property
    def up(self) -> Line:
        """The one connection that there is."""
        (line,) = (each for each in self.lines if not each.near.closed)
        return line

    # nodes

    async def start(
        self, name: str, klass: int | None = None, clock: Clock | None = None
    ) -> None:
        """Start a node; again after it has ended."""
        klass = self._klass if klass is None else klass
        clock = self._clock if clock is None else clock
        await self._nursery.start(self._run, name, klass, clock)

    async def _run(
        self, name: str, klass: int, clock: Clock, task_status: trio.TaskStatus[None]
    ) -> None:
        other = OTHER[name]
        async with (
            ends.end(
                self._folder,
                name,
                other,
                clock=clock,
                klass=klass,
                keys_of=self.keys_of,
                routes={f"mix@{name}": "local:0", f"mix@{other}": other},
            ) as made,
            trio.open_nursery() as doors,
        ):
            made.half.exchange.entropy = FixedEntropy("links of " + name)
            made.statics[:] = [
                key.copy() for key in self.keys[name]
            ]  # which are wiped with the node
            self.ends[name] = made
            self._doors[name] = doors
            task_status.started()
            with trio.CancelScope() as self._kept[name]:
                await made.dialer.keep(lambda: self.keys_of(other), lambda: (other,))
            await trio.sleep_forever()

    async def stop(self, name: str) -> None:
        """End a node as SIGTERM does (node.py)."""
        exchange = self.half(name).exchange
        exchange.close()
        with trio.move_on_after(STOP_SECONDS):
            while any(peer.ports for peer in exchange.peers.values()):  # noqa: ASYNC110
                await trio.sleep(0.01)
        self.kill(name)

    def kill(self, name: str) -> None:
        """End a node as SIGKILL does; the kernel closes its connections."""
        self._doors.pop(name).cancel_scope.cancel()

    def remove(self, name: str) -> None:
        """Take the other one out of a node's list, as keeping.py does."""
        made, other = self.ends[name], OTHER[name]
        made.listed.discard(other)
        self._kept[name].cancel()
        made.half.exchange.peers[other].close_links()

    def rotate(self, name: str, keys: list[Key]) -> None:
        """Give a node these link keys, newest first, and let all know."""
        made = self.ends[name]
        self.keys[name] = keys
        made.statics[:] = [key.copy() for key in keys]
        made.gate.rekey(made.statics)

    # the network

    async def connect(self, addresses: tuple[str, ...]) -> Wire | None:
        """In the place of TCP: an address is a node's name."""
        (called,) = addresses
        caller = OTHER[called]
        self.calls.append((trio.current_time(), caller))
        await trio.lowlevel.checkpoint()
        if called not in self._doors:
            return None
        near, far = SeenWire(), SeenWire()
        near.other, far.other = far, near
        self.lines.append(Line(caller, near, far, trio.current_time()))
        self._doors[called].start_soon(self.ends[called].listener.serve, far)
        return near

    def whose(self, wire: object) -> tuple[int, str]:
        """The line, and the node, that this is one end of."""
        for number, line in enumerate(self.lines):
            for name in OTHER:
                if line.wire(name) is wire:
                    return number, name
        raise AssertionError("a wire of no line")

    @property
    def proven(self) -> list[bytes]:
        """The link keys that both ends saw on the connection that is up."""
        sessions = (
            made.half.exchange.peers[OTHER[name]].session
            for name, made in sorted(self.ends.items())
            if OTHER[name] in made.half.exchange.peers
        )
        return [each.peer_link_key for each in sessions if each]

    @property
    def seen(self) -> list[Seen]:
        """Each connection, in order."""
        return [
            Seen(line.dialler, line.start, line.near.seen, line.far.seen)
            for line in self.lines
        ]


@dataclass
class Mail:
    """What was handed over, and to whom; `arrived` is asked at the end."""

    sent: dict[str, list[bytes]] = field(
        default_factory=lambda: {name: [] for name in OTHER}
    )

    def submit(self, world: World, name: str, content: bytes) -> None:
        """Hand a message for the other node over to this one."""
        other = OTHER[name]
        world.half(name).submit(content, f"mix@{other}")
        self.sent[other].append(content)

    async def all_there(self, world: World) -> int:
        """Wait until what was sent has come, and see that it came once.

        Where nothing was, there is nothing to wait for that could come twice.
        """
        for name, contents in self.sent.items():
            came = world.half(name).qmgr.queue("local:0").ready
            count = len(contents)
            await until(lambda came=came, count=count: len(came) >= count, 1000)  # type: ignore[misc]
        if any(self.sent.values()):
            await trio.sleep(60)
        for name, contents in self.sent.items():
            assert sorted(await world.half(name).arrived()) == sorted(contents)
        return sum(map(len, self.sent.values()))


class Said(NamedTuple):
    """A lane was told how to end: of which line, whose end, when."""

    line: int
    name: str
    at: float
    ending: Ending


@dataclass
class Told:
    """What a run brought: the snooper's part, and ours."""

    lines: list[Seen]
    calls: list[tuple[float, str]]
    ends: list[Said]
    arrived: int
    keys: list[bytes]
    """The link keys by which the newest connection was made."""
    waiting: list[int]
    """Messages that each node still had when the story was over."""


Story = Callable[[World], Awaitable[None]]
Patch = pytest.MonkeyPatch


def live(
    story: Story,
    load: Callable[[World, Mail], None],
    life: tuple[float, float],
    patch: Patch,
    klass: int = 6,
    clock: Clock = Clock.RENEWAL,
    *,
    to_the_end: bool = True,
) -> Told:
    """Let alpha and bravo live through a story, from instant 0 of a clock of its own.

    Their links are up when it begins; connections are replaced at an age of `life`.
    The load comes 10 s after the start.  What arrives later is waited for, unseen;
    not `to_the_end`: nobody asks whether it does, and `arrived` is 0.
    """
    time = patient_clock(Patience(patch))
    patch.setattr(exchange_, "LIFE_SECONDS", life)

    async def run() -> Told:
        async with trio.open_nursery() as nursery:
            world = World(Path(folder), nursery, klass, clock)
            told, mail = await _live(world, story, load, patch)
            if to_the_end:
                told.arrived = await mail.all_there(world)
            nursery.cancel_scope.cancel()
        return told

    with tempfile.TemporaryDirectory() as folder:
        return trio.run(run, clock=time)


async def _live(
    world: World, story: Story, load: Callable[[World, Mail], None], patch: Patch
) -> tuple[Told, Mail]:
    patch.setattr(dialer_, "_connect", world.connect)
    ends_told = _listen_to_ends(world, patch)
    await world.start("alpha")
    await trio.sleep(0.5)
    await world.start("bravo")
    await trio.sleep_until(10)
    mail = Mail()
    load(world, mail)
    await story(world)
    waiting = [world.half(name).spool.waiting for name in OTHER]
    told = Told(
        world.seen, list(world.calls), list(ends_told), 0, world.proven, waiting
    )
    return told, mail


def _listen_to_ends(world: World, patch: Patch) -> list[Said]:
    end_after = Lane.end_after
    told: list[Said] = []

    def noting(lane: Lane, cells: int, *, linger: bool) -> None:
        if lane._left is None:
            line, name = world.whose(lane._wire)
            now = trio.current_time()
            told.append(Said(line, name, now, Ending(cells, linger)))
        end_after(lane, cells, linger=linger)

    patch.setattr(Lane, "end_after", noting)
    return told
