# SPDX-License-Identifier: MIT
"""Submission: the socket, and the loopback ports, on which remailers hand mail over.

ESMTP, or LMTP after LHLO, by core/dialogue.py.  Who may speak is decided by the
socket's mode and, where node.toml names a `user`, by the kernel's word about who is
at the other end (SO_PEERCRED).  A loopback port ([local] smtp, none by default) is for
remailers that know nothing else, and open to everybody on this machine; where every
remailer names a `user` node.toml has none (config.py).  The remailer is an untrusted
peer too: it can hurt nobody but its own messages.

A session is no task (caller.py): one task, the pump, serves all sessions of a door.
When a message is whole it goes to the queue manager and the session goes on reading;
the reply is sent by the commit itself, with no task woken.  A session that sends ahead
more than AHEAD_MAX is not read until its reply.

What a user's sessions hold in memory is bounded: past SMALL_MESSAGE_LEN a message needs
one of that user's LARGE_MAX places until it is answered, however slow the disk is, and
waits, unread, until one is free; so a reply comes late, never as 4yz.

One user leaves room for others: no place is shared with them, whoever has USER_MAX
sessions gets 421 for the next, and whoever has too much in the spool 452 (shares.py).
A session from which nothing comes ends by itself, so that a remailer that forgets to
close does not stop itself for ever.
"""

import errno
import os
import pwd
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from mesh.core.dialogue import Dialogue, DialogueKind
from mesh.core.reply import SHUTTING_DOWN, Reply
from mesh.errors import CannotCreateError, ConfigError
from mesh.node.caller import Caller, Places
from mesh.node.parking import Parking
from mesh.node.pump import Pump
from mesh.node.qmgr import QueueManager
from mesh.node.shares import user_mark

LARGE_MAX: Final = 4
"""A user's large messages at once: with 20 MiB each, 80 MiB of memory."""
WATCH_SECONDS: Final = 1.0
"""Between two looks at all sessions: 0.3 ms for a thousand."""
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
        self._sessions: set[Caller] = set()

    async def run(self, sock: socket.socket) -> None:
        """Accept on a listening socket until it is closed; then let sessions end."""
        if sock.fileno() < 0:  # the node was told to end before this began
            return
        sock.setblocking(False)
        door = _Door(Pump(self.qmgr.guard, self.qmgr.spool.together))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(door.pump.run)
                nursery.start_soon(door.watch)
                with suppress(trio.ClosedResourceError):
                    while True:
                        await self._places.acquire()
                        self._admit(await _accept(sock), door)
                await door.emptied()
                nursery.cancel_scope.cancel()
        finally:
            door.close()

    def _admit(self, accepted: socket.socket, door: "_Door") -> None:
        """Begin a session; who may have none is told so."""
        ends = ExitStack()
        ends.callback(self._places.release)
        ends.callback(accepted.close)
        with self.qmgr.guard(ends.close):
            uid = _uid_of(accepted)
            user = self._users.setdefault(uid, _User())
            user.sessions += 1
            ends.callback(self._leave, uid, user)
            caller = Caller(
                accepted,
                self._dialogue(),
                self.qmgr,
                user.large,
                user_mark(uid),
                ends.close,
            )
            self._sessions.add(caller)
            door.sessions.add(caller)
            ends.callback(self._sessions.discard, caller)
            ends.callback(door.left, caller)
            ends.callback(caller.drop)
            refusal = self._refusal(uid, user)
            if refusal is None:
                caller.begin(door.pump)
            else:
                caller.refuse(refusal)

    def _dialogue(self) -> Dialogue:
        return Dialogue(
            name=self.name,
            kind=DialogueKind.LOCAL,
            accepts=self.accepts,
            max_message=self.max_message,
        )

    def _leave(self, uid: int, user: "_User") -> None:
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
        for session in list(self._sessions):
            session.say(SHUTTING_DOWN)


class _Door:
    """What came in at one listening socket."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.sessions: set[Caller] = set()
        self._parking = Parking()

    def left(self, caller: Caller) -> None:
        """One has ended."""
        self.sessions.discard(caller)
        if not self.sessions:
            self._parking.wake()

    async def emptied(self) -> None:
        """Wait until all have ended."""
        while self.sessions:
            await self._parking.park()

    async def watch(self) -> None:
        """Look round for silent sessions: a deadline for each read would cost more."""
        while True:
            await trio.sleep(WATCH_SECONDS)
            now = trio.current_time()
            for session in list(self.sessions):
                session.look(now)

    def close(self) -> None:
        """End all that are left."""
        for session in list(self.sessions):
            session.drop()


class _User:
    """What one user's sessions share."""

    def __init__(self) -> None:
        self.sessions = 0
        self.large = Places(LARGE_MAX)


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
