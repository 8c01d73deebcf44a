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
from pathlib import Path
from typing import Any, Final, cast

import trio

from benchmarks.cost import Cost, Load, Watch
from benchmarks.crossing import over_a_link
from benchmarks.speaker import FROM, TO, text_of
from mesh.core.crypto import Entropy, Key, SystemEntropy
from mesh.core.record import NO_ID, SALT_LEN, Record, seal_record, sealed_len
from mesh.core.reply import OK, Reply
from mesh.node.guard import Guard
from mesh.node.lmtp import LmtpDelivery
from mesh.node.qmgr import STORED, QueueManager
from mesh.node.restore import open_files
from mesh.node.routing import LOCAL
from mesh.node.row import ENTRY
from mesh.node.spool import Ref, Spool
from mesh.node.submission import Submission, bind_unix

MESSAGE_MAX: Final = 30_000_000
HERE: Final = f"{LOCAL}mix"
PEER: Final = b"p" * 16


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
