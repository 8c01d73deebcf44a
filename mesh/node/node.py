# SPDX-License-Identifier: MIT
"""The node: composes all parts, starts them in order, ends them in order.

    start   lock the state -> keys -> spool (recover) -> peers -> bind the port
            -> links, deliveries -> *last* the local socket -> READY=1
    peers   peers.d is looked at each second; a change is adopted as a whole: removed
            peers' links end at once, new ones are dialled, stray mail is routed anew
    signals SIGHUP looks at peers.d now, any other ends
    end     no new sessions -> every link says in its next cell that it ends (whatever
            waits: the count of cells does not depend on it), and what remailers are
            being given is given, at most STOP_SECONDS -> the spool commits what it has;
            what was accepted stays there

A disk that fails ends the process with 74: it recovers at its next start, and never
syncs again in the hope of success.  Nothing here logs.
"""

import fcntl
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from mesh.config import Config
from mesh.core.crypto import (
    Entropy,
    MlKem768,
    SystemEntropy,
    derive_key,
    keyed_hash,
    signing_public,
)
from mesh.core.directory import Conflict, Listed, Local, ToPeer
from mesh.core.gate import Gate
from mesh.core.handshake import PeerKeys
from mesh.core.names import normalize_address
from mesh.core.reply import NO_SUCH_RECIPIENT, Reply
from mesh.errors import CannotCreateError, UnavailableError
from mesh.node import keys as key_files
from mesh.node.counters import OwnCounter, PeerCounters
from mesh.node.delivery import LmtpDelivery, MaildirDelivery
from mesh.node.dialer import Dialer
from mesh.node.exchange import Exchange
from mesh.node.listener import Listener, bind
from mesh.node.peers import Peers, Us
from mesh.node.qmgr import UNROUTED, QueueManager
from mesh.node.spool import Spool
from mesh.node.submission import Submission, allowed_uids, bind_unix
from mesh.values import LmtpSocket, Maildir, Target

PEERS_SECONDS: Final = 1.0
"""Between two looks at peers.d: a change counts within 2 s."""
STOP_SECONDS: Final = 6.0
"""For the last cells; with ANSWER_SECONDS 8 of the 10 that the contract gives."""
ANSWER_SECONDS: Final = 2.0
"""For replies to messages that are being committed when the node is told to end."""


def lock_state(state: Path) -> int:
    """Take the state directory for this process; the lock dies with it.

    UnavailableError when another node has it.
    """
    try:
        fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotCreateError(
            f"{state}: {error.strerror}; make it with `mesh init`"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise UnavailableError(
            f"{state}: in use by another node; stop that one first"
        ) from error
    return fd


def notify(state: str) -> None:
    """Tell systemd, if it is there, by sd_notify(3)'s datagram."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        address = "\0" + path[1:] if path.startswith("@") else path
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.sendto(state.encode(), address)


class Node:
    """One node from its start to its end; `run` is all that is called."""

    def __init__(self, config: Config, entropy: Entropy | None = None) -> None:
        self._config = config
        self._entropy = entropy or SystemEntropy()
        self._adopted = False
        self._deliveries: list[MaildirDelivery | LmtpDelivery] = []
        self._keeping: dict[str, tuple[PeerKeys, trio.CancelScope]] = {}
        lock = lock_state(config.state_dir)
        try:
            self._open()
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _open(self) -> None:
        """Read keys and peers, recover the spool; blocking."""
        config, entropy = self._config, self._entropy
        state = config.state_dir
        identity = key_files.load_identity(state)
        statics = key_files.load_link_keys(state)
        spool_key = key_files.load_spool_key(state)
        self._names = derive_key(spool_key, b"mesh/1 maildir names")
        self._uids = allowed_uids([remailer.user for remailer in config.remailer])
        own = OwnCounter(state / "counter", time.time_ns())
        counters = PeerCounters(state / "counters")
        us = Us(config.node.name, config.node.network, config.own_addresses())
        self._peers = Peers(config.peers_dir, us)
        self._peers.poll()
        self._spool = Spool.open(state / "spool", spool_key, entropy)
        self._qmgr = QueueManager(self._spool, self._route, entropy)
        self._exchange = Exchange(
            name=config.node.name,
            identity=signing_public(identity),
            qmgr=self._qmgr,
            max_message=config.local.message_bytes,
            entropy=entropy,
        )
        kem = MlKem768()
        self._gate = Gate(
            network=config.node.network,
            identity=identity,
            statics=statics,
            find_peer=self._find_peer,
            counters=counters.last,
            kem=kem,
            entropy=entropy,
            clock=config.link.clock,
            klass=config.link.klass,
        )
        self._listener = Listener(self._gate, counters, self._exchange, entropy)
        self._dialer = Dialer(
            network=config.node.network,
            identity=identity,
            static=statics[0],
            counter=own,
            kem=kem,
            exchange=self._exchange,
            entropy=entropy,
            clock=config.link.clock,
            klass=config.link.klass,
        )
        self._submission = Submission(
            name=config.node.name,
            qmgr=self._qmgr,
            accepts=self._accepts,
            max_message=config.local.message_bytes,
            uids=self._uids,
        )

    # what the parts ask

    def _route(self, address: str) -> str | None:
        """Name the place of an address: a peer, `local:N`, UNROUTED, or None."""
        try:
            canonical = normalize_address(address)
        except ValueError:
            canonical = address.lower()  # bare postmaster, and what nobody serves
        route = self._peers.snapshot.directory.route(canonical)
        if isinstance(route, Local):
            return f"local:{route.index}"
        if isinstance(route, ToPeer):
            return route.name
        return UNROUTED if isinstance(route, Conflict) else None

    def _accepts(self, path: str) -> Reply | None:
        """Refuse what no node serves; port 25 comes later, so `exit` does not matter."""
        return None if self._route(path) is not None else NO_SUCH_RECIPIENT

    def _find_peer(self, link_key: bytes) -> PeerKeys | None:
        listed = self._peers.snapshot.find(link_key, time.time())
        return None if listed is None else _keys_of(listed)

    # life

    async def run(
        self,
        signals: AsyncIterator[int],
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Run until a signal other than SIGHUP comes; IoError when the disk failed."""
        sockets: list[socket.socket] = []
        try:
            self._qmgr.recover()
            async with trio.open_nursery() as spool_nursery:
                await spool_nursery.start(self._run_spool)
                sockets += bind(self._config.node.listen)
                async with trio.open_nursery() as nursery:
                    await self._start(nursery, sockets)
                    await self._serve(nursery, signals, ready)
                    nursery.cancel_scope.cancel()
                spool_nursery.cancel_scope.cancel()
        finally:
            for sock in sockets:
                sock.close()
            self._gate.wipe()
            os.close(self._lock)

    async def _run_spool(self, task_status: trio.TaskStatus[None]) -> None:
        await self._spool.run(task_status=task_status)

    async def _start(self, nursery: trio.Nursery, sockets: list[socket.socket]) -> None:
        """Start everything but the local socket."""
        await nursery.start(self._exchange.run)
        nursery.start_soon(self._qmgr.run)
        for sock in sockets:
            nursery.start_soon(self._listener.run, sock)
        for index, remailer in enumerate(self._config.remailer):
            delivery = self._delivery(f"local:{index}", remailer.deliver)
            self._deliveries.append(delivery)
            nursery.start_soon(delivery.run)
        self._adopt(nursery)
        nursery.start_soon(self._watch_peers, nursery)

    async def _serve(
        self,
        nursery: trio.Nursery,
        signals: AsyncIterator[int],
        ready: Callable[[], None],
    ) -> None:
        """Hold the local socket open until a signal; then end in order."""
        path = self._config.socket_path
        local = bind_unix(path)
        submitting = trio.CancelScope()

        async def submit() -> None:
            with submitting:
                await self._submission.run(local)

        try:
            nursery.start_soon(submit)
            ready()
            notify("READY=1")
            async for number in signals:
                if number != signal.SIGHUP:
                    break
                self._adopt(nursery)
            notify("STOPPING=1")
            trio.lowlevel.notify_closing(local)
            local.close()
            path.unlink(missing_ok=True)
            await self._end(submitting)
        finally:
            local.close()

    async def _end(self, submitting: trio.CancelScope) -> None:
        with trio.move_on_after(ANSWER_SECONDS):
            while self._submission.unanswered:  # noqa: ASYNC110  # once in a life
                await trio.sleep(0.01)
        self._submission.end()
        submitting.cancel()
        self._exchange.close()
        for delivery in self._deliveries:
            delivery.end()
        with trio.move_on_after(STOP_SECONDS):
            while self._is_ending:  # noqa: ASYNC110  # once in a life
                await trio.sleep(0.01)

    @property
    def _is_ending(self) -> bool:
        """A link has not said so yet, or a remailer has not got what is on its way."""
        return any(peer.ports for peer in self._exchange.peers.values()) or any(
            delivery.busy for delivery in self._deliveries
        )

    def _delivery(
        self, destination: str, target: Target
    ) -> MaildirDelivery | LmtpDelivery:
        if isinstance(target, Maildir):
            return MaildirDelivery(
                maildir=target.path,
                destination=destination,
                qmgr=self._qmgr,
                name_of=self._letter_name,
            )
        return LmtpDelivery(
            address=target.path
            if isinstance(target, LmtpSocket)
            else (target.host, target.port),
            destination=destination,
            name=self._config.node.name,
            qmgr=self._qmgr,
            entropy=self._entropy,
        )

    def _letter_name(self, ident: bytes) -> str:
        return keyed_hash(self._names, ident, 16).hex()

    # peers

    async def _watch_peers(self, nursery: trio.Nursery) -> None:
        while True:
            await trio.sleep(PEERS_SECONDS)
            self._adopt(nursery)

    def _adopt(self, nursery: trio.Nursery) -> None:
        """Take up what peers.d says now.

        Links of a removed peer give their mail back a moment later: so what waits for
        a place that is gone is looked for each time.
        """
        changed = self._peers.poll() or not self._adopted
        self._adopted = True
        by_name = self._peers.snapshot.by_name
        if changed:
            listed = {name: _keys_of(peer) for name, peer in by_name.items()}
            self._adopt_peers(nursery, listed)
        self._qmgr.reroute(
            lambda place: place.startswith("local:") or place in by_name,
            changed=changed,
        )

    def _adopt_peers(self, nursery: trio.Nursery, listed: dict[str, PeerKeys]) -> None:
        """End the links of those who left, begin with those who came."""
        for name, (keys, scope) in list(self._keeping.items()):
            if listed.get(name) != keys:
                scope.cancel()
                del self._keeping[name]
                for link_key in keys.link_keys:
                    self._gate.forget(link_key)
                if name in self._exchange.peers:
                    self._exchange.peers[name].close_links()
        for name, keys in listed.items():
            if name not in self._keeping:
                scope = trio.CancelScope()
                self._keeping[name] = keys, scope
                nursery.start_soon(self._keep, keys, scope)

    async def _keep(self, keys: PeerKeys, scope: trio.CancelScope) -> None:
        with scope:
            await self._dialer.keep(keys, lambda: self._endpoints(keys.name))

    def _endpoints(self, name: str) -> tuple[str, ...]:
        """Give what a peer may be dialled at now; nothing when it has expired."""
        listed = self._peers.snapshot.by_name.get(name)
        if listed is None or not listed.descriptor.valid_at(time.time()):
            return ()
        return listed.descriptor.addresses


def _keys_of(listed: Listed) -> PeerKeys:
    descriptor = listed.descriptor
    return PeerKeys(descriptor.name, descriptor.identity, descriptor.link_keys)
