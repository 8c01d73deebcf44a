# SPDX-License-Identifier: MIT
"""Submission: the socket, and the loopback ports, on which remailers hand mail over.

ESMTP, or LMTP after LHLO, by core/dialogue.py.  Who may speak is decided by the
socket's mode and, where node.toml names a `user`, by the kernel's word about who is
at the other end (SO_PEERCRED).  A loopback port ([local] smtp, none by default) is for
remailers that know nothing else, and open to everybody on this machine; where every
remailer names a `user` node.toml has none (config.py).  The remailer is an untrusted
peer too: it can hurt nobody but its own messages.

A session is one task that reads.  When a message is whole it goes to the queue manager
and the session goes on reading; the reply is sent by the commit itself, with no task
woken.  A session that sends ahead more than AHEAD_MAX is not read until its reply.

What a user's sessions hold in memory is bounded: past SMALL_MESSAGE_LEN a message needs
one of that user's LARGE_MAX places until it is answered, however slow the disk is, and
waits, unread, until one is free; so a reply comes late, never as 4yz.

One user leaves room for others: no place is shared with them, whoever has USER_MAX
sessions gets 421 for the next, and whoever has too much in the spool 452 (shares.py).  A session from which nothing comes ends by itself, so
that a remailer that forgets to close does not stop itself for ever.
"""

import errno
import math
import os
import pwd
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from mesh.core.dialogue import Dialogue, DialogueKind, MessageReceived
from mesh.core.reply import SHUTTING_DOWN, Reply
from mesh.errors import CannotCreateError, ConfigError, RemoteProtocolError
from mesh.node.parking import Parking
from mesh.node.qmgr import QueueManager
from mesh.node.shares import user_mark
from mesh.node.wire import Outlet, SocketWire, receive

READ_MAX: Final = 262_144
"""Octets of one read: a 28 kB remailer packet comes in one."""
AHEAD_MAX: Final = 65_536
"""Octets that may wait behind an unanswered message before reading stops: with one
read more they are no more than the dialogue's SENT_AHEAD_MAX."""
SMALL_MESSAGE_LEN: Final = 262_144
"""Octets of a message in arrival past which it needs a place among the large ones."""
LARGE_MAX: Final = 4
"""A user's large messages at once: with 20 MiB each, 80 MiB of memory."""
LARGE_SECONDS: Final = 180.0
"""Without an octet, and the place goes to another: RFC 5321 4.5.3.2.5."""
WATCH_SECONDS: Final = 1.0
"""Between two looks at all sessions: 0.3 ms for a thousand."""
IDLE_SECONDS: Final = 300.0
"""Without a command, and the session ends: RFC 5321 4.5.3.2.7 asks for no less."""
SESSIONS_MAX: Final = 1_000
"""Sessions at once; a thousand small messages in arrival are 260 MB at most."""
USER_MAX: Final = 900
"""Of which one user's: more than any remailer keeps, and the others have a hundred."""
BACKLOG: Final = 512
SOCKET_MODE: Final = 0o660
"""The owner and the group that the operator gave the folder."""
_PEERCRED: Final = struct.Struct("=iII")
"""Of unix(7): the process, its user, its group; no user has the greatest number, which
stands for those whom the kernel does not know, on a loopback port."""
NOT_PERMITTED: Final = Reply(554, "this user may not submit here")
TOO_MANY: Final = Reply(421, "this user has too many sessions")
SILENT: Final = Reply(421, "nothing came for too long")


def bind_unix(path: Path, mode: int = SOCKET_MODE) -> socket.socket:
    """Bind a socket of ours, in the place of a stale one.

    CannotCreateError when something else lies there, somebody answers on it, or the
    folder refuses.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        with _short(path) as short:
            _clear_stale(short)
            sock.bind(short)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        advice = "is the folder there, and nobody else using it?"
        if path.exists() and not path.is_socket():
            advice = "what lies there is no socket: move it away"
        raise CannotCreateError(
            f"cannot bind the socket {path}: {error.strerror}; {advice}"
        ) from error
    finally:
        os.umask(before)
    return sock


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Name a socket in fewer octets than the 107 that its address holds."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _clear_stale(path: str) -> None:
    """Remove a socket on which nobody answers; leave everything else to `bind`."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)  # noqa: PTH108  # a name for the kernel, no place of ours


def allowed_uids(users: Sequence[str]) -> frozenset[int] | None:
    """Look up who may submit; None: whoever can open the socket.

    Root and the node's own user may always: they own the spool anyway.
    """
    if not all(users):
        return None
    uids = {0, os.geteuid()}
    for user in users:
        try:
            uids.add(pwd.getpwnam(user).pw_uid)
        except KeyError as error:
            raise ConfigError(
                f"[[remailer]] user = {user!r}: no such user here"
            ) from error
    return frozenset(uids)


class Submission:
    """Serves the local socket."""

    def __init__(
        self,
        *,
        name: str,
        qmgr: QueueManager,
        accepts: Callable[[str], Reply | None],
        max_message: int,
        uids: frozenset[int] | None,
    ) -> None:
        self.name = name
        self.qmgr = qmgr
        self.accepts = accepts
        self.max_message = max_message
        self._uids = uids
        self._users: dict[int, _User] = {}
        self._places = trio.Semaphore(SESSIONS_MAX)
        self._sessions: set[_Session] = set()

    async def run(self, sock: socket.socket) -> None:
        """Accept on a listening socket until it is closed; then let sessions end."""
        if sock.fileno() < 0:  # the node was told to end before this began
            return
        sock.setblocking(False)
        async with trio.open_nursery() as watching:
            watching.start_soon(self._watch_silence)
            async with trio.open_nursery() as nursery:
                with suppress(trio.ClosedResourceError):
                    while True:
                        await self._places.acquire()
                        nursery.start_soon(self._serve, await _accept(sock))
            watching.cancel_scope.cancel()

    async def _watch_silence(self) -> None:
        """Look round for silent sessions: a deadline for each read would cost more."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            now = trio.current_time()
            for session in self._sessions:
                session.end_if_silent(now)

    async def _serve(self, accepted: socket.socket) -> None:
        try:
            with accepted, self.qmgr.guard():
                await self._hold_session(accepted)
        finally:
            self._places.release()

    async def _hold_session(self, accepted: socket.socket) -> None:
        uid = _uid_of(accepted)
        user = self._users.setdefault(uid, _User())
        session = _Session(self, SocketWire(accepted), user.large, user_mark(uid))
        user.sessions += 1
        self._sessions.add(session)
        try:
            await session.run(self._refusal(uid, user))
        finally:
            self._sessions.discard(session)
            user.sessions -= 1
            if not user.sessions:
                del self._users[uid]

    def _refusal(self, uid: int, user: "_User") -> Reply | None:
        if self._uids is not None and uid not in self._uids:
            return NOT_PERMITTED
        return TOO_MANY if user.sessions > USER_MAX else None

    @property
    def unanswered(self) -> bool:
        """A message is with the spool and its reply has not gone out."""
        return any(session.dialogue.awaiting_answer for session in self._sessions)

    def end(self) -> None:
        """Tell every idle session that this node ends."""
        for session in self._sessions:
            session.say(SHUTTING_DOWN)


class _User:
    """What one user's sessions share."""

    def __init__(self) -> None:
        self.sessions = 0
        self.large = trio.Semaphore(LARGE_MAX)


def _uid_of(accepted: socket.socket) -> int:
    """Ask the kernel who connected."""
    raw = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    return int(_PEERCRED.unpack(raw)[1])


async def _accept(sock: socket.socket) -> socket.socket:
    while True:
        if sock.fileno() < 0:  # closed while nobody waited on it
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(sock)
        try:
            return sock.accept()[0]
        except BlockingIOError:
            continue
        except OSError:
            await trio.sleep(0.1)  # no descriptors left: some session will end


class _Session:
    """One remailer's conversation."""

    def __init__(
        self,
        submission: Submission,
        wire: SocketWire,
        large: trio.Semaphore,
        origin: bytes,
    ) -> None:
        self._submission = submission
        self._origin = origin
        self._wire = wire
        self._large = large
        self._answered = Parking()
        self._has_place = False
        self._reads_since = math.inf
        self._scope = trio.CancelScope()
        self._guard = partial(submission.qmgr.guard, self._scope.cancel)
        self.outlet = Outlet(wire)
        self.dialogue = Dialogue(
            name=submission.name,
            kind=DialogueKind.LOCAL,
            accepts=submission.accepts,
            max_message=submission.max_message,
        )

    async def run(self, refusal: Reply | None = None) -> None:
        """Serve until either side ends."""
        try:
            if refusal is not None:
                self.outlet.send(refusal.encode())
                return
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.outlet.flush_forever)
                    await self._converse()
                    nursery.cancel_scope.cancel()
        finally:
            self._give_place_back()
            self._wire.close()
            # What was sent ahead of an answer gets none: its sender keeps it.
            self.dialogue.receive_eof()

    async def _converse(self) -> None:
        dialogue, outlet = self.dialogue, self.outlet
        outlet.send(dialogue.data_to_send())
        while data := await self._receive():
            try:
                dialogue.receive_data(data)
            except RemoteProtocolError:
                return
            if not self._attend():
                break
            while dialogue.awaiting_answer and (
                self._has_place or dialogue.buffered > AHEAD_MAX
            ):
                await self._answered.park()
            if outlet.waiting and not await self._drained():
                return
            await self._wait_for_place()
        # Whoever sent all and closed its sending side still gets its replies.
        while dialogue.awaiting_answer:
            await self._answered.park()
        await self._drained()

    async def _receive(self) -> bytes:
        """Read; b"" also for one that `end_if_silent` has ended."""
        self._reads_since = trio.current_time()
        data = await receive(self._wire, READ_MAX)
        self._reads_since = math.inf
        return data

    def end_if_silent(self, now: float) -> None:
        """End a client from whom nothing has come for too long."""
        patience = LARGE_SECONDS if self._has_place else IDLE_SECONDS
        if now - self._reads_since > patience and not self.dialogue.awaiting_answer:
            self._reads_since = math.inf  # each door's watch looks at all sessions
            self.say(SILENT)
            self._stop_reading()

    def say(self, reply: Reply) -> None:
        """Say something that was not asked; the node does, to all sessions."""
        with self._guard():
            self.outlet.send(reply.encode())

    def _stop_reading(self) -> None:
        with suppress(OSError):  # the client may be gone
            self._wire.socket.shutdown(socket.SHUT_RD)

    async def _drained(self) -> bool:
        """Wait until the client has read its replies; False when it does not."""
        with trio.move_on_after(IDLE_SECONDS):
            await self.outlet.drained()
        return not self.outlet.waiting

    def _attend(self) -> bool:
        """Take the dialogue's events and send its replies; False when it has ended."""
        dialogue = self.dialogue
        going_on = True
        while (event := dialogue.next_event()) is not None:
            if isinstance(event, MessageReceived):
                self._submission.qmgr.accept(
                    reverse_path=event.reverse_path,
                    recipients=event.recipients,
                    content=event.content,
                    answer=self._answer,
                    origin=self._origin,
                )
            else:
                going_on = False
        if replies := dialogue.data_to_send():
            self.outlet.send(replies)
        return going_on

    def _answer(self, reply: Reply) -> None:
        """Send the commit's reply, and take up what was sent ahead of it.

        The commit calls this, for which one session's bug must be nothing.
        """
        with self._guard():
            self.dialogue.answer(reply)
            if not self._attend():
                self._stop_reading()
            self._answered.wake()

    async def _wait_for_place(self) -> None:
        """Hold a place among the large messages while this one is large."""
        large = self.dialogue.content_octets > SMALL_MESSAGE_LEN
        if large and not self._has_place:
            await self._large.acquire()
            self._has_place = True
        elif not large:
            self._give_place_back()

    def _give_place_back(self) -> None:
        if self._has_place:
            self._large.release()
            self._has_place = False
