# SPDX-License-Identifier: MIT
"""The operations that cancelling.py cuts, each in a world, with what it promises.

Time is fake but where another process works.  What is cut is the operation alone: its
other side, a client or a peer, lives on and sees what one sees of a node that ends.
"""

import itertools
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from mesh.config import load
from mesh.core.clock import Clock
from mesh.core.control import Ask, Request, encode_request
from mesh.core.crypto import SystemEntropy
from mesh.core.dialogue import Closed, Dialogue, DialogueKind, MessageReceived
from mesh.core.directory import Us
from mesh.core.dns import Kind
from mesh.core.reply import NO_SUCH_RECIPIENT, OK
from mesh.node import rotation
from mesh.node.keeping import Keeping
from mesh.node.keys import load_link_keys
from mesh.node.listener import bind
from mesh.node.mx import Place
from mesh.node.pacer.client import Pacer
from mesh.node.peers import Peers
from mesh.node.pipe import PipeDelivery
from mesh.node.qmgr import QueueManager
from mesh.node.registry import Registry
from mesh.node.renewal import Renewal
from mesh.node.spool import Ref, Spool
from mesh.node.submission import Submission, bind_unix
from mesh.node.wire import SocketWire
from tests.descriptors import NOW, text_of
from tests.directories import directory
from tests.harness import (
    FakeWire,
    FixedEntropy,
    Half,
    connect,
    half,
    inside,
    sessions,
    until,
)
from tests.node import ends, gossips
from tests.node.cancelling import Operation, Trial
from tests.node.dropping import leave, mail, make_drop
from tests.node.exits import exit_node
from tests.node.homes import Home, free_port
from tests.node.outside import name_server
from tests.node.pacer.test_client import Box, tcp_pair
from tests.node.spooling import message, reopen, running, spool_key, stored, waiting
from tests.node.test_control import operated
from tests.node.test_delivery import Server, lmtp_delivery, maildir_delivery
from tests.node.test_mx import ZONE, lookup_at
from tests.node.test_submission import Client

TO: Final = "mix@alpha"
CONTENT: Final = 9_000
"""Octets of a message: three cells, and more than a small buffer takes."""


async def _until(holds: Callable[[], object], poll: float = 1.0) -> None:
    """Wait, with few steps of its own."""
    for _ in range(1000):
        if holds():
            return
        await trio.sleep(poll)
    raise AssertionError("it never held")


def _content(number: int) -> bytes:
    return (b"%d \r\n" % number).rjust(100, b"0") * (CONTENT // 100)


def _number(content: bytes) -> int:
    return int(content.split(b" ")[0])


async def _put(alpha: Half, to: str, *contents: bytes) -> None:
    """Have messages stored, and in no memory but the disk's."""
    for content in contents:
        replies = alpha.submit(content, to)
        await _until(lambda: replies, 0.01)  # noqa: B023  # called at once
        assert replies[0].code == 250


def _cool(alpha: Half, place: str) -> None:
    for ref in alpha.qmgr.queue(place).ready:
        alpha.spool._hot.drop(ref)


def _all_in_place(alpha: Half) -> None:
    """Each record that waits is in one list of the queue manager, or its work."""
    qmgr, leading = alpha.qmgr, alpha.qmgr._leading
    refs = [ref for queue in qmgr.queues.values() for ref in queue.ready]
    refs += [ref for _, ref in qmgr._deferred] + qmgr._settling.unread
    refs += [ref for _, some in leading._returned for ref in some]
    refs += [*leading._astray, *leading._parted]
    assert max(Counter(refs).values(), default=1) == 1, "a record in two places"
    assert len(refs) == alpha.spool.waiting, f"{len(refs)} of {alpha.spool.waiting}"


# links


@asynccontextmanager
async def _two_ends(folder: Path) -> AsyncIterator[tuple[ends.End, ends.End, str]]:
    port = free_port()
    async with (
        ends.end(folder, "alpha", "bravo") as alpha,
        ends.end(folder, "bravo", "alpha") as bravo,
    ):
        yield alpha, bravo, f"127.0.0.1:{port}"


@asynccontextmanager
async def _handshake(folder: Path, *, dials: bool) -> AsyncIterator[Trial]:
    """A link from nothing until it is up; the dialling side is cut, or the other."""
    async with _two_ends(folder) as (alpha, bravo, address):
        (sock,) = bind([address])

        async def keep() -> None:
            await alpha.dialer.keep(ends.keeps("bravo"), lambda: (address,))

        async def listen() -> None:
            await bravo.listener.run(sock)

        ours, theirs = (keep, listen) if dials else (listen, keep)
        end, other = (alpha, "bravo") if dials else (bravo, "alpha")

        async with trio.open_nursery() as world:

            async def act() -> None:
                world.start_soon(_within, scope_of_them, theirs)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ours)
                    await _until(lambda: end.up(other))
                    nursery.cancel_scope.cancel()

            scope_of_them = trio.CancelScope()

            async def prepare() -> None:
                nonlocal scope_of_them
                scope_of_them = trio.CancelScope()

            async def check(_cut: bool) -> None:
                scope_of_them.cancel()
                await trio.sleep(1)
                assert not alpha.links("bravo")
                assert not bravo.links("alpha")
                assert not bravo.listener._unproven

            try:
                yield Trial(act, check, prepare, settle=200)
            finally:
                world.cancel_scope.cancel()
                sock.close()


async def _within(scope: trio.CancelScope, job: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await job()


class _NarrowWire(FakeWire):
    """A wire on a network that takes a cell and a half, and moves now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.capacity = 6_000
        self.held = True

    async def move(self) -> None:
        while not self.closed:
            await trio.sleep(0.3)
            self.let_go()
            self.held = True
        self.let_go()


@asynccontextmanager
async def _carrying(folder: Path, clock: Clock) -> AsyncIterator[Trial]:
    """A link with mail on it; the sender's end is cut."""
    async with (
        half(folder, "alpha", {"mix@bravo": "bravo"}) as alpha,
        half(folder, "bravo", {"mix@bravo": "local:0"}) as bravo,
        trio.open_nursery() as world,
    ):
        numbers, counters = itertools.count(), itertools.count(1)
        sent: list[int] = []
        wires: list[_NarrowWire] = []

        async def prepare() -> None:
            sent.append(next(numbers))
            await _put(alpha, "mix@bravo", _content(sent[-1]))
            if sent[-1] % 2:
                _cool(alpha, "bravo")

        def come() -> list[int]:
            refs = bravo.qmgr.queue("local:0").ready
            records = (bravo.spool.hot(ref) for ref in refs)
            return [_number(record.content) for record in records if record]

        async def act() -> None:
            near, far = _NarrowWire(), _NarrowWire()
            near.other, far.other = far, near
            wires[:] = [near, far]
            ours, theirs = sessions(
                "alpha", "bravo", clock=clock, klass=6, counter=next(counters)
            )
            for wire in wires:
                world.start_soon(wire.move)
            world.start_soon(bravo.exchange.run_link, theirs, far)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alpha.exchange.run_link, ours, near)
                await _until(lambda: alpha.quiet)
                nursery.cancel_scope.cancel()

        async def check(cut: bool) -> None:
            if not wires:
                return
            assert wires[0].closed, "a connection with part of a cell may be used again"
            peer = alpha.exchange.peers.get("bravo")
            assert not (peer and (peer.ports or peer._flying_octets))
            assert not bravo.exchange.peers["alpha"].ports
            assert len(come()) == len(set(come())), "a message came twice"
            _all_in_place(alpha)
            if not cut:
                assert sorted(come()) == sent

        yield Trial(act, check, prepare, settle=30)
        world.cancel_scope.cancel()


@asynccontextmanager
async def _answering(folder: Path) -> AsyncIterator[Trial]:
    """The same link; the end that stores and answers is cut."""
    async with (
        half(folder, "alpha", {"mix@bravo": "bravo"}) as alpha,
        half(folder, "bravo", {"mix@bravo": "local:0"}) as bravo,
        trio.open_nursery() as world,
    ):
        numbers, counters = itertools.count(), itertools.count(1)

        async def prepare() -> None:
            await _put(alpha, "mix@bravo", _content(next(numbers)))

        async def act() -> None:
            near, far = _NarrowWire(), _NarrowWire()
            near.other, far.other = far, near
            ours, theirs = sessions("alpha", "bravo", klass=6, counter=next(counters))
            for wire in (near, far):
                world.start_soon(wire.move)
            world.start_soon(alpha.exchange.run_link, ours, near)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bravo.exchange.run_link, theirs, far)
                await _until(lambda: alpha.quiet)
                nursery.cancel_scope.cancel()

        async def check(cut: bool) -> None:
            here = await bravo.arrived()
            assert len(here) == len(set(here)), "a message was stored twice"
            _all_in_place(alpha)
            _all_in_place(bravo)
            if not cut:  # whatever its sender has forgotten is here
                assert alpha.quiet
                refs = bravo.qmgr.queue("local:0").ready
                for ref in refs:
                    bravo.qmgr.delivered(ref)
                refs.clear()

        yield Trial(act, check, prepare, settle=30)
        world.cancel_scope.cancel()


# mail in


class Remailer:
    """A client with all commands that a message can come by."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count()
        self.offered: set[int] = set()
        self.acknowledged: set[int] = set()
        self.talking = 0

    async def talk(self) -> None:
        self.talking += 1
        try:
            stream = await trio.open_unix_socket(str(self._path))
            async with stream:
                with suppress(trio.BrokenResourceError):
                    await self._say_all(Client(stream))
        finally:
            self.talking -= 1

    async def _say_all(self, client: Client) -> None:
        await client.code()
        refused = b"RCPT TO:<no@body>\r\n"
        for line in (b"EHLO x\r\n", b"MAIL FROM:<>\r\n", refused, b"RSET\r\n"):
            await client.say(line)
        for way in (self._data, self._bdat, self._ahead):
            if not await way(client):
                return
        await client.say(b"QUIT\r\n")

    def _fresh(self) -> tuple[int, bytes]:
        number = next(self._numbers)
        self.offered.add(number)
        return number, _content(number)

    def _heard(self, number: int, code: int) -> bool:
        if code == 250:
            self.acknowledged.add(number)
        return code == 250

    async def _data(self, client: Client) -> bool:
        number, content = self._fresh()
        for line in (
            b"MAIL FROM:<>\r\n",
            b"RCPT TO:<%s>\r\n" % TO.encode(),
            b"DATA\r\n",
        ):
            await client.say(line)
        await client.stream.send_all(content[:4_000])
        (code,) = await client.say(content[4_000:] + b".\r\n")
        return self._heard(number, code)

    async def _bdat(self, client: Client) -> bool:
        number, content = self._fresh()
        for line in (b"MAIL FROM:<>\r\n", b"RCPT TO:<%s>\r\n" % TO.encode()):
            await client.say(line)
        await client.say(b"BDAT 5000\r\n" + content[:5000])
        (code,) = await client.say(b"BDAT 4000 LAST\r\n" + content[5000:])
        return self._heard(number, code)

    async def _ahead(self, client: Client) -> bool:
        both = [self._fresh(), self._fresh()]
        octets = b"".join(
            b"MAIL FROM:<>\r\nRCPT TO:<%s>\r\nBDAT %d LAST\r\n%s"
            % (TO.encode(), len(content), content)
            for _, content in both
        )
        codes = await client.say(octets, 6)
        heard = [
            self._heard(one[0], code)
            for one, code in zip(both, codes[2::3], strict=True)
        ]
        return all(heard)


@asynccontextmanager
async def _submitting(folder: Path) -> AsyncIterator[Trial]:
    """A dialogue with all its commands; the node's side is cut."""
    path = folder / "local.sock"
    async with (
        half(folder, "alpha", {TO: "local:0"}) as alpha,
        trio.open_nursery() as world,
    ):
        sock = bind_unix(path)
        remailer = Remailer(path)

        async def prepare() -> None:
            remailer.offered.clear()
            remailer.acknowledged.clear()

        async def act() -> None:
            submission = Submission(
                name="alpha",
                qmgr=alpha.qmgr,
                accepts=lambda path: None if path == TO else NO_SUCH_RECIPIENT,
                max_message=3_000_000,
                uids=None,
            )
            scope = trio.CancelScope()
            world.start_soon(_within, scope, remailer.talk)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(submission.run, sock)
                    await _until(lambda: len(remailer.acknowledged) == 4)
                    nursery.cancel_scope.cancel()
            finally:
                assert not submission._sessions
                assert not submission._users
                if not remailer.offered:  # it waits at the door, and nobody serves
                    scope.cancel()

        async def check(cut: bool) -> None:
            assert not remailer.talking, "a client hears nothing, on an open connection"
            here = {_number(content) for content in await alpha.arrived()}
            assert remailer.acknowledged <= here, "a 250 without a commit"
            assert here <= remailer.offered
            if not cut:
                assert remailer.acknowledged == remailer.offered
            refs = alpha.qmgr.queue("local:0").ready
            for ref in refs:
                alpha.qmgr.delivered(ref)
            refs.clear()

        yield Trial(act, check, prepare, settle=5)
        world.cancel_scope.cancel()
        sock.close()


@asynccontextmanager
async def _dropping(folder: Path) -> AsyncIterator[Trial]:
    """What lies in the drop folder goes to the spool; each run is a node's new start."""
    async with half(folder, "alpha", {"you@alpha.test": "local:0"}) as alpha:
        numbers = itertools.count()
        left: list[bytes] = []
        make_drop(folder, alpha.qmgr).close()
        drops = [make_drop(folder, alpha.qmgr)]
        first = True

        async def prepare() -> None:
            nonlocal first
            if first:
                first = False
                return
            drops.append(make_drop(folder, alpha.qmgr))
            number = next(numbers)
            leave(folder, number)
            left.append(mail(number).content)

        async def act() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drops[-1].run)
                await _until(lambda: came() == len(left))
                await trio.sleep(2)
                nursery.cancel_scope.cancel()

        def came() -> int:
            return len(alpha.qmgr.queue("local:0").ready)

        async def check(cut: bool) -> None:
            drops.pop().close()
            here = await alpha.arrived()
            assert len(here) == len(set(here)), "taken twice"
            assert set(here) <= set(left)
            if not cut:
                assert sorted(here) == sorted(left), "lost"

        yield Trial(act, check, prepare, settle=1)
        for drop in drops:
            drop.close()


# mail out


@asynccontextmanager
async def _into_maildir(folder: Path) -> AsyncIterator[Trial]:
    async with half(folder, "alpha", {TO: "local:0"}) as alpha:
        maildir = folder / "Maildir"
        delivery = maildir_delivery(alpha, maildir)
        numbers = itertools.count()
        sent: list[int] = []

        async def prepare() -> None:
            sent.append(next(numbers))
            await _put(alpha, TO, _content(sent[-1]))
            if sent[-1] % 2:
                _cool(alpha, "local:0")

        async def act() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delivery.run)
                await _until(lambda: alpha.quiet)
                nursery.cancel_scope.cancel()

        async def check(cut: bool) -> None:
            _all_in_place(alpha)
            assert not list((maildir / "tmp").glob("*"))
            found = [_number(p.read_bytes()) for p in (maildir / "new").glob("*")]
            assert len(found) == len(set(found)), "a message lies there twice"
            if not cut:
                assert sorted(found) == sent

        yield Trial(act, check, prepare)


@asynccontextmanager
async def _by_lmtp(folder: Path) -> AsyncIterator[Trial]:
    async with (
        half(folder, "alpha", {TO: "local:0"}) as alpha,
        trio.open_nursery() as world,
    ):
        server = Server(folder / "lmtp.sock")
        world.start_soon(server.run)
        delivery = lmtp_delivery(alpha, folder / "lmtp.sock")
        numbers = itertools.count()
        sent: list[int] = []

        async def prepare() -> None:
            for _ in range(2):
                sent.append(next(numbers))
                await _put(alpha, TO, _content(sent[-1]))
            if sent[-1] % 4 == 1:
                _cool(alpha, "local:0")

        async def act() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delivery.run)
                await _until(lambda: alpha.quiet)
                nursery.cancel_scope.cancel()

        async def check(cut: bool) -> None:
            assert server.open == 0, "a connection is left"
            assert not delivery._connections
            alpha.qmgr.queue("local:0").ready.extendleft(
                ref for ref, _ in delivery._fetched
            )  # read ahead for whoever comes next
            delivery._fetched.clear()
            _all_in_place(alpha)
            if not cut:
                assert {_number(one.content) for one in server.messages} == set(sent)

        yield Trial(act, check, prepare)
        world.cancel_scope.cancel()


@asynccontextmanager
async def _into_program(folder: Path) -> AsyncIterator[Trial]:
    """In real time; the program takes a moment, so that it is there when it is cut."""
    async with half(folder, "alpha", {TO: "local:0"}) as alpha:
        out = folder / "out"
        argv = ("/bin/sh", "-c", f"cat >> {out}; sleep 0.02; echo . >> {out}")

        async def prepare() -> None:
            if alpha.quiet:
                await _put(alpha, TO, b"x\r\n")
                _cool(alpha, "local:0")

        async def act() -> None:
            delivery = PipeDelivery(argv=argv, destination="local:0", qmgr=alpha.qmgr)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(delivery.run)
                await _until(lambda: alpha.quiet, 0.1)
                nursery.cancel_scope.cancel()

        async def check(_cut: bool) -> None:
            _all_in_place(alpha)

        yield Trial(act, check, prepare, settle=0.01)


class _Anywhere(dict[str, list[Place]]):
    """Everybody's mail server is one of ours."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __missing__(self, _domain: str) -> list[Place]:
        return [Place("mx.x.test", "127.0.0.1", self._port)]


class SmtpServer:
    """The receiving half of our own dialogue on a port."""

    def __init__(self) -> None:
        self.open = 0
        self.came: set[bytes] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open += 1
        dialogue = Dialogue(
            name="mx",
            kind=DialogueKind.LOCAL,
            accepts=lambda _: None,
            max_message=10**6,
        )
        try:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(dialogue.data_to_send())
                async for octets in stream:
                    dialogue.receive_data(octets)
                    over = False
                    while (event := dialogue.next_event()) is not None:
                        over = over or isinstance(event, Closed)
                        if isinstance(event, MessageReceived):
                            self.came.add(event.content)
                            dialogue.answer(OK)
                    await stream.send_all(dialogue.data_to_send())
                    if over:
                        return
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def _outside(folder: Path) -> AsyncIterator[Trial]:
    """A visit by port 25: places, a connection, a session, its end."""
    server = SmtpServer()
    async with trio.open_nursery() as world:
        (listener,) = await world.start(
            partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1")
        )
        port = listener.socket.getsockname()[1]
        async with exit_node(folder, _Anywhere(port), tick=1e9) as (alpha, outbound):
            numbers = itertools.count()
            sent: list[bytes] = []

            async def prepare() -> None:
                number = next(numbers)
                sent.append(_content(number))
                await _put(alpha, f"who@x{number}.test", sent[-1])
                if number % 2:
                    _cool(alpha, f"exit:x{number}.test")

            async def act() -> None:
                async with trio.open_nursery() as nursery:
                    await outbound._tick(nursery)

            async def check(cut: bool) -> None:
                assert not outbound._visits
                assert not server.open, "a connection is left"
                assert not outbound._cargo._octets
                assert not outbound._cargo.reading.locked()
                _all_in_place(alpha)
                if not cut:
                    assert sent[-1] in server.came

            yield Trial(act, check, prepare, settle=30)
        world.cancel_scope.cancel()


@asynccontextmanager
async def _names(folder: Path) -> AsyncIterator[Trial]:
    """Who takes mail for a domain: by UDP, then by TCP what is cut."""
    del folder
    async with name_server(ZONE) as server:

        async def act() -> None:
            server.always_cut = True
            lookup = lookup_at(server, "us.elsewhere.test", "nowhere.us.test")
            await lookup.places("a.test")
            server.always_cut = False
            await lookup.places("a.test")
            await lookup._resolver.ask("a.test", Kind.MX)
            assert not lookup._learning.locked()

        async def check(_cut: bool) -> None:
            pass

        yield Trial(act, check, settle=60)


# the spool and the queue


@asynccontextmanager
async def _spool_running(folder: Path) -> AsyncIterator[Trial]:
    """The spool's own work; each run is a start, and the last one's promise is kept."""
    path = folder / "spool"
    numbers = itertools.count()
    there: set[int] = set()
    maybe: set[int] = set()

    async def act() -> None:
        spool = reopen(path, f"run {next(numbers)}")
        refs = {head.accepted: ref for ref, head in spool.recovered()}
        assert there <= set(refs) <= there | maybe, "what was accepted is not there"
        there.clear()
        there.update(refs)
        maybe.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.run)
            await trio.lowlevel.cancel_shielded_checkpoint()
            await work(spool, refs)
            nursery.cancel_scope.cancel()

    async def work(spool: Spool, refs: dict[int, Ref]) -> None:
        for number, ref in refs.items():
            (record,) = await spool.read([ref])
            assert record is not None
            assert record.accepted == number
            there.discard(number)
            maybe.add(number)
            spool.forget(ref, done=partial(maybe.discard, number))
        for _ in range(3):
            number = next(numbers)
            maybe.add(number)
            if spool._is_open and await stored(spool, message(number)):
                there.add(number)
                maybe.discard(number)
        await trio.sleep(3)

    async def check(_cut: bool) -> None:
        found = set(waiting(path))
        assert there <= found <= there | maybe, "lost, or invented"

    yield Trial(act, check, keys=False)


@asynccontextmanager
async def _queueing(folder: Path) -> AsyncIterator[Trial]:
    """The queue manager's work: routed anew, deferred and due, parted, bounced."""
    async with running(folder / "spool", clock=trio.current_time) as spool:
        entropy = FixedEntropy("queue")
        routes = {"a@x": "local:0", "b@x": "local:1", "me@x": "local:2"}
        qmgr = QueueManager(spool, lambda to: routes.get(to), entropy, key=spool_key())
        alpha = Half("alpha", spool, qmgr, None, routes)  # type: ignore[arg-type]
        places = [qmgr.queue(f"local:{n}") for n in range(3)]

        async def prepare() -> None:
            """Two for one place, one for two places: astray, cold, one deferred."""
            for queue in places:
                for ref in queue.ready:
                    qmgr.delivered(ref)
                queue.ready.clear()
            routes["b@x"] = "local:0"
            for to in (("a@x",), ("a@x", "b@x"), ("b@x",)):
                replies = qmgr_accept(to)
                await _until(lambda: replies, 0.01)  # noqa: B023  # called at once
            refs = list(places[0].ready)
            _cool(alpha, "local:0")
            places[0].ready.clear()
            routes["b@x"] = "local:1"
            qmgr.lead_back(refs[:2])
            qmgr.defer(refs[2])

        def qmgr_accept(to: tuple[str, ...]) -> list[object]:
            replies: list[object] = []
            qmgr.accept(
                reverse_path="me@x",
                recipients=to,
                content=b"x\r\n",
                answer=replies.append,
            )
            return replies

        async def act() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(qmgr.run)
                await _until(led, 30)
                nursery.cancel_scope.cancel()

        def led() -> bool:
            return [len(queue.ready) for queue in places] == [2, 2, 0]

        async def check(cut: bool) -> None:
            if cut:
                with trio.fail_after(10_000):
                    await act()  # nothing is lost: it goes on where it was cut
            _all_in_place(alpha)

        yield Trial(act, check, prepare, keys=False)


# what the operator asks


@asynccontextmanager
async def _asked(folder: Path) -> AsyncIterator[Trial]:
    """The control socket's questions, a dialogue among them."""
    async with operated(folder) as (operator, alpha, bravo, world):
        cable = await connect(world, alpha, bravo)
        await until(lambda: alpha.exchange.peers["bravo"].up, 30)
        control, port = operator.control, alpha.exchange.peers["bravo"].ports[0]
        asking = 0

        async def ask(sock: socket.socket, ask: Ask) -> None:
            nonlocal asking
            asking += 1
            try:
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                async with stream:
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(encode_request(Request(ask, "bravo")))
                        if ask is Ask.CONNECT:
                            await Client(stream).line()
                            await stream.send_all(b"EHLO x\r\nNOOP\r\nQUIT\r\n")
                        async for _ in stream:
                            pass
            finally:
                asking -= 1

        async def act() -> None:
            for what in (Ask.STATUS, Ask.QUEUE, Ask.RETRY, Ask.PING, Ask.CONNECT):
                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                if what in (Ask.STATUS, Ask.QUEUE, Ask.RETRY):
                    request = Request(what)
                    ours.sendall(encode_request(request))
                    ours.close()
                else:
                    world.start_soon(ask, ours, what)
                await control.serve(SocketWire(theirs))

        async def check(_cut: bool) -> None:
            assert not asking, "who asks hears nothing more, and its connection is open"
            assert not control._places.borrowed_tokens
            assert not control._dialogues.borrowed_tokens
            assert not inside(port).people.open, "a stream is taken for ever"
            assert not cable.reasons

        # No keys of its own, and the spools' change each hour of so long a life.
        yield Trial(act, check, settle=60, keys=False)


# directory, peers, keys


@asynccontextmanager
async def _gossiping(folder: Path) -> AsyncIterator[Trial]:
    """A node learns of another directory by a link; all of that node is cut."""
    first = directory()
    second = directory(first)
    numbers = itertools.count()
    async with (
        gossips.knower(folder, "bravo", second) as bravo,
        trio.open_nursery() as world,
    ):
        homes: list[Path] = []

        async def prepare() -> None:
            homes.append(folder / str(next(numbers)))
            homes[-1].mkdir()

        async def act() -> None:
            counter = len(homes)
            async with gossips.knower(homes[-1], "alpha", first) as alpha:
                near, far = FakeWire(), FakeWire()
                near.other, far.other = far, near
                ours, theirs = gossips.real_sessions(
                    "alpha",
                    "bravo",
                    counter,
                    Clock.GREEDY,
                    6,
                    alpha.half.exchange.directory,
                )
                world.start_soon(bravo.half.exchange.run_link, theirs, far)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(alpha.half.exchange.run_link, ours, near)
                    await _until(lambda: alpha.registry.version == 2)
                    nursery.cancel_scope.cancel()

        async def check(cut: bool) -> None:
            assert not any(peer.ports for peer in bravo.half.exchange.peers.values())
            assert not bravo.gossip._talks
            us = Us("alpha", "main", {}, gossips.public_of("alpha"))
            state = homes[-1] / "alpha state"
            if state.exists():
                registry = Registry.open(state, us, NOW)
                assert not registry.notices(NOW), "a file is damaged"
                assert registry.version in ((1, 2) if cut else (2,))

        yield Trial(act, check, prepare, settle=200)
        world.cancel_scope.cancel()


@asynccontextmanager
async def _adopting(folder: Path) -> AsyncIterator[Trial]:
    """Peers come and go in peers.d; what was read is taken up in the end, whole."""
    listed = folder / "peers.d"
    listed.mkdir()
    texts = {f"n{i:03}": text_of(f"n{i:03}", addresses=()) for i in range(130)}
    async with ends.end(folder, "alpha") as alpha, trio.open_nursery() as world:
        peers = Peers(listed, Us("alpha", "main", {}))
        exchange, qmgr = alpha.half.exchange, alpha.half.qmgr
        keeping = Keeping(peers, alpha.gate, alpha.dialer, exchange, qmgr)
        turns = itertools.count()

        async def prepare() -> None:
            there = next(turns) % 2 == 0
            for number, (name, text) in enumerate(texts.items()):
                path = listed / f"{name}.mesh"
                if number % 2 or there:
                    path.write_text(text)
                else:
                    path.unlink()

        async def act() -> None:
            await keeping.adopt(world)

        async def check(_cut: bool) -> None:
            await keeping.adopt(world)
            await trio.sleep(1)
            kept = {
                name
                for name in keeping._kept
                if not keeping._kept[name].scope.cancel_called
            }
            assert kept == {path.stem for path in listed.iterdir()}
            await _same()

        async def _same() -> None:
            """Bring the world back to one state, for what is left is counted."""
            for name, text in texts.items():
                (listed / f"{name}.mesh").write_text(text)
            await keeping.adopt(world)
            await trio.sleep(1)

        yield Trial(act, check, prepare, keys=False)
        world.cancel_scope.cancel()


@asynccontextmanager
async def _renewing(folder: Path) -> AsyncIterator[Trial]:
    """A link key that was changed is taken up."""
    numbers = itertools.count()
    made: list[Renewal] = []
    homes: list[Home] = []

    async def prepare() -> None:
        home = Home(folder, f"n{next(numbers)}")
        homes[:] = [home]
        config = load(home.toml)
        made[:] = [Renewal(config, lambda: 0)]
        rotation.rotate(config.state_dir, SystemEntropy(), NOW)

    async def act() -> None:
        adopted: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made[0].run, lambda: adopted.append(1))
            await _until(lambda: adopted)
            nursery.cancel_scope.cancel()

    async def check(cut: bool) -> None:
        state = homes[0].path / "state"
        assert len(load_link_keys(state)) == 2
        assert rotation.look(state) is not None
        if not cut:
            assert len(made[0].keys) == 2

    yield Trial(act, check, prepare, keys=False)


@asynccontextmanager
async def _whole_node(folder: Path) -> AsyncIterator[Trial]:
    """A node from its start to its end, with a message for its remailer on the way."""
    alpha, bravo = Home(folder, "alpha"), Home(folder, "bravo")
    alpha.add(bravo)
    handed = 0

    async def act() -> None:
        nonlocal handed
        send, signals = trio.open_memory_channel[int](0)
        ready = trio.Event()
        node = alpha.make()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run, signals, ready.set)
            await ready.wait()
            if (await alpha.submit("mix@alpha.test"))[-1] == 250:
                handed += 1
            send.close()

    async def check(cut: bool) -> None:
        assert not (alpha.path / "state" / "control.sock").exists()
        if not cut:
            assert not alpha.socket.exists()
            assert len(alpha.found()) >= handed

    yield Trial(act, check, keys=False, settle=1)


# the pacer, in real time


@asynccontextmanager
async def _pacer_running(folder: Path) -> AsyncIterator[Trial]:
    """The pacer's process from its start to its end."""
    del folder

    async def act() -> None:
        pacer = Pacer()
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(pacer.run)
                nursery.cancel_scope.cancel()
        finally:
            os.close(pacer._memory)

    async def check(_cut: bool) -> None:
        pass

    yield Trial(act, check, settle=0.01)


@asynccontextmanager
async def _paced(folder: Path) -> AsyncIterator[Trial]:
    """A link given to the pacer, carried, ended."""
    del folder
    async with trio.open_nursery() as world:
        pacer = Pacer()
        await world.start(pacer.run)

        async def act() -> None:
            near, far = tcp_pair()
            ours, _ = sessions("alpha", "bravo", clock=Clock.RENEWAL, klass=15)
            box = Box()
            wire = SocketWire(near)
            with far:
                far.setblocking(False)
                stream = trio.socket.from_stdlib_socket(far.dup())
                with stream:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(pacer.carry, wire, ours, box)
                        for _ in range(3):
                            await stream.recv(4096)
                        nursery.cancel_scope.cancel()
            assert near.fileno() == -1

        async def check(_cut: bool) -> None:
            assert not pacer._feeds
            assert not pacer._giving.locked()

        yield Trial(act, check, settle=0.02)
        world.cancel_scope.cancel()


OPERATIONS: Final = {
    "dial": Operation(partial(_handshake, dials=True)),
    "answer": Operation(partial(_handshake, dials=False)),
    "link, greedy": Operation(partial(_carrying, clock=Clock.GREEDY)),
    "link, paced": Operation(partial(_carrying, clock=Clock.RENEWAL)),
    "link, storing": Operation(_answering),
    "gossip": Operation(_gossiping),
    "submission": Operation(_submitting),
    "drop folder": Operation(_dropping),
    "spool": Operation(_spool_running),
    "queue": Operation(_queueing),
    "maildir": Operation(_into_maildir),
    "lmtp": Operation(_by_lmtp),
    "pipe": Operation(_into_program, real=True),
    "port 25": Operation(_outside),
    "names": Operation(_names),
    "control": Operation(_asked),
    "peers": Operation(_adopting),
    "rotation": Operation(_renewing),
    "node": Operation(_whole_node),
    "pacer": Operation(_pacer_running, real=True),
    "pacer's link": Operation(_paced, real=True),
}
