# SPDX-License-Identifier: MIT
"""The drop folder: mail that was handed over while nobody answered the socket.

    at the start, and each second while the folder changes:
    mail.ID -> read -> opened -> the queue's commit -> its key destroyed, a new one ready

Each message goes through these states; what a crash in one leaves, the next start takes
up where it was (K: key.NNNN, M: mail.ID, S: the private half in its slot, R: a record
in the spool under the message's own id):

         K  M  S  R
    D0   +  -  +  -   a key lies ready
    D1   +  +  +  -   left: the sender exited 0            crash: read again
    D2   +  +  +  +   the spool's commit is on the disk    crash: read again, known, not
                                                           stored twice
    D3   -  ?  +  +   key.NNNN away, then mail.ID          crash: as D2 or D4; or D0 with
                                                           a key that may serve again
    D4   -  -  +  +   the folder fsynced                   crash: the slot has no file:
                                                           it gets a new key
    D5   -  -  -  +   the slot overwritten, fdatasynced    crash: the new key is published
    D0'  +  -  +  ?   the new key lies there; the spool may forget the id

No sender seals to a key that is about to die: K goes first and under its lock, and both
are off the disk before the slot is overwritten.  A lock counts for LOCK_SECONDS after
the message is stored: no neighbour keeps a key alive, and a sender that stood still for
so long just before its last look leaves the message a second time at worst.  The id is a hash of the message's own
octets (core/drop.py), kept by the spool as a peer's is: known from the commit until D5,
also when the record was delivered meanwhile.

All work on the folder, and the opening of a message, is done by one thread at a time,
one message a hop: 20 MB take a tenth of a second, and a Trio thread that stood still for
so long would show on every wire.  Keys are made on the Trio thread, as everywhere.

The folder is hostile (dropbox.py): junk under a message's name costs its key and is
counted, everything else is not looked at.  Junk is also what no sender of ours leaves:
a file that its owner keeps from us, one too long, more recipients than the queue takes
of so long a message.  What this machine or its disk keeps from being read or stored now
stays.
Recipients are routed as any are; what no node serves waits or bounces as the queue
says, because the sender has gone.

A folder that fails is tried again later.  A failed fsync, or state/drop.keys failing, is
an IoError: the node ends and recovers.
"""

from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import trio

from mesh.core.crypto import Entropy, Key, hash256
from mesh.core.drop import (
    ID_LEN,
    SLOTS,
    Mail,
    OneTime,
    longest_file,
    mail_key_untrusted,
    open_mail_untrusted,
    origin_id,
)
from mesh.core.reply import Reply
from mesh.errors import RemoteProtocolError
from mesh.node.dropbox import DropBox, Found
from mesh.node.onetime import OneTimeKeys, Slot
from mesh.node.qmgr import QueueManager

LOOK_SECONDS: Final = 1.0
"""Between two looks at the folder's time: what is dropped is taken within 2 s."""
RETRY_SECONDS: Final = 5.0
"""After a look that left something lying: no room, or a lock that somebody holds.  Keys
lie ready again within 10 s of the room's return."""
LOCK_SECONDS: Final = 60.0
"""For which a lock keeps a key whose message is stored; sealing 20 MB takes one."""
GROUP_MAX: Final = 64
"""Messages taken together: as many as one commit of the spool."""
GROUP_LEN_MAX: Final = 16_777_216
"""Octets taken together, but for a single larger message."""
FILE_LEN_MAX: Final = 33_554_432
"""Octets of a file that is taken however small [local] message_bytes is now: it may have
been more when a sender heard that all is well.  That of the usual 20 MiB."""
ORIGIN: Final = hash256(b"mesh/1 drop folder")[:ID_LEN]
"""Where these records come from, in the place of a peer's mark: no peer has it."""


T = TypeVar("T")


class Item(NamedTuple):
    """A slot whose message is to be taken, or was junk."""

    slot: int
    origin_id: bytes  # empty: junk


class Drop:
    """Takes mail out of the folder.  Made by `open`; `run` does the work."""

    def __init__(self, box: DropBox, keys: OneTimeKeys, qmgr: QueueManager) -> None:
        self._box = box
        self._keys = keys
        self._qmgr = qmgr
        self._stocked = False
        self._seen = 0
        self._settled = False
        self._retry_at = float("inf")
        self._locked: dict[int, float] = {}  # slots, and since when they are in the way
        # Its own: a slow folder keeps nobody's Maildir waiting, nor they it.
        self.threads = trio.CapacityLimiter(1)
        self.junk = 0
        """Files that were no messages, since the start."""

    @classmethod
    def open(
        cls,
        folder: Path,
        keys: Path,
        wrapping: Key,
        entropy: Entropy,
        qmgr: QueueManager,
        *,
        max_message: int,
        uids: frozenset[int] | None,
    ) -> "Drop":
        """Open folder and keys, made when absent.  Blocks.

        CannotCreateError, IoError.
        """
        box = DropBox(folder, max(longest_file(max_message), FILE_LEN_MAX), uids)
        try:
            return cls(box, OneTimeKeys.open(keys, wrapping, entropy), qmgr)
        except BaseException:
            box.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        self._box.close()
        self._keys.close()

    def _ones(self) -> list[tuple[int, OneTime]]:
        return [(slot, self._keys.one(slot)) for slot in range(SLOTS)]

    async def run(self) -> None:
        """Take what lies there, lay keys ready, look again; for ever.  IoError."""
        while True:
            with self._qmgr.guard(self._begin_anew):
                try:
                    if not self._stocked:
                        self._stocked = True
                        await self._stock()
                    if self._may_look() and not await self._take_all():
                        self._retry_at = trio.current_time() + RETRY_SECONDS
                except OSError:
                    self._begin_anew()
            await trio.sleep(LOOK_SECONDS if self._stocked else RETRY_SECONDS)

    def _begin_anew(self) -> None:
        """Look at everything again in a while."""
        self._stocked = False
        self._retry_at = trio.current_time() + RETRY_SECONDS

    def _may_look(self) -> bool:
        """Say whether there may be something, and it is known what was stored before."""
        return self._qmgr.spool.is_indexed and not self._is_still()

    def _is_still(self) -> bool:
        """Say whether the folder is as at the last look.

        Its time has the grain of a timer: one more look follows the one that first
        saw it.
        """
        changed = self._box.changed_at()
        if changed != self._seen or trio.current_time() >= self._retry_at:
            self._seen, self._settled = changed, False
            self._retry_at = float("inf")
            return False
        was, self._settled = self._settled, True
        return was

    async def _in_thread(self, job: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(job, limiter=self.threads)

    # keys

    async def _stock(self) -> None:
        """Make every slot one whose key lies ready or whose message does (D0, D1)."""
        missing, bare = await self._in_thread(partial(_survey, self._box, self._ones()))
        # A slot without either may be in D4: its key has served.
        served = bare - self._keys.new
        self._keys.new.clear()
        await self._renew(sorted(served))
        await self._publish(sorted(missing - served))

    async def _renew(self, slots: Sequence[int]) -> None:
        """Destroy the keys of these slots and lay new ones ready (D4 to D0')."""
        for at in range(0, len(slots), GROUP_MAX):
            part = slots[at : at + GROUP_MAX]
            fresh: dict[int, Slot] = {}
            for slot in part:
                fresh[slot] = self._keys.draw(slot)
                await trio.lowlevel.checkpoint()  # 64 of them are 2 to 5 ms
            await self._in_thread(partial(self._keys.write, fresh))
            self._keys.adopt(fresh)
            await self._publish(part)

    async def _publish(self, slots: Sequence[int]) -> None:
        ones = [(slot, self._keys.one(slot)) for slot in slots]
        if not await self._in_thread(partial(_publish, self._box, ones)):
            self._stocked = False

    # messages

    async def _take_all(self) -> bool:
        """Take every message there is; False when one had to stay."""
        mails, temps = await self._in_thread(partial(self._box.look, self._ones()))
        if temps:
            abandoned = [(slot, self._keys.one(slot)) for slot in temps]
            await self._in_thread(partial(_remove_abandoned, self._box, abandoned))
        everything = True
        while mails:
            group, rest = await self._in_thread(partial(self._read, mails))
            taken = await self._accept(group)
            done = await self._retire(taken)
            everything &= done == len(mails) - len(rest)
            mails = rest
        return everything

    def _read(
        self, slots: Sequence[int]
    ) -> tuple[list[tuple[int, Found, bytes]], list[int]]:
        """Read a group; what is left is for the next one."""
        group: list[tuple[int, Found, bytes]] = []
        octets = 0
        for at, slot in enumerate(slots):
            if len(group) == GROUP_MAX or octets >= GROUP_LEN_MAX:
                return group, list(slots[at:])
            found, content = self._box.read(self._keys.one(slot))
            group.append((slot, found, content))
            octets += len(content)
        return group, []

    async def _accept(self, group: Sequence[tuple[int, Found, bytes]]) -> list[Item]:
        """Have the group stored; give what is stored, now or before, and the junk."""
        taken: list[Item] = []
        open_calls = 1
        answered = trio.Event()

        def settle() -> None:
            nonlocal open_calls
            open_calls -= 1
            if not open_calls:
                answered.set()

        def store(item: Item, mail: Mail) -> None:
            nonlocal open_calls

            def answer(reply: Reply) -> None:
                if reply.positive:
                    taken.append(item)
                settle()

            open_calls += 1
            self._qmgr.accept(
                reverse_path=mail.reverse_path,
                recipients=mail.recipients,
                content=mail.content,
                answer=answer,
                origin=ORIGIN,
                origin_id=item.origin_id,
            )

        for slot, found, octets in group:
            mail, junk = await self._judge(slot, found, octets)
            if mail is not None:
                item = Item(slot, origin_id(octets))
                if self._qmgr.spool.knows(ORIGIN, item.origin_id):
                    taken.append(item)
                else:
                    store(item, mail)
            elif junk:
                self.junk += 1
                taken.append(Item(slot, b""))
        settle()
        await answered.wait()
        return taken

    async def _judge(
        self, slot: int, found: Found, octets: bytes
    ) -> tuple[Mail | None, bool]:
        """Give the message, or whether it is junk; what breaks us stays where it is."""
        if found is Found.MAIL:
            with self._qmgr.guard():
                mail = await self._open(slot, octets)
                return mail, mail is None
        return None, found is Found.JUNK

    async def _open(self, slot: int, octets: bytes) -> Mail | None:
        one = self._keys.one(slot)
        private = self._keys.private(slot)
        try:
            key = mail_key_untrusted(private, one, octets)
        except RemoteProtocolError:
            return None
        finally:
            private.wipe()
        try:
            return await self._in_thread(partial(open_mail_untrusted, key, one, octets))
        except RemoteProtocolError:
            return None
        finally:
            key.wipe()

    async def _retire(self, taken: Sequence[Item]) -> int:
        """Bring what is stored from D2 to D0'; give how many got there."""
        if not taken:
            return 0
        ones = [(item.slot, self._keys.one(item.slot)) for item in taken]
        now = trio.current_time()
        overdue = {s for s, at in self._locked.items() if now - at >= LOCK_SECONDS}
        free = await self._in_thread(partial(_remove, self._box, ones, overdue))
        await self._renew(sorted(free))
        for item in taken:
            if item.slot not in free:
                self._locked.setdefault(item.slot, now)
                continue
            self._locked.pop(item.slot, None)
            if item.origin_id:
                self._qmgr.spool.forget_id(ORIGIN, item.origin_id)
        return len(free)


Ones = Sequence[tuple[int, OneTime]]


def _survey(box: DropBox, ones: Ones) -> tuple[set[int], set[int]]:
    """Give the slots whose key is not published, and those with no message either."""
    lost = [(slot, one) for slot, one in ones if not box.is_published(slot, one)]
    missing = {slot for slot, _ in lost}
    bare = missing - set(box.look(lost)[0])
    for slot, one in lost:
        if slot in bare:
            box.remove(one)  # what a power cut may have left of its writing
    return missing, bare


def _publish(box: DropBox, ones: Ones) -> bool:
    """Publish these keys; False when one cannot be: somebody is in its way."""
    everything = True
    for slot, one in ones:
        try:
            box.publish(slot, one)
        except OSError:
            everything = False
    return everything


def _remove_abandoned(box: DropBox, ones: Ones) -> None:
    for slot, one in ones:
        box.remove_abandoned(slot, one)


def _remove(box: DropBox, ones: Ones, overdue: Container[int]) -> set[int]:
    """Take keys and messages away (D2 to D4); give the slots that no lock keeps."""
    free = [
        (slot, one)
        for slot, one in ones
        if box.withdraw(slot, by_force=slot in overdue)
    ]
    for _, one in free:
        box.remove(one)
    box.sync()
    return {slot for slot, _ in free}
