# SPDX-License-Identifier: MIT
"""The control socket: what the operator's commands ask of the running node.

    state/control.sock   0600, bound and answered by starting.py until the node is up

One connection is one question (core/control.py) and its answer; `connect` then is a
stream of the peer's link, octets as in mesh/core/raw.py, replies back as they come.

    live                    is a link up, and why not
    on the node's ticks     every count, bugs that ended connections (guard.py), and whose
                            share of the spool was full: read at the start, when the spool
                            was read, each TICK_SECONDS after

so that a status polled each second is no curve of the load that the wire hides; nor is
what `retry` and `drop` did told, for that would be a count of now.  A reason is the last that the dialer or the link gave; nothing here has a time, an
address, an id or a size.  `ping` is a dialogue of its own with one NOOP in it.
"""

import socket
import time
from collections.abc import Callable
from typing import Any, Final

import trio

from mesh.core.clock import Clock, rate_of
from mesh.core.control import (
    REQUEST_MAX_LEN,
    SCHEMA,
    Ask,
    LinkFacts,
    QueueFacts,
    Request,
    What,
    encode_answer,
    encode_refusal,
    parse_request_untrusted,
    status,
)
from mesh.core.descriptor import Descriptor, date
from mesh.core.record import ID_LEN
from mesh.core.reply import SHUTTING_DOWN, Reply
from mesh.errors import (
    RemoteProtocolError,
    UnavailableError,
    UnknownNameError,
    UsageError,
)
from mesh.node.conversation import Conversation
from mesh.node.exchange import Exchange
from mesh.node.peer import Peer
from mesh.node.peers import Peers
from mesh.node.qmgr import QueueManager
from mesh.node.routing import UNROUTED
from mesh.node.shares import has_no_room
from mesh.node.wire import Outlet, SocketWire, receive

TICK_SECONDS: Final = 600.0
"""Between two changes of any count."""
CONNECTIONS_MAX: Final = 64
"""Questions at once; four times as many as dialogues, so that status has room."""
SESSIONS_MAX: Final = 16
"""Dialogues at once: half of a link's streams, so that mail always has some."""
REQUEST_SECONDS: Final = 10.0
"""For a request to arrive: the other end is a program of ours."""
LINK_SECONDS: Final = 30.0
"""That `connect` waits for a link."""
STREAM_SECONDS: Final = 0.1
"""Between two looks for a free stream, or for room on it."""
PING_SECONDS: Final = 60.0
PING_CELLS: Final = 64
"""For a NOOP's answer: through a link whose 32 streams are all busy, both ways."""
IDLE_SECONDS: Final = 600.0
"""Without a word from the user of `connect`: RFC 5321 4.5.3.2 has 5 minutes."""
READ_MAX: Final = 65_536
READING: Final = "the spool is still being read: counts are of what was read of it"
NOTES_MAX: Final = 20
"""Mistakes that status tells: what a screen holds."""
DROP_MAX: Final = 64
"""Records dropped at a stretch: 1 ms, that no cell leaves late."""
GREEDY_CLOCK: Final = "greedy clock"
"""As a descriptor says it."""

LOST: Final = Reply(421, "the link is lost, try later")
IDLE: Final = Reply(421, "nothing was said for too long")


class Control:
    """Answers on the control socket."""

    def __init__(  # noqa: PLR0913  # each part by name
        self,
        *,
        name: str,
        clock: Clock,
        klass: int,
        peers: Peers,
        exchange: Exchange,
        qmgr: QueueManager,
        unix_time: Callable[[], float] = lambda: time.time(),
        notices: Callable[[], list[str]] = list,
        directory: Callable[[], dict[str, object] | None] = lambda: None,
        has_left: Callable[[], bool] = lambda: False,
        ticked: Callable[[], list[str]] = list,
    ) -> None:
        """Give it all that it tells.

        `notices` are the node's own lines, live, `directory` what is in force, in brief,
        `has_left` says whether the node has left, `ticked` are lines that change with
        the counts only.
        """
        self._name, self._clock, self._klass = name, clock, klass
        self._peers = peers
        self._exchange = exchange
        self._qmgr = qmgr
        self._unix_time = unix_time
        self._notices = notices
        self._directory = directory
        self._has_left = has_left
        self._places = trio.CapacityLimiter(CONNECTIONS_MAX)
        self._dialogues = trio.CapacityLimiter(SESSIONS_MAX)
        self._ticked = ticked
        self._queue = QueueFacts()
        self._coarse: list[str] = []

    async def run(self, sock: socket.socket) -> None:
        """Accept on a listening socket, which it closes when it is cancelled."""
        sock.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(self._tick_forever)
            while True:
                try:
                    stream = await listener.accept()
                except OSError:  # no descriptors left: some session will end
                    await trio.sleep(STREAM_SECONDS)
                    continue
                accepted = socket.socket(fileno=stream.socket.detach())
                nursery.start_soon(self.serve, SocketWire(accepted))

    async def _tick_forever(self) -> None:
        due = trio.current_time()
        if not self._qmgr.spool.is_indexed:
            self._qmgr.spool.when_indexed(self._tick)
        while True:
            self._tick()
            due += TICK_SECONDS
            await trio.sleep_until(due)

    def _tick(self) -> None:
        names = {
            one.descriptor.identity[:ID_LEN]: name
            for name, one in self._peers.snapshot.by_name.items()
        }
        refused = self._qmgr.spool.take_refused()
        full = sorted(has_no_room(origin, names) for origin in refused)
        self._queue = self._count()
        told = [*self._ticked(), *self._qmgr.guard.notices(), *full]
        self._coarse = told + self._qmgr.pool.notices()

    async def serve(self, wire: SocketWire) -> None:
        """Serve one connection to its end."""
        with self._qmgr.guard():
            try:
                async with self._places:
                    line = await _read_line(wire)
                    if line:
                        await self._answer(wire, line)
            finally:
                wire.close()

    async def _answer(self, wire: SocketWire, line: bytes) -> None:
        async with trio.open_nursery() as nursery:
            outlet = Outlet(wire)
            nursery.start_soon(outlet.flush_forever)
            try:
                request = parse_request_untrusted(line)
                if request.ask is Ask.CONNECT:
                    async with self._dialogues:
                        await self._connect(wire, outlet, request.peer)
                elif request.ask is Ask.PING:
                    async with self._dialogues:
                        outlet.send(encode_answer(await self._ping(request.peer)))
                else:
                    outlet.send(encode_answer(await self._tell(request)))
            except RemoteProtocolError as error:
                outlet.send(encode_refusal(UsageError.exit_code, str(error)))
            except (UnavailableError, UnknownNameError) as error:
                outlet.send(encode_refusal(error.exit_code, str(error)))
            await outlet.drained()
            nursery.cancel_scope.cancel()

    # status, queue, retry, drop

    async def _tell(self, request: Request) -> dict[str, Any]:
        if request.ask is Ask.STATUS:
            return self._tell_status()
        if request.ask is Ask.QUEUE:
            return {"queue": {"schema": SCHEMA, **self._queue.rounded()}}
        if request.ask is Ask.RETRY:
            self._qmgr.lead_back(self._qmgr.take_deferred())
        else:
            await self._drop(request.what)
        return {}

    def _tell_status(self) -> dict[str, Any]:
        now = self._unix_time()
        listed = [one.descriptor for one in self._peers.snapshot.by_name.values()]
        gone = {descriptor.name for descriptor in listed if descriptor.has_left(now)}
        links = [self._link(descriptor) for descriptor in listed]
        reading = [] if self._qmgr.spool.is_indexed else [READING]
        notes = [
            *self._notices(),
            *reading,
            *self._coarse,
            *self._peers.snapshot.mistakes,
        ]
        notes += [
            f"{d.name} {'left' if d.name in gone else 'leaves'} the mesh at "
            f"{date(d.leaves)}"
            for d in listed
            if d.leaves
        ]
        notes = _few(notes)
        directory = self._directory()
        told = status(self._name, links, self._queue, gone, directory, notes)
        return {"status": told, "notes": notes}

    async def _drop(self, what: What | None) -> None:
        if what is What.DEFERRED:
            refs = self._qmgr.take_deferred()
        else:
            ready = self._qmgr.queue(UNROUTED).ready
            refs = list(ready)
            ready.clear()
        for first in range(0, len(refs), DROP_MAX):
            for ref in refs[first : first + DROP_MAX]:
                self._qmgr.delivered(ref)
            await trio.lowlevel.checkpoint()

    def _count(self) -> QueueFacts:
        counts = dict.fromkeys(("peers", "remailers", "port_25", "unrouted"), 0)
        for destination, queue in self._qmgr.queues.items():
            counts[_kind(destination)] += len(queue.ready)
        counts["port_25"] += len(self._qmgr.pool)
        spool, deferred = self._qmgr.spool, self._qmgr.deferred
        waiting = max(0, spool.waiting - deferred)
        moving = max(0, waiting - sum(counts.values()))
        return QueueFacts(waiting, deferred, spool.corrupt, moving=moving, **counts)

    def _link(self, descriptor: Descriptor) -> LinkFacts:
        peer = self._exchange.peers.get(descriptor.name)
        session = peer.session if peer else None
        clock = session.clock if session else min(self._clock, descriptor.clock)
        klass = session.klass if session else min(self._klass, descriptor.klass)
        own = (GREEDY_CLOCK,) if self._clock is Clock.GREEDY else ()
        return LinkFacts(
            peer=descriptor.name,
            up=session is not None,
            reason="" if session else self._reason(descriptor, peer),
            clock=clock.name.lower(),
            cells_per_second=rate_of(klass),
            insecure=tuple(sorted({*descriptor.insecure, *own})),
        )

    def _reason(self, descriptor: Descriptor, peer: Peer | None) -> str:
        """Say in a few words why there is no link, and what may help."""
        if none_wanted := self._why_none(descriptor):
            return none_wanted
        if peer and peer.ports:
            return peer.reason or "handshaking"
        if not descriptor.addresses:
            return "it dials us: is our address right, and our port open?"
        return (peer and peer.reason) or "dialling"

    def _why_none(self, descriptor: Descriptor) -> str:
        """Say why there shall be no link now; "" where there shall be one."""
        now = self._unix_time()
        if self._has_left():
            return "this node has left the mesh"
        if descriptor.has_left(now):
            return f"left the mesh: `mesh peers remove {descriptor.name}` in due time"
        if now > descriptor.not_after:
            return "expired descriptor: ask its operator for a fresh `mesh export`"
        if now < descriptor.not_before:
            return "its descriptor is not valid yet: compare the clocks"
        return ""

    # ping, connect

    async def _converse(self, name: str, seconds: float) -> Conversation:
        """Begin a dialogue with a peer, if need be after a while."""
        listed = self._peers.snapshot.by_name.get(name)
        if listed is None:
            raise UnknownNameError(
                f"{name}: no such peer: `mesh peers list` shows who is listed"
            )
        with trio.move_on_after(seconds):
            while True:
                peer = self._exchange.peers.get(name)
                if peer and (conversation := peer.converse()):
                    return conversation
                await trio.sleep(STREAM_SECONDS)
        why = self._link(listed.descriptor).reason or "all its streams are in use"
        raise UnavailableError(f"{name}: no link: {why}")

    async def _ping(self, name: str) -> dict[str, Any]:
        peer = self._exchange.peers.get(name)
        is_up = peer is not None and peer.up
        conversation = await self._converse(name, LINK_SECONDS if is_up else 0)
        listed = self._peers.snapshot.by_name.get(name)
        if listed is None:  # removed while we waited: its link ends
            conversation.end(gone=True)
            raise UnavailableError(f"{name}: is no peer any more")
        link = self._link(listed.descriptor)
        try:
            with trio.move_on_after(PING_SECONDS + PING_CELLS / link.cells_per_second):
                if await conversation.next() is not None:
                    asked = trio.current_time()
                    conversation.write(b"NOOP\r\n")
                    if await conversation.next() is not None:
                        return {
                            "seconds": round(trio.current_time() - asked, 3),
                            "clock": link.clock,
                            "cells_per_second": link.cells_per_second,
                        }
        finally:
            conversation.end(gone=True)
        raise UnavailableError(f"{name}: the link went while it was asked")

    async def _connect(self, wire: SocketWire, outlet: Outlet, name: str) -> None:
        conversation = await self._converse(name, LINK_SECONDS)
        outlet.send(encode_answer({}))
        last: Reply | None = SHUTTING_DOWN
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_listen, wire, outlet, conversation)
                while isinstance(reply := await conversation.next(), Reply):
                    outlet.send(reply.encode())
                last = LOST if reply is None else None
                nursery.cancel_scope.cancel()
        finally:
            conversation.end(gone=True)
            if last is not None:
                outlet.send(last.encode())


def _few(notes: list[str]) -> list[str]:
    """Give the first of them, and how many more there are."""
    more = len(notes) - NOTES_MAX
    return [*notes[:NOTES_MAX], f"and {more} more: mesh peers"] if more > 0 else notes


async def _listen(wire: SocketWire, outlet: Outlet, conversation: Conversation) -> None:
    """Take what the user says, no faster than the link carries it."""
    while True:
        while not conversation.room or outlet.waiting:  # noqa: ASYNC110  # a slow clock
            await trio.sleep(STREAM_SECONDS)
        with trio.move_on_after(IDLE_SECONDS) as idle:
            octets = await receive(wire, min(conversation.room, READ_MAX))
            if not octets:
                conversation.end(gone=False)
                return
            conversation.write(octets)
        if idle.cancelled_caught:
            outlet.send(IDLE.encode())
            conversation.end(gone=True)
            return


async def _read_line(wire: SocketWire) -> bytes:
    """Read the request; b"" when none comes."""
    line = b""
    with trio.move_on_after(REQUEST_SECONDS):
        while len(line) <= REQUEST_MAX_LEN and not line.endswith(b"\n"):
            octets = await receive(wire, REQUEST_MAX_LEN)
            if not octets:
                return b""
            line += octets
        return line
    return b""


def _kind(destination: str) -> str:
    if destination == UNROUTED:
        return "unrouted"
    if destination.startswith("local:"):
        return "remailers"
    return "port_25" if destination.startswith("exit") else "peers"
