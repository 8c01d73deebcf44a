# SPDX-License-Identifier: MIT
"""One message through a node's own parts, a part at a time, with its CPU and wall time.

    entry     Submission on a local socket; what it takes goes to a desk that keeps
              nothing and answers at once                              (Trio thread)
    accept    QueueManager and Spool, on the disk: until all have their 250 (all threads)
    seal, insert   of that: the record's sealing and the row's commit, by themselves
    link      Link, cell sealer and opener, a loopback connection; a step at a time
    deliver   LmtpDelivery to a server that takes all, settling included  (Trio thread)
    forget    what was delivered: keys overwritten, rows deleted, WAL folded in, at a
              second's end and when nothing comes any more             (all threads)

All is the product's own: nothing here is a copy of what it does.  `at_once` messages come
together, as from so many sessions; 1 is a lone sender.  A cost is of one message.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import trio

from benchmarks.floors import tcp_pair
from benchmarks.links import session
from benchmarks.speaker import FROM, TO, text_of
from mesh.core.cell import BODY_LEN, CELL_LEN, PADDING
from mesh.core.clock import Clock
from mesh.core.crypto import Entropy, Key, SystemEntropy, address_of
from mesh.core.link import Done, Link, Received
from mesh.core.record import NO_ID, SALT_LEN, Record, seal_record, sealed_len
from mesh.core.reply import OK, Reply
from mesh.core.smtp import Finished, Outgoing
from mesh.node.guard import Guard
from mesh.node.lmtp import LmtpDelivery
from mesh.node.qmgr import STORED, QueueManager
from mesh.node.restore import open_files
from mesh.node.routing import LOCAL
from mesh.node.row import ENTRY
from mesh.node.spool import Ref, Spool
from mesh.node.submission import Submission, bind_unix
from mesh.node.wire import RECEIVE_MAX, SocketWire

MESSAGE_MAX: Final = 30_000_000
HERE: Final = f"{LOCAL}mix"
QUIET_SECONDS: Final = 2.5
"""After which the spool has forgotten, deleted and folded in what was delivered."""
PEER: Final = b"p" * 16
ROOM_CELLS: Final = RECEIVE_MAX // CELL_LEN


@dataclass(frozen=True)
class Cost:
    """Microseconds of one message."""

    cpu: float
    wall: float


class Watch:
    """Adds up what passes inside its blocks, by a CPU clock and the wall's."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._began = 0.0, 0.0
        self.cpu = self.wall = 0.0

    def __enter__(self) -> None:
        self._began = self._clock(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.cpu += self._clock() - self._began[0]
        self.wall += time.perf_counter() - self._began[1]

    def cost(self, messages: int) -> Cost:
        """Share it out."""
        return Cost(1e6 * self.cpu / messages, 1e6 * self.wall / messages)


@dataclass(frozen=True)
class Load:
    """How many messages, how long, and how many of them at once."""

    messages: int
    length: int
    at_once: int
    quiet: float = QUIET_SECONDS
    """How long to look at what forgetting costs."""

    @property
    def turns(self) -> int:
        """How often so many come."""
        return max(1, self.messages // self.at_once)

    @property
    def count(self) -> int:
        """Messages of whole turns."""
        return self.turns * self.at_once


def measured(load: Load) -> dict[str, Cost]:
    """Take every step."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        folder = Path(name)
        costs = {"entry": trio.run(entry, folder / "in.sock", load)}
        costs |= sealed(folder / "by-itself", load)
        for is_first in (True, False):
            kept = trio.run(stored, folder, load, is_first)
            node = "first" if is_first else "second"
            costs |= {f"{node} {step}": cost for step, cost in kept.items()}
        return costs | over_a_link(load)


# the local socket


class Desk:
    """Takes messages, keeps nothing, answers when all that came together are taken."""

    def __init__(self) -> None:
        self.guard = Guard()
        self.spool = self
        self._answers: list[Callable[[Reply], None]] = []

    @contextmanager
    def together(self) -> Iterator[None]:
        """What comes within is answered at its end, as by one commit."""
        yield
        answers, self._answers = self._answers, []
        for answer in answers:
            answer(STORED)

    def accept(self, *, answer: Callable[[Reply], None], **_: object) -> None:
        """Take one."""
        self._answers.append(answer)


@contextmanager
def speaker(*words: object) -> Iterator[Any]:
    """Run the other end."""
    args = [sys.executable, "-m", "benchmarks.speaker", *map(str, words)]
    with subprocess.Popen(
        args, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.stdin.close()  # type: ignore[union-attr]
        if process.wait():
            raise RuntimeError(f"benchmarks.speaker ended with {process.returncode}")


async def entry(path: Path, load: Load) -> Cost:
    """Take messages in at a local socket."""
    desk = cast(QueueManager, Desk())
    server = Submission(
        name="alpha", qmgr=desk, accepts=lambda _: None, max_message=MESSAGE_MAX,
        uids=None,
    )  # fmt: skip
    sock = bind_unix(path)
    watch = Watch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, sock)
        args = "client", path, load.at_once, load.turns, load.length
        with speaker(*args) as process:
            await trio.to_thread.run_sync(process.stdout.readline)
            with watch:
                process.stdin.write(b"go\n")
                process.stdin.flush()
                await trio.to_thread.run_sync(process.stdout.readline)
        nursery.cancel_scope.cancel()
    sock.close()
    return watch.cost(load.count)


# the spool


def record(content: bytes, *, origin: bytes = NO_ID) -> Record:
    """Make a record as a node does."""
    return Record(b"i" * 16, origin, b"o" * 16, HERE, FROM, (TO,), 0, content)


def sealed(folder: Path, load: Load) -> dict[str, Cost]:
    """Seal records, and commit rows of them."""
    entropy = SystemEntropy()
    copies, arena, groups = open_files(folder, entropy.key(), entropy)
    arena.settle(arena.capacity)
    seal, insert = Watch(), Watch()
    one = record(text_of(load.length))
    length = sealed_len(load.length)
    for number in range(load.turns):
        salt = entropy.octets(SALT_LEN)
        made = []
        with seal:
            for _ in range(load.at_once):
                slot, generation, key = arena.take()
                made.append((*seal_record(one, key, salt), slot, generation))
                key.wipe()
        with insert:
            groups.insert(
                number + 1,
                salt,
                b"".join(ENTRY.pack(slot, age, length) for *_, slot, age in made),
                b"".join(head for head, *_ in made),
                b"".join(body for _, body, *_ in made),
            )
        for *_, slot, _ in made:
            arena.renew(slot)
        if arena.free < load.at_once:
            arena.end_flush(arena.begin_flush())
    groups.close()
    copies.close()
    return {"seal": seal.cost(load.count), "insert": insert.cost(load.count)}


class Store:
    """A spool with its queues, and what came of a message."""

    def __init__(self, spool: Spool, entropy: Entropy, key: Key) -> None:
        self.spool = spool
        self.qmgr = QueueManager(spool, lambda _: HERE, entropy, key=key)
        self._left = 0
        self._heard = trio.Event()

    def _answer(self, reply: Reply) -> None:
        if reply != STORED:
            raise RuntimeError(f"the spool says {reply}")
        self._left -= 1
        if not self._left:
            self._heard.set()

    async def accept(self, content: bytes, origin: bytes, ids: Sequence[bytes]) -> None:
        """Take as many as there are ids, together; wait until all are answered."""
        self._left, self._heard = len(ids), trio.Event()
        with self.spool.together():
            for ident in ids:
                self.qmgr.accept(
                    reverse_path=FROM, recipients=[TO], content=content,
                    answer=self._answer, origin=origin, origin_id=ident,
                )  # fmt: skip
        await self._heard.wait()

    async def emptied(self) -> None:
        """Wait until all is delivered."""
        while self.spool.waiting:  # noqa: ASYNC110  # the spool tells nobody
            await trio.sleep(0.002)


async def stored(folder: Path, load: Load, is_first: bool) -> dict[str, Cost]:
    """Accept, deliver, forget: the first node to a peer, the second to a server."""
    entropy = SystemEntropy()
    key = entropy.key()
    spool = Spool.open(folder / f"spool-{is_first}", key, entropy)
    store = Store(spool, entropy, key)
    store.qmgr.recover()
    accept, deliver, forget = (
        Watch(time.process_time), Watch(), Watch(time.process_time),
    )  # fmt: skip
    content = text_of(load.length)
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        nursery.start_soon(store.qmgr.run)
        for _ in range(load.turns):
            if is_first:
                origin, ids = NO_ID, [NO_ID] * load.at_once
            else:
                origin, ids = PEER, [entropy.octets(16) for _ in range(load.at_once)]
            with accept:
                await store.accept(content, origin, ids)
        if is_first:
            await _to_a_peer(store, deliver)
        else:
            await _to_a_server(folder / "lmtp.sock", store, entropy, deliver)
        with forget:
            await trio.sleep(load.quiet)
        nursery.cancel_scope.cancel()
    count = load.count
    return {
        "accept": accept.cost(count),
        "deliver": deliver.cost(count),
        "forget": Cost(forget.cost(count).cpu, 0.0),  # nobody waits for it
    }


async def _to_a_peer(store: Store, deliver: Watch) -> None:
    ready = store.qmgr.queue(HERE).ready
    with deliver:
        while ready:
            ref: Ref = ready.popleft()
            known = store.spool.hot(ref)
            if known is None:
                [known] = await store.spool.read([ref])
            if known and store.qmgr.settle(ref, known, [OK]):
                store.qmgr.delivered(ref, lambda: None)


async def _to_a_server(
    path: Path, store: Store, entropy: Entropy, deliver: Watch
) -> None:
    delivery = LmtpDelivery(
        address=path, destination=HERE, name="bravo", qmgr=store.qmgr, entropy=entropy
    )
    with speaker("server", path) as process:
        await trio.to_thread.run_sync(process.stdout.readline)
        async with trio.open_nursery() as nursery:
            with deliver:
                nursery.start_soon(delivery.run)
                await store.emptied()
            nursery.cancel_scope.cancel()


# the link


class Cells:
    """One direction of a link: bodies out of one end, into the other, by a socket."""

    def __init__(
        self,
        near: Link,
        far: Link,
        sealer: Any,
        opener: Any,
        wires: Sequence[SocketWire],
    ) -> None:
        self._near, self._far = near, far
        self._sealer, self._opener = sealer, opener
        self._sends, self._receives = wires
        self._room = memoryview(bytearray(ROOM_CELLS * CELL_LEN))
        first = self._first = address_of(self._room)  # which keeps it where it is
        self._places = [first + at * CELL_LEN for at in range(ROOM_CELLS)]
        self.pack, self.seal, self.send, self.receive, self.open, self.parse = (
            Watch() for _ in range(6)
        )

    def carry(self) -> None:
        """Bring all that the near end has to say to the far one."""
        while bodies := self._bodies():
            self._carry(bodies)

    def _bodies(self) -> list[bytes]:
        """As many as one call of the kernel takes."""
        bodies: list[bytes] = []
        with self.pack:
            while len(bodies) < ROOM_CELLS and self._near.has_data:
                bodies.append(self._near.next_body())
        return bodies

    def _carry(self, bodies: Sequence[bytes]) -> None:
        room, places = self._room, self._places[: len(bodies)]
        end = len(bodies) * CELL_LEN
        with self.seal:
            for at, (place, body) in enumerate(zip(places, bodies, strict=True)):
                room[at * CELL_LEN : at * CELL_LEN + BODY_LEN] = body
                self._sealer.seal_over(place)
        with self.send:
            sent = self._sends.try_send(room[:end])
        if sent != end:
            raise RuntimeError("the kernel had no room")
        got = 0
        while got < end:
            with self.receive:
                got += self._receives.try_receive_into(room[got:], RECEIVE_MAX) or 0
        opened = []
        with self.open:
            for at, place in enumerate(places):
                self._opener.open_into_untrusted(place, place)
                opened.append(bytes(room[at * CELL_LEN : at * CELL_LEN + BODY_LEN]))
        with self.parse:
            for body in opened:
                self._far.receive_body(body)

    def costs(self, messages: int) -> dict[str, Cost]:
        """By step."""
        return {
            name: getattr(self, name).cost(messages)
            for name in ("pack", "seal", "send", "receive", "open", "parse")
        }


def over_a_link(load: Load) -> dict[str, Cost]:
    """Carry messages from one link's end to the other, and their replies back."""
    near, far = (
        Link(name=name, peer=peer, accepts=lambda _: None, max_message=MESSAGE_MAX)
        for name, peer in (("alpha", "bravo"), ("bravo", "alpha"))
    )
    ours, theirs = (session(0, side, Clock.GREEDY, 3) for side in (0, 1))
    wires = tcp_pair()
    there = Cells(near, far, ours.sealer, theirs.opener, wires)
    back = Cells(far, near, theirs.sealer, ours.opener, wires[::-1])
    near.receive_body(PADDING)
    far.receive_body(PADDING)
    content, entropy = text_of(load.length), SystemEntropy()
    for _ in range(load.turns):
        with there.pack:
            for _ in range(load.at_once):
                near.offer(Outgoing(None, FROM, (TO,), content, entropy.octets(16)))
        left = load.at_once
        while left:
            there.carry()
            with there.parse:
                while (event := far.next_event()) is not None:
                    if isinstance(event, Received):
                        far.answer(event.stream, OK)
                    elif not isinstance(event, Done):
                        raise TypeError
            back.carry()
            with back.parse:
                while (event := near.next_event()) is not None:
                    left -= isinstance(event, Finished) and event.replies == (OK,)
    for end in (ours, theirs):
        end.wipe()
    for wire in wires:
        wire.socket.close()
    count = load.count
    costs = {f"link {name}": cost for name, cost in there.costs(count).items()}
    costs |= {f"replies {name}": cost for name, cost in back.costs(count).items()}
    return costs
