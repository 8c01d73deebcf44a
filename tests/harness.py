# SPDX-License-Identifier: MIT
"""What every test shares: randomness that repeats, fake time, a fake wire, half a node.

Time is trio's MockClock: it jumps to the next deadline when no task can run.  Work in
a thread (a commit, an fsync) takes no fake time: `Patience` holds the clock while it is
under way, so a disk that is slow today changes nothing in what a test sees.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Clock
from mesh.core.crypto import Key, hash256
from mesh.core.handshake import PeerKeys, Session
from mesh.core.pool import Manner
from mesh.core.record import NO_ID
from mesh.core.reply import Reply
from mesh.node.exchange import Exchange
from mesh.node.gossip import Gossiping
from mesh.node.inside import Inside, Port
from mesh.node.qmgr import QueueManager
from mesh.node.spool import Spool
from mesh.node.wire import SOCKET_BUFFER
from mesh.node.writer import Writer


class FixedEntropy:
    """The same draws for the same seed: SHAKE-256 over a counter."""

    def __init__(self, seed: bytes | str = b"") -> None:
        self._seed = seed.encode() if isinstance(seed, str) else seed
        self._counter = 0

    def octets(self, length: int) -> bytes:
        self._counter += 1
        counter = self._counter.to_bytes(8, "big")
        return hashlib.shake_256(counter + self._seed).digest(length)

    def key(self) -> Key:
        return Key.from_bytes(self.octets(32))


class Patience(trio.abc.Instrument):
    """The fake clock stands still while a thread works.

    Trio's clock jumps when no task can run, even if one waits for a thread.  A call
    into the loop before it looks for events leaves it something to do instead.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.stuck: set[Writer] = set()
        """Threads that a test holds up: time goes on without them."""
        self._jobs: Counter[Writer] = Counter()
        self._threads = 0
        submit, run_sync = Writer.submit, trio.to_thread.run_sync

        def counting(
            writer: Writer,
            job: Callable[[], Any],
            done: Callable[[Any, BaseException | None], None],
        ) -> None:
            def ended(result: Any, error: BaseException | None) -> None:
                self._jobs[writer] -= 1
                done(result, error)

            self._jobs[writer] += 1
            submit(writer, job, ended)

        async def running(*args: Any, **options: Any) -> Any:
            self._threads += 1
            try:
                return await run_sync(*args, **options)
            finally:
                self._threads -= 1

        patch.setattr(Writer, "submit", counting)
        patch.setattr(trio.to_thread, "run_sync", running)

    @contextmanager
    def slow_disk(self, spool: Spool) -> Iterator[None]:
        """Nothing that is given to this spool is committed within; time goes on."""
        freed = threading.Event()
        spool._writer.submit(freed.wait, lambda _result, _error: None)
        self.stuck.add(spool._writer)
        try:
            yield
        finally:
            freed.set()
            self.stuck.remove(spool._writer)

    def before_io_wait(self, timeout: float) -> None:
        del timeout
        threads = (
            self._threads
        )  # those of limiters of their own too, and abandoned ones
        threads += trio.to_thread.current_default_thread_limiter().borrowed_tokens
        busy = any(self._jobs[each] for each in self._jobs if each not in self.stuck)
        if busy or threads:
            time.sleep(0.0001)  # lets the thread have the interpreter
            trio.lowlevel.current_trio_token().run_sync_soon(_nothing, idempotent=True)


def _nothing() -> None:
    pass


def patient_clock(patience: Patience) -> trio.testing.MockClock:
    """A clock that jumps when no task and no thread has anything to do."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    start = clock.start_clock

    def started() -> None:
        start()
        trio.lowlevel.add_instrument(patience)

    clock.start_clock = started  # type: ignore[method-assign]
    return clock


class FakeWire:
    """One end of a connection in memory; `sent` has (time, octets) of each send.

    The network between the ends is the sender's: with `held` nothing gets through
    and the kernel keeps up to `capacity` octets; `let_go` delivers them.
    """

    def __init__(self) -> None:
        self.other: FakeWire
        self.sent: list[tuple[float, int]] = []
        self.octets_sent = bytearray()
        self.capacity = SOCKET_BUFFER
        self.held = False
        self.closed = False
        self.closed_at: float | None = None
        self.unread_at_close = 0
        self._kernel = bytearray()
        self._inbox = bytearray()
        self._ended = False
        self._changed = trio.lowlevel.ParkingLot()

    def try_send(self, data: bytes | memoryview) -> int:
        if self.closed or self.other.closed:
            return len(data)
        took = bytes(data[: self.capacity - len(self._kernel)])
        if took:
            self.sent.append((trio.current_time(), len(took)))
            self.octets_sent += took
            self._kernel += took
            self._deliver()
        return len(took)

    def try_receive(self, limit: int) -> bytes | None:
        if self.closed:
            return b""
        if self._inbox:
            data = bytes(self._inbox[:limit])
            del self._inbox[:limit]
            return data
        return b"" if self._ended else None

    def try_receive_into(self, place: memoryview, limit: int) -> int | None:
        data = self.try_receive(limit)
        if data is not None:
            place[: len(data)] = data
        return None if data is None else len(data)

    def unsent(self) -> int:
        return len(self._kernel)

    async def wait_readable(self) -> None:
        while not (self._inbox or self._ended or self.closed):
            await self._changed.park()
        await trio.lowlevel.checkpoint()

    async def wait_writable(self) -> None:
        while len(self._kernel) >= self.capacity and not (
            self.closed or self.other.closed
        ):
            await self._changed.park()
        await trio.lowlevel.checkpoint()

    def end_sending(self) -> None:
        self.other._ended = True
        self.other._changed.unpark_all()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.closed_at = trio.current_time()
            self.unread_at_close = len(self._inbox)
            self.other._ended = True
            self._changed.unpark_all()
            self.other._changed.unpark_all()

    def let_go(self) -> None:
        """The network works again."""
        self.held = False
        self._deliver()

    def let_through(self, octets: int) -> None:
        """So much of what is held gets through, and no more."""
        self.other._inbox += self._kernel[:octets]
        del self._kernel[:octets]
        self.other._changed.unpark_all()
        self._changed.unpark_all()

    def _deliver(self) -> None:
        if not self.held:
            self.other._inbox += self._kernel
            self._kernel.clear()
            self.other._changed.unpark_all()
            self._changed.unpark_all()


def wire_pair() -> tuple[FakeWire, FakeWire]:
    """Two ends of one connection."""
    one, other = FakeWire(), FakeWire()
    one.other, other.other = other, one
    return one, other


@dataclass
class Half:
    """A node without its ports: spool, queue manager, exchange, on a real disk."""

    name: str
    spool: Spool
    qmgr: QueueManager
    exchange: Exchange
    routes: dict[str, str]
    """Address -> place; a test may change it at any time."""
    outcomes: list[str] = field(default_factory=list)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def identity(self) -> bytes:
        return identity_of(self.name)

    @property
    def keys(self) -> PeerKeys:
        return keys_of(self.name)

    @property
    def quiet(self) -> bool:
        """Nothing is being committed and nothing waits."""
        return not (self.spool._intake.is_busy or self.spool.waiting)

    def submit(
        self,
        content: bytes,
        *recipients: str,
        reverse_path: str = "from@here.test",
        origin: bytes = NO_ID,
    ) -> list[Reply]:
        """Hand over a message; the list gets its reply."""
        replies: list[Reply] = []
        self.qmgr.accept(
            reverse_path=reverse_path,
            recipients=recipients,
            content=content,
            answer=replies.append,
            origin=origin,
        )
        return replies

    def tick(self) -> None:
        """A tick of the pool: what waits for places outside may go."""
        for _ in self.qmgr.depart():
            pass

    async def arrived(self, place: str = "local:0") -> list[bytes]:
        """Contents of what waits at a place, oldest first."""
        refs = list(self.qmgr.queue(place).ready)
        records = await self.spool.read(refs)
        return [record.content for record in records if record is not None]


def identity_of(name: str) -> bytes:
    """32 octets; names in the order of the alphabet give IDs in that order."""
    return name.encode().ljust(32, b"\0")


def keys_of(name: str) -> PeerKeys:
    return PeerKeys(name, identity_of(name), (hash256(b"link " + name.encode()),))


def spool_key() -> Key:
    return Key.from_bytes(b"k" * 32)


@asynccontextmanager
async def half(
    folder: Path,
    name: str,
    routes: dict[str, str],
    *,
    identity: bytes | None = None,
    gossip: Gossiping | None = None,
    manner: Manner | None = None,
) -> AsyncIterator[Half]:
    """Run half a node; it ends in order, what waits stays in `folder`."""
    entropy = FixedEntropy(name)
    spool = Spool.open(folder / name, spool_key(), entropy, trio.current_time)
    qmgr = QueueManager(
        spool,
        lambda address: routes.get(address),
        entropy,
        key=spool_key(),
        manner=manner,
    )
    exchange = Exchange(
        name=name,
        identity=identity or identity_of(name),
        qmgr=qmgr,
        max_message=20_971_520,
        entropy=entropy,
        gossip=gossip,
    )
    qmgr.recover()
    async with trio.open_nursery() as outer:
        await outer.start(_run_spool, spool)
        async with trio.open_nursery() as inner:
            await inner.start(exchange.run)
            inner.start_soon(qmgr.run)
            yield Half(name, spool, qmgr, exchange, routes, scope=inner.cancel_scope)
            inner.cancel_scope.cancel()
        outer.cancel_scope.cancel()


async def _run_spool(spool: Spool, task_status: trio.TaskStatus[None]) -> None:
    await spool.run(task_status=task_status)


def sessions(
    near: str,
    far: str,
    *,
    clock: Clock = Clock.GREEDY,
    klass: int = 3,
    counter: int = 1,
) -> tuple[Session, Session]:
    """Both ends of a handshake that `near` dialled, without the handshake."""

    def key(name: str) -> Key:
        return Key.from_bytes(hash256(b"%d " % counter + name.encode()))

    def session(us: str, them: str) -> Session:
        return Session(
            peer=keys_of(them),
            sealer=CellSealer(key(us)),
            opener=CellOpener(key(them)),
            clock=clock,
            klass=klass,
            counter=counter,
            we_initiated=us == near,
            directory_version=0,
            directory_hash=bytes(32),
            peer_link_key=keys_of(them).link_keys[0],
        )

    return session(near, far), session(far, near)


@dataclass
class Cable:
    """A link between two halves: its wires, and why it ended at each end."""

    near: FakeWire
    far: FakeWire
    reasons: dict[str, str] = field(default_factory=dict)

    def cut(self) -> None:
        """Both ends lose the connection."""
        self.near.close()
        self.far.close()


async def connect(
    nursery: trio.Nursery,
    near: Half,
    far: Half,
    *,
    clock: Clock = Clock.GREEDY,
    klass: int = 3,
    counter: int = 1,
    cable: Cable | None = None,
) -> Cable:
    """Make a link that `near` dialled."""
    cable = cable or Cable(*wire_pair())
    ours, theirs = sessions(
        near.name, far.name, clock=clock, klass=klass, counter=counter
    )

    async def carry(
        end: Half,
        session: Session,
        wire: FakeWire,
        task_status: trio.TaskStatus[None],
    ) -> None:
        reason = await end.exchange.run_link(session, wire, task_status)
        cable.reasons[end.name] = reason

    await nursery.start(carry, far, theirs, cable.far)
    await nursery.start(carry, near, ours, cable.near)
    return cable


async def until(holds: Callable[[], object], seconds: float = 300) -> None:
    """Let fake time pass until it holds."""
    deadline = trio.current_time() + seconds
    while not holds():
        if trio.current_time() > deadline:
            raise AssertionError("it never held")
        await trio.sleep(0.05)


def times_and_lengths(wire: FakeWire, count: int) -> Sequence[tuple[float, int]]:
    """The first sends of a wire, as a snooper sees them."""
    assert len(wire.sent) >= count
    return wire.sent[:count]


def inside(port: Port) -> Inside:
    """What a port carries, which both ends have agreed on."""
    assert port.inside is not None
    return port.inside
