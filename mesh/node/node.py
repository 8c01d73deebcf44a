# SPDX-License-Identifier: MIT
"""The node: composes all parts, starts them in order, ends them in order.

    start   lock the state -> control socket: "starting" -> keys -> directory, peers
            -> spool (recover) -> bind the port -> links, deliveries, drop folder
            -> control socket: all answers -> *last* the local socket -> READY=1
    peers   peers.d and the shared directory are looked at each second; a change is
            adopted as a whole: removed peers' links end at once, new ones are dialled,
            stray mail is routed anew
    itself  renewal.py watches our own keys and descriptor; at the hour that it has
            published a node makes no links and takes no mail, and delivers what it has
    time    what ends at a UNIX time ends by walltime.py, not by the machine's clock
    signals SIGHUP looks at peers.d now, any other ends
    end     no new sessions -> every link says in its next cell that it ends (whatever
            waits: the count of cells does not depend on it), and what remailers are
            being given is given, at most STOP_SECONDS -> the spool commits what it has;
            what was accepted stays there

A disk that fails ends the process with 74: it recovers at its next start, and never
syncs again in the hope of success.  Nothing here logs.
"""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import trio

from mesh.config import Config
from mesh.core.control import CONTROL_NAME
from mesh.core.crypto import (
    Entropy,
    Key,
    MlKem768,
    SystemEntropy,
    derive_key,
    signing_public,
)
from mesh.core.directory import Us
from mesh.core.gate import Gate
from mesh.errors import ConfigError
from mesh.node import keys as key_files
from mesh.node.control import Control
from mesh.node.counters import OwnCounter, PeerCounters
from mesh.node.dialer import Dialer
from mesh.node.drop import Drop
from mesh.node.exchange import Exchange
from mesh.node.gossip import Gossiping
from mesh.node.heartbeat import Heartbeats
from mesh.node.keeping import Keeping
from mesh.node.listener import Listener, bind
from mesh.node.outbound import Outbound
from mesh.node.pacing import Pacer
from mesh.node.peers import Peers
from mesh.node.qmgr import QueueManager
from mesh.node.registry import Registry
from mesh.node.remailers import Remailers
from mesh.node.renewal import Renewal
from mesh.node.routing import Routing, host_of
from mesh.node.service import lock_state, notify
from mesh.node.spool import Spool
from mesh.node.starting import Starting
from mesh.node.submission import Submission, allowed_uids, bind_unix
from mesh.node.walltime import WallTime

STOP_SECONDS: Final = 6.0
"""For the last cells; with ANSWER_SECONDS 8 of the 10 that the contract gives."""
ANSWER_SECONDS: Final = 2.0
"""For replies to messages that are being committed when the node is told to end."""


class Node:
    """One node from its start to its end; `run` is all that is called, or `close`."""

    def __init__(
        self, config: Config, *, pacer: Pacer | None, entropy: Entropy | None = None
    ) -> None:
        """`pacer`: None only where time is not real (pacing.py)."""
        self._config = config
        self._pacer = pacer
        self._entropy = entropy or SystemEntropy()
        self._now = WallTime()
        with ExitStack() as undo:
            self._lock = lock_state(config.state_dir)
            undo.callback(os.close, self._lock)
            self._starting = Starting(config.state_dir / CONTROL_NAME)
            undo.callback(self._starting.close)
            self._open()
            undo.pop_all()

    def _open(self) -> None:
        """Read keys and peers, recover the spool; blocking."""
        config, entropy = self._config, self._entropy
        state = config.state_dir
        identity = key_files.load_identity(state)
        self._renewal = Renewal(config, lambda: self._spool.running_seconds, self._now)
        spool_key = key_files.load_spool_key(state)
        self._uids = allowed_uids([remailer.user for remailer in config.remailer])
        own = OwnCounter(state / "counter", int(self._now() * 1e9))
        counters = PeerCounters(state / "counters")
        self._open_peers(signing_public(identity))
        self._routing = Routing(
            config,
            lambda: self._peers.snapshot.directory,
            has_left=self._renewal.has_left,
            unix_time=self._now,
        )
        self._spool = Spool.open(state / "spool", spool_key, entropy)
        self._qmgr = QueueManager(
            self._spool,
            self._routing.route,
            entropy,
            host=host_of(config),
            alias=self._routing.alias,
            key=derive_key(spool_key, b"mesh/1 part ids"),
            manner=config.pool.manner,
        )
        self._exchange = Exchange(
            name=config.node.name,
            identity=signing_public(identity),
            qmgr=self._qmgr,
            max_message=config.local.message_bytes,
            entropy=entropy,
            refuses=self._routing.refuses,
            pacer=self._pacer,
            gossip=Gossiping(self._registry, signing_public(identity), self._now),
        )
        self._heartbeats = Heartbeats.of(
            config, spool_key, entropy, self._exchange, self._listed
        )
        self._open_links(identity, own, counters)
        self._open_doors(spool_key)

    def _open_doors(self, spool_key: Key) -> None:
        """Make what gives mail to remailers, and takes it from them."""
        config, entropy = self._config, self._entropy
        self._remailers = Remailers(
            config,
            self._qmgr,
            derive_key(spool_key, b"mesh/1 maildir names"),
            entropy,
        )
        self._submission = Submission(
            name=config.node.name,
            qmgr=self._qmgr,
            accepts=self._routing.accepts,
            max_message=config.local.message_bytes,
            uids=self._uids,
        )
        self._drop = Drop.open(
            config.local.drop,
            config.state_dir / "drop.keys",
            derive_key(spool_key, b"mesh/1 drop keys"),
            entropy,
            self._qmgr,
            max_message=config.local.message_bytes,
            uids=self._uids,
        )

    def _open_peers(self, identity: bytes) -> None:
        """Read who the others are."""
        config = self._config
        us = Us(config.node.name, config.node.network, config.own_addresses(), identity)
        self._registry = Registry.open(
            config.state_dir, us, self._now(), config.node.directory
        )
        self._tell_registry()
        self._peers = Peers(
            config.peers_dir, us, self._registry, self._now, config.state_dir / "served"
        )
        _check_readable(config.peers_dir)
        self._peers.poll()

    def _open_links(
        self, identity: Key, own: OwnCounter, counters: PeerCounters
    ) -> None:
        """Make what answers peers and what dials them."""
        config, entropy = self._config, self._entropy
        kem = MlKem768()
        self._gate = Gate(
            network=config.node.network,
            identity=identity,
            statics=self._renewal.keys,
            find_peer=lambda link_key: self._keeping.find(link_key),
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
            statics=lambda: self._renewal.keys,
            counter=own,
            kem=kem,
            exchange=self._exchange,
            entropy=entropy,
            clock=config.link.clock,
            klass=config.link.klass,
        )
        self._keeping = Keeping(
            self._peers,
            self._gate,
            self._dialer,
            self._exchange,
            self._qmgr,
            has_left=self._renewal.has_left,
            unix_time=self._now,
        )

    def _listed(self) -> Collection[str]:
        return self._peers.snapshot.by_name

    def _tell_registry(self) -> None:
        if self._renewal.said is not None:
            self._registry.tell_own(self._renewal.said)

    def _notices(self) -> list[str]:
        """Give what the operator should know, a line each."""
        pacer = self._pacer.notices if self._pacer else []
        trusted = self._registry.notices(self._now())
        own = [*self._heartbeats.notices(), *self._now.notices, *self._renewal.notices]
        return [*pacer, *own, *trusted]

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
                    nursery.start_soon(self._control().run, self._starting.take())
                    await self._serve(nursery, signals, ready)
                    nursery.cancel_scope.cancel()
                spool_nursery.cancel_scope.cancel()
        finally:
            for sock in sockets:
                sock.close()
            self._let_go()

    def close(self) -> None:
        """End a node that was made and is not to run."""
        self._spool.close()
        self._let_go()

    def _let_go(self) -> None:
        self._gate.wipe()
        self._drop.close()
        self._starting.close()
        os.close(self._lock)

    async def _run_spool(self, task_status: trio.TaskStatus[None]) -> None:
        await self._spool.run(task_status=task_status)

    async def _start(self, nursery: trio.Nursery, sockets: list[socket.socket]) -> None:
        """Start everything but the doors of remailers."""
        if self._pacer:
            await nursery.start(self._pacer.run)
            link = self._config.link
            self._pacer.lateness.check_class(link.clock, link.klass)
        await nursery.start(self._exchange.run)
        nursery.start_soon(self._qmgr.run)
        for sock in sockets:
            nursery.start_soon(self._listener.run, sock)
        self._remailers.start(nursery)
        if self._config.delivery.exit:
            parts = self._config, self._qmgr, self._routing, self._entropy
            nursery.start_soon(Outbound.of(*parts, self._heartbeats.holds).run)
            nursery.start_soon(self._heartbeats.run)
        await self._keeping.adopt(nursery)
        nursery.start_soon(self._drop.run)
        nursery.start_soon(self._watch, nursery)
        nursery.start_soon(self._routing.watch)
        nursery.start_soon(self._now.run)

    async def _watch(self, nursery: trio.Nursery) -> None:
        """Take up what the operator, and others, may change while the node runs."""
        token = trio.lowlevel.current_trio_token()

        def wake() -> None:  # from whichever thread made the change
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._keeping.wake, idempotent=True)

        def adopt_ourselves() -> None:
            self._gate.rekey(self._renewal.keys)
            nursery.start_soon(trio.to_thread.run_sync, self._tell_registry)

        self._registry.on_change.append(wake)
        nursery.start_soon(self._keeping.run, nursery)
        await self._renewal.run(adopt_ourselves)

    def _control(self) -> Control:
        """Make what answers the operator's commands."""
        return Control(
            name=self._config.node.name,
            clock=self._config.link.clock,
            klass=self._config.link.klass,
            peers=self._peers,
            exchange=self._exchange,
            qmgr=self._qmgr,
            notices=lambda: [*self._routing.mistakes, *self._notices()],
            unix_time=self._now,
            directory=lambda: self._registry.brief(self._now()),
            has_left=self._renewal.has_left,
            ticked=self._pacer.lateness.notices if self._pacer else list,
        )

    async def _serve(
        self,
        nursery: trio.Nursery,
        signals: AsyncIterator[int],
        ready: Callable[[], None],
    ) -> None:
        """Hold the local socket and ports open until a signal; then end in order."""
        path = self._config.socket_path
        doors = bind(self._config.local.smtp)
        submitting = trio.CancelScope()

        async def submit() -> None:
            with submitting:
                async with trio.open_nursery() as serving:
                    for door in doors:
                        serving.start_soon(self._submission.run, door)

        try:
            doors.append(bind_unix(path))
            nursery.start_soon(submit)
            ready()
            notify("READY=1")
            async for number in signals:
                if number != signal.SIGHUP:
                    break
                self._keeping.wake()
            notify("STOPPING=1")
            _close(doors)
            path.unlink(missing_ok=True)
            await self._end(submitting)
        finally:
            _close(doors)

    async def _end(self, submitting: trio.CancelScope) -> None:
        with trio.move_on_after(ANSWER_SECONDS):
            while self._submission.unanswered:  # noqa: ASYNC110  # once in a life
                await trio.sleep(0.01)
        self._submission.end()
        submitting.cancel()
        self._exchange.close()
        self._remailers.end()
        with trio.move_on_after(STOP_SECONDS):
            while self._is_ending:  # noqa: ASYNC110  # once in a life
                await trio.sleep(0.01)

    @property
    def _is_ending(self) -> bool:
        """A link has not said so yet, or a remailer has not got what is on its way."""
        links = any(peer.ports for peer in self._exchange.peers.values())
        return links or self._remailers.busy


def _check_readable(peers: Path) -> None:
    """Begin only where the peers can be known: mail for them would leave in clear."""
    try:
        os.scandir(peers).close()
    except OSError as error:
        raise ConfigError(
            f"{peers}: {error.strerror}: it says who is reached by a link and not by "
            "port 25: put the folder back, or make an empty one"
        ) from error


def _close(doors: Sequence[socket.socket]) -> None:
    """Close listening sockets and wake who waits on them; again is no error."""
    for door in doors:
        if door.fileno() >= 0:
            trio.lowlevel.notify_closing(door)
            door.close()
