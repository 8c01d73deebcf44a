# SPDX-License-Identifier: MIT
"""Exceptions planted where one connection, one delivery, one visit is served.

What a part is given by others (a wire, a socket, a table, a callback) raises at its n-th
call: that is where a bug shows, whoever made it.  The connection may end; the node must
not, nobody else may notice, the bug is counted, and the same thing works right after.

`python -m tests.node.planting` plants many more than the suite does.
"""

import gc
import itertools
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mesh.core.cell import CELL_LEN
from mesh.core.clock import Clock
from mesh.core.control import Ask, Request, encode_request
from mesh.core.crypto import MlKem768
from mesh.core.reply import NO_SUCH_RECIPIENT, Reply
from mesh.errors import LocalProtocolError
from mesh.node import lmtp as lmtp_
from mesh.node.counters import OwnCounter
from mesh.node.delivery import MaildirDelivery
from mesh.node.dialer import Dialer
from mesh.node.drop import Drop
from mesh.node.guard import Guard
from mesh.node.listener import bind
from mesh.node.mx import Place
from mesh.node.pipe import PipeDelivery
from mesh.node.submission import Submission, bind_unix
from mesh.node.wire import SocketWire
from tests.descriptors import identity_of, signed
from tests.directories import directory
from tests.harness import (
    FakeWire,
    FixedEntropy,
    Half,
    Patience,
    connect,
    half,
    patient_clock,
)
from tests.node import ends, gossips
from tests.node.cancelling import Left
from tests.node.dropping import leave, make_drop
from tests.node.exits import exit_node
from tests.node.homes import free_port
from tests.node.operations import TO, Remailer, SmtpServer
from tests.node.test_control import operated
from tests.node.test_delivery import Server, lmtp_delivery

SECRET: Final = "who@secret.example"
"""In each exception's text; nowhere else."""
ERRORS: Final[tuple[Callable[[], Exception], ...]] = (
    lambda: RuntimeError(SECRET),
    lambda: OSError(5, SECRET),
    lambda: MemoryError(SECRET),
    lambda: UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    lambda: AssertionError(SECRET),
    lambda: KeyError(SECRET),
    lambda: LocalProtocolError(SECRET),
    lambda: RecursionError(SECRET),
    lambda: ExceptionGroup(SECRET, [ValueError(SECRET)]),
)


class Fuse:
    """Counts calls, and raises at one of them."""

    def __init__(self) -> None:
        self.calls = 0
        self._at = 0
        self._error: Callable[[], Exception] = ERRORS[0]
        self.blown = False
        self.kind: type[Exception] = Exception

    def set(self, at: int, error: Callable[[], Exception] = ERRORS[0]) -> None:
        """Raise at so many calls from now; 0: never."""
        self.calls, self._at, self._error, self.blown = 0, at, error, False

    def call(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            self.blown = True
            error = self._error()
            self.kind = type(error)  # and not the error, which has all our frames
            raise error

    def on(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, behind this fuse."""

        def fused(*args: Any, **options: Any) -> Any:
            self.call()
            return function(*args, **options)

        return fused


class Fused:
    """An object whose methods are behind a fuse."""

    def __init__(self, fuse: Fuse, inner: object, *names: str) -> None:
        self._fuse, self._inner, self._names = fuse, inner, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._fuse.on(found) if name in self._names else found


class FusedWire(FakeWire):
    """A wire whose calls are behind a fuse."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse

    def try_send(self, data: bytes | memoryview) -> int:
        self._fuse.call()
        return super().try_send(data)

    def try_receive(self, limit: int) -> bytes | None:
        self._fuse.call()
        return super().try_receive(limit)

    async def wait_readable(self) -> None:
        self._fuse.call()
        await super().wait_readable()

    def unsent(self) -> int:
        self._fuse.call()
        return super().unsent()


def _fused_wire(fuse: Fuse, wire: Any) -> Any:
    wire.try_send = fuse.on(wire.try_send)
    wire.try_receive = fuse.on(wire.try_receive)
    return wire


class FusedSocket(socket.socket):
    """A listening socket; what it accepts is behind a fuse."""

    fuse: Fuse | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        accepted, address = super().accept()
        made = FusedSocket(fileno=accepted.detach())
        made.fuse = self.fuse
        return made, address

    def send(self, *args: Any) -> int:
        if self.fuse:
            self.fuse.call()
        return super().send(*args)

    def recv_into(self, *args: Any) -> int:
        if self.fuse:
            self.fuse.call()
        return super().recv_into(*args)

    def getsockopt(self, *args: Any) -> Any:
        if self.fuse:
            self.fuse.call()
        return super().getsockopt(*args)


class Site:
    """A place where exceptions are planted."""

    def __init__(
        self,
        act: Callable[[], Awaitable[None]],
        guard: Guard,
        fuse: Fuse,
        *,
        settle: float = 5,
        keys: bool = True,
        handles: tuple[type[Exception], ...] = (),
    ) -> None:
        """`act` returns also when its fuse has blown; if not, AssertionError or done.

        `handles` are no bugs there, but what a disk or a system may say.
        """
        self.handles = handles
        self.act, self.guard, self.fuse = act, guard, fuse
        self.settle, self.keys = settle, keys


Making = Callable[[Path, Fuse], AbstractAsyncContextManager[Site]]


async def _until(fuse: Fuse, holds: Callable[[], object], seconds: float = 3e5) -> None:
    """Wait for what must come, unless a fuse blew."""
    deadline = trio.current_time() + seconds
    while not (holds() or fuse.blown):
        assert trio.current_time() < deadline, "it never held"
        await trio.sleep(0.2 if trio.current_time() > deadline - seconds + 1 else 0.01)


async def plant(making: Making, folder: Path, count: int) -> AsyncIterator[int]:
    """Plant so many exceptions at one site, spread over its calls; gives how many."""
    fuse = Fuse()
    async with making(folder, fuse) as site:
        calls = 0
        for share in (0.0, 0.0, 0.5, 0.0):  # what is made once for all is made
            fuse.set(round(share * calls))
            await site.act()
            await trio.sleep(site.settle)
            calls = fuse.calls
        left = Left.now()
        assert calls, "nothing is behind this fuse"
        for number in range(count):
            before = site.guard.bugs
            at = 1 + number * calls // count
            while True:
                fuse.set(at, ERRORS[number % len(ERRORS)])
                await site.act()
                await trio.sleep(site.settle)
                if fuse.blown:
                    break
                assert fuse.calls, "nothing was done"
                at = max(1, at // 2)  # there was less to do this time
            if not issubclass(fuse.kind, site.handles):
                assert site.guard.bugs > before, "nobody has counted it"
            assert SECRET not in "".join(site.guard.notices())
            fuse.set(0)
            await site.act()
            await trio.sleep(site.settle)
            if not site.keys:
                left.keys = Left.now().keys
            left.compare()
            yield 1


# the sites


@asynccontextmanager
async def _sessions(
    folder: Path, fuse: Fuse, *, by_socket: bool
) -> AsyncIterator[Site]:
    """The local socket: what the kernel says, and what the table of addresses says."""

    def accepts(path: str) -> Reply | None:
        if not by_socket:
            fuse.call()
        return None if path == TO else NO_SUCH_RECIPIENT

    path = folder / "local.sock"
    async with (
        half(folder, "alpha", {TO: "local:0"}) as alpha,
        trio.open_nursery() as n,
    ):
        sock = FusedSocket(fileno=bind_unix(path).detach())
        sock.fuse = fuse if by_socket else None
        submission = Submission(
            name="alpha", qmgr=alpha.qmgr, accepts=accepts, max_message=10**6, uids=None
        )
        n.start_soon(submission.run, sock)

        async def act() -> None:
            remailer = Remailer(path)
            await remailer.talk()
            await trio.sleep(1)
            if not fuse.blown:
                assert remailer.acknowledged == remailer.offered
                assert len(remailer.offered) == 4
            here = await alpha.arrived()
            assert len(here) >= len(remailer.acknowledged)
            refs = alpha.qmgr.queue("local:0").ready
            for ref in refs:
                alpha.qmgr.delivered(ref)
            refs.clear()
            assert not submission._sessions

        handles = (OSError,) if by_socket else ()
        yield Site(act, alpha.qmgr.guard, fuse, handles=handles)
        n.cancel_scope.cancel()
        sock.close()


@asynccontextmanager
async def _answered(folder: Path, fuse: Fuse, where: str) -> AsyncIterator[Site]:
    """A peer that dials us: its handshake, its link, its mail."""

    def keys_of(name: str) -> Any:
        if where == "table":
            fuse.call()
        return ends.keys_of(name)

    def refuses(_address: str) -> bool:
        if where == "relaying":
            fuse.call()
        return False

    routes = {"mix@bravo": "bravo"}
    async with (
        ends.end(folder, "alpha", "bravo", routes=routes) as alpha,
        ends.end(
            folder,
            "bravo",
            "alpha",
            keys_of=keys_of,
            routes={"mix@bravo": "local:0"},
        ) as bravo,
        trio.open_nursery() as nursery,
    ):
        numbers = itertools.count(1)
        here = bravo.half.qmgr.queue("local:0").ready
        bravo.half.exchange._refuses = refuses
        sent = [0]

        async def act() -> None:
            far = FusedWire(fuse) if where == "wire" else FakeWire()
            near = FakeWire()
            near.other, far.other = far, near
            nursery.start_soon(bravo.listener.serve, far)
            if await _link_by_hand(fuse, alpha.half, near, next(numbers)):
                sent[0] += 1
            near.close()
            await trio.sleep(200)  # whoever is silent has ended
            if not fuse.blown:
                assert alpha.half.quiet
                assert len(here) == sent[0], "lost, or twice"

        yield Site(act, bravo.half.qmgr.guard, fuse)
        nursery.cancel_scope.cancel()


async def _link_by_hand(fuse: Fuse, alpha: Half, near: FakeWire, number: int) -> bool:
    """Dial bravo, link, hand a message over; whether one was submitted."""
    initiator = ends.hand("alpha", "bravo", number)
    near.try_send(initiator.message_1())
    came: list[bytes] = []

    def answered() -> bool:
        data = near.try_receive(CELL_LEN)
        came.extend([data] if data else [])
        return bool(came)

    await _until(fuse, answered, 30)
    if came:
        near.try_send(initiator.receive_message_2_untrusted(came[0]))
        session = initiator.session()
        alpha.submit(b"%d\r\n" % number, "mix@bravo")
        async with trio.open_nursery() as link:
            link.start_soon(alpha.exchange.run_link, session, near)
            await _until(fuse, lambda: alpha.quiet, 300)
            await trio.sleep(0.5)
            link.cancel_scope.cancel()
    initiator.wipe()
    return bool(came)


@asynccontextmanager
async def _dialled(folder: Path, fuse: Fuse) -> AsyncIterator[Site]:
    """A peer whom we dial: what we have of ourselves breaks, and it is dialled again."""
    address = f"127.0.0.1:{free_port()}"
    async with (
        ends.end(folder, "alpha", "bravo") as alpha,
        ends.end(folder, "bravo", "alpha") as bravo,
        trio.open_nursery() as nursery,
    ):
        (sock,) = bind([address])
        nursery.start_soon(bravo.listener.run, sock)
        dialer = Dialer(
            network=ends.NETWORK,
            identity=identity_of("alpha"),
            statics=fuse.on(lambda: alpha.statics),
            counter=Fused(fuse, OwnCounter(folder / "own", 10**18), "next"),  # type: ignore[arg-type]
            clock=Clock.RENEWAL,
            klass=3,
            kem=Fused(fuse, MlKem768(), "keypair"),
            exchange=alpha.half.exchange,
            entropy=Fused(fuse, FixedEntropy("dial"), "octets", "key"),
        )

        async def act() -> None:
            async with trio.open_nursery() as keeping:
                keeping.start_soon(dialer.keep, ends.keeps("bravo"), lambda: (address,))
                # Also when it blew: the next dial brings the link.
                with trio.fail_after(300):
                    while not (alpha.up("bravo") and bravo.up("alpha")):  # noqa: ASYNC110
                        await trio.sleep(0.1)
                keeping.cancel_scope.cancel()
            await trio.sleep(200)

        yield Site(act, alpha.half.qmgr.guard, fuse)
        nursery.cancel_scope.cancel()
        sock.close()


@asynccontextmanager
async def _maildir(folder: Path, fuse: Fuse) -> AsyncIterator[Site]:
    """A delivery into a Maildir; what waits comes a while later."""
    async with (
        half(folder, "alpha", {TO: "local:0"}) as alpha,
        trio.open_nursery() as n,
    ):
        delivery = MaildirDelivery(
            maildir=folder / "Maildir",
            destination="local:0",
            qmgr=alpha.qmgr,
            name_of=fuse.on(bytes.hex),
        )
        n.start_soon(delivery.run)
        yield Site(partial(_all_go, alpha), alpha.qmgr.guard, fuse)
        n.cancel_scope.cancel()


async def _all_go(alpha: Half) -> None:
    """Hand two messages over; also when a delivery broke all of it goes, by and by."""
    for number in range(2):
        alpha.submit(b"%d\r\n" % number, TO)
    await trio.sleep(0.1)
    with trio.fail_after(3e5):
        while not alpha.quiet:  # noqa: ASYNC110
            await trio.sleep(5)


@asynccontextmanager
async def _lmtp(folder: Path, fuse: Fuse) -> AsyncIterator[Site]:
    """Connections to an LMTP server, and the making of them."""
    with pytest.MonkeyPatch.context() as patch:
        made = lmtp_._connect

        async def connect_to(address: Any) -> Any:
            fuse.call()
            wire = await made(address)
            return wire and _fused_wire(fuse, wire)

        patch.setattr(lmtp_, "_connect", connect_to)
        async with (
            half(folder, "alpha", {TO: "local:0"}) as alpha,
            trio.open_nursery() as nursery,
        ):
            server = Server(folder / "lmtp.sock")
            nursery.start_soon(server.run)
            nursery.start_soon(lmtp_delivery(alpha, folder / "lmtp.sock").run)
            site = Site(partial(_all_go, alpha), alpha.qmgr.guard, fuse, settle=90)
            yield site
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _program(folder: Path, fuse: Fuse) -> AsyncIterator[Site]:
    """A program that cannot be started, for a reason that nobody thought of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", fuse.on(subprocess.Popen))
        async with (
            half(folder, "alpha", {TO: "local:0"}) as alpha,
            trio.open_nursery() as nursery,
        ):
            delivery = PipeDelivery(
                argv=("/bin/cat",), destination="local:0", qmgr=alpha.qmgr
            )
            nursery.start_soon(delivery.run)
            yield Site(
                partial(_all_go, alpha),
                alpha.qmgr.guard,
                fuse,
                handles=(OSError, ValueError),
            )
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def _visits(folder: Path, fuse: Fuse, where: str) -> AsyncIterator[Site]:
    """Port 25: who takes the mail, and who wants none; others' visits go on."""
    server = SmtpServer()

    def refuses(_address: str) -> bool:
        if where == "refuses":
            fuse.call()
        return False

    class Places(dict[str, list[Place]]):
        def __missing__(self, _domain: str) -> list[Place]:
            if where == "places":
                fuse.call()
            return [Place("mx.x.test", "127.0.0.1", port)]

    async with trio.open_nursery() as world:
        (listener,) = await world.start(
            partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1")
        )
        port = listener.socket.getsockname()[1]
        async with exit_node(folder, Places(), tick=60, refuses=refuses) as (alpha, _):
            numbers = itertools.count()

            async def act() -> None:
                for _ in range(2):
                    alpha.submit(b"x\r\n", f"who@x{next(numbers)}.test")
                await trio.sleep(0.1)
                with trio.fail_after(3e5):
                    while not alpha.quiet:  # noqa: ASYNC110
                        await trio.sleep(10)

            yield Site(act, alpha.qmgr.guard, fuse, settle=30)
        world.cancel_scope.cancel()


@asynccontextmanager
async def _questions(folder: Path, fuse: Fuse, where: str) -> AsyncIterator[Site]:
    """The control socket: what is asked of others, and the socket."""
    async with operated(folder) as (operator, alpha, bravo, world):
        await connect(world, alpha, bravo)
        control = operator.control
        if where == "parts":
            control._notices = fuse.on(control._notices)
            control._directory = fuse.on(control._directory)
            control._unix_time = fuse.on(control._unix_time)
            control._has_left = fuse.on(control._has_left)

        async def act() -> None:
            for ask in (Ask.STATUS, Ask.QUEUE, Ask.PING):
                ours, theirs = socket.socketpair()
                ours.setblocking(False)
                peer = "bravo" if ask is Ask.PING else ""
                ours.sendall(encode_request(Request(ask, peer)))
                wire: Any = SocketWire(theirs)
                world.start_soon(
                    control.serve,
                    _fused_wire(fuse, wire) if where == "socket" else wire,
                )
                answer = b""
                async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as s:
                    with suppress(trio.BrokenResourceError):
                        async for octets in s:
                            answer += octets
                assert fuse.blown or b'"ok":true' in answer.replace(b" ", b"")

        yield Site(act, alpha.qmgr.guard, fuse, settle=10)


@asynccontextmanager
async def _dropped(folder: Path, fuse: Fuse) -> AsyncIterator[Site]:
    """The drop folder: what its files bring about."""
    async with half(folder, "alpha", {"you@alpha.test": "local:0"}) as alpha:
        drop = make_drop(folder, alpha.qmgr)
        names = "look", "read", "withdraw", "publish", "is_published", "sync"
        drop = Drop(Fused(fuse, drop._box, *names), drop._keys, alpha.qmgr)  # type: ignore[arg-type]
        numbers = itertools.count()
        here = alpha.qmgr.queue("local:0").ready
        sent = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drop.run)
            await trio.sleep(5)

            async def act() -> None:
                nonlocal sent
                leave(folder, next(numbers))
                sent += 1
                with trio.fail_after(3e3):
                    while len(here) < sent:  # noqa: ASYNC110  # also when it blew
                        await trio.sleep(0.5)
                await trio.sleep(15)
                assert len(here) == sent, "taken twice"

            yield Site(act, alpha.qmgr.guard, fuse, keys=False, handles=(OSError,))
            nursery.cancel_scope.cancel()
        drop.close()


@asynccontextmanager
async def _gossip(folder: Path, fuse: Fuse) -> AsyncIterator[Site]:
    """What peers say of the directory and of themselves."""
    first = directory()
    second = directory(first)
    async with (
        gossips.knower(folder, "bravo", second) as bravo,
        trio.open_nursery() as world,
    ):
        bravo.registry.tell_own(signed("bravo", serial=8))
        numbers = itertools.count()
        guard = Guard()

        async def act() -> None:
            number = next(numbers)
            home = folder / str(number)
            home.mkdir()
            async with gossips.knower(home, "alpha", first) as alpha:
                alpha.gossip.guard = guard
                alpha.gossip._registry = Fused(  # type: ignore[assignment]
                    fuse, alpha.registry, "consider_document", "consider_descriptors"
                )
                near, far = FakeWire(), FakeWire()
                near.other, far.other = far, near
                head = alpha.half.exchange.directory
                ours, theirs = gossips.real_sessions(
                    "alpha", "bravo", number + 1, Clock.GREEDY, 6, head
                )
                world.start_soon(bravo.half.exchange.run_link, theirs, far)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(alpha.half.exchange.run_link, ours, near)
                    await _until(fuse, lambda: alpha.registry.version == 2, 300)
                    await _until(fuse, lambda: alpha.newest("bravo") == 8, 300)
                    await trio.sleep(5)
                    assert alpha.half.exchange.peers["bravo"].up, "its link ended"
                    nursery.cancel_scope.cancel()

        yield Site(act, guard, fuse, settle=200)
        world.cancel_scope.cancel()


SITES: Final[dict[str, tuple[Making, bool]]] = {
    "submission's socket": (partial(_sessions, by_socket=True), False),
    "submission's addresses": (partial(_sessions, by_socket=False), False),
    "answered, the wire": (partial(_answered, where="wire"), False),
    "answered, the table": (partial(_answered, where="table"), False),
    "answered, relaying": (partial(_answered, where="relaying"), False),
    "dialled": (_dialled, False),
    "gossip": (_gossip, False),
    "drop folder": (_dropped, False),
    "maildir": (_maildir, False),
    "lmtp": (_lmtp, False),
    "pipe": (_program, False),
    "port 25, places": (partial(_visits, where="places"), False),
    "port 25, refused": (partial(_visits, where="refuses"), False),
    "control, its parts": (partial(_questions, where="parts"), False),
    "control, its socket": (partial(_questions, where="socket"), False),
}
"""Each, and whether its time is real."""


def plant_at(name: str, count: int) -> int:
    """Plant exceptions at one site; how many were planted and survived."""
    making, real = SITES[name]
    gc.collect()  # whatever others left is not ours

    async def run() -> int:
        return sum([one async for one in plant(making, Path(folder), count)])

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if real:
            return trio.run(run)
        return trio.run(run, clock=patient_clock(Patience(patch)))


def main() -> int:
    """Plant, count, print."""
    table = Table("where", "planted", "the node")
    planted, down = 0, 0
    for name in track(SITES, description="planting"):
        try:
            count = plant_at(name, 24)
        except Exception as error:
            table.add_row(name, "?", repr(error))
            down += 1
        else:
            planted += count
            table.add_row(name, str(count), "up")
    Console().print(table)
    Console().print(f"{planted} exceptions planted, {down} places that brought it down")
    return 1 if down else 0


if __name__ == "__main__":
    sys.exit(main())
