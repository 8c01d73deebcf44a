# SPDX-License-Identifier: MIT
"""The durable spool: what has been accepted is not lost, what was delivered is gone.

A record is a place in the row of its group (groups.py) and a slot of the key arena
(arena.py).  + yes, - no, ? either:

         row   slot opens   slot's generation
    S0    -        +          free              nothing
    S1    ?        +          the row's         incoming: sealed, its commit not done
    S2    +        +          the row's         accepted: `done` was called
    S3    +        +          old on some copy  forgotten, its overwrite not on the disk
    S4    ?        +          moved on          delivered and gone; the row is rubbish
    S5    +        -          -                 corrupt: set aside for the operator
    S6    +        +          the row's         corrupt: its head or body does not open

    event                         from to     what a crash there leaves behind
    accept                        S0   S1     S0: no 250 went out; or S2, when the commit
                                              was whole: the sender sends again, and a
                                              peer's ID= is known
    commit returns, `done`        S1   S2     S2: the record is found at the next start
    forget                        S2   S3     S2: delivered again, by the same id
    both copies of the arena      S3   S4     S4, or S2 when neither copy had it yet;
                                              where they differ the newer one counts
    row deleted                   S4   S0     S4: the row is deleted at the next start
    damage                        any  S5/S6  counted in `corrupt`, never delivered, and
                                              never taken for delivered

A record that came from a peer leaves its id in its slot, in the same overwrite that
destroys its key, until the peer says DONE or 8 days of running time are over (ids.py).

What gathers while a commit runs is the next group: one row, one statement, one commit,
one wake-up of the Trio thread, then each caller's `done`.  Nobody waits for company.
The slots of a group whose commit failed are renewed like delivered ones: what it wrote
may lie on the disk.  Once a second what was forgotten is written to the arena; once an
hour the arena gets a new key and the old one is destroyed.  When a write or an fsync
fails `run` raises IoError (74): nothing is tried again on a disk in doubt.

Trio thread only, and it never waits for the disk: `open` and `recovered`, which block,
come before `run`.  What a start finds is read by recovery.py, which says what holds
until it is complete: with `recover_beside` that is beside everything else.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from mesh.core.crypto import Entropy, Key
from mesh.core.record import Record
from mesh.core.slot import EMPTY, pack_tombstone
from mesh.errors import IoError, LocalProtocolError, SpoolCorruptError
from mesh.node.arena import SLOTS_MAX, Arena
from mesh.node.copies import Copies
from mesh.node.groups import Groups
from mesh.node.guard import Whole
from mesh.node.ids import Ids
from mesh.node.index import Hot, Index, Ref, slot_of
from mesh.node.intake import Accepted, Group, Intake
from mesh.node.parking import Parking
from mesh.node.reading import Reading
from mesh.node.recovery import Found, Recovery, forget_id
from mesh.node.restore import open_files
from mesh.node.shares import Door, Shares, charge_of
from mesh.node.tidying import Tidying
from mesh.node.upkeep import STEP_SECONDS, Upkeep
from mesh.node.writer import Writer

__all__ = ["Accepted", "Ref", "Spool"]

FLUSH_SECONDS: Final = 1.0
"""Time for which a delivered record's key may outlive it."""
AT_ONCE_SLOTS: Final = 8192
"""Slots whose records are read before a start goes on: a quarter of a second at most."""


class Spool:
    """Accepts, gives back, forgets.  Made by `open`; nothing moves before `run`."""

    def __init__(
        self,
        copies: Copies,
        arena: Arena,
        groups: Groups,
        entropy: Entropy,
        clock: Callable[[], float],
    ) -> None:
        self._copies = copies
        self._arena = arena
        self._groups = groups
        self._entropy = entropy
        self._writer = Writer()
        self._upkeep = Upkeep(arena, copies, self._writer, clock)
        self._parking = Parking()
        self._failure: BaseException | None = None
        self._ids = Ids()
        self._index = Index()
        self._hot = Hot()
        self._intake = Intake(
            arena, groups, self._writer, entropy, self._store, self._fail
        )
        self.together = self._intake.together
        """Around what does not wait: what is accepted within is one group."""
        self._forgotten: list[Callable[[], None]] = []
        self._tidying = Tidying(groups, self._writer, self._fail)
        self._corrupt: set[Ref] = set()
        self._shares = Shares()
        self._door = Door(self._shares, groups)
        known = self._index, self._ids, self._shares, self._corrupt
        self._recovery = Recovery(arena, groups, *known, self._tidying.dead)
        self._reading = Reading(
            arena, groups, self._index, self._hot, self._writer, self._corrupt
        )
        self._beside: tuple[Found, Callable[[], None]] | None = None
        self._is_open = False
        self._whole = Whole(self._fail)

    @classmethod
    def open(
        cls,
        path: Path,
        key: Key,
        entropy: Entropy,
        clock: Callable[[], float] = time.monotonic,
    ) -> "Spool":
        """Open the spool in this folder, made when absent.  Blocks.

        SpoolCorruptError: it is damaged as a whole, or `key` is another spool's.
        OSError: the folder or a file cannot be made or read.
        """
        return cls(*open_files(path, key, entropy), entropy, clock)

    def recovered(self) -> Iterator[tuple[Ref, Record]]:
        """Give what waited at the start, oldest first, without contents.  Blocks.

        It must be read to its end before `run`.
        """
        return self._recovery.heads()

    @property
    def is_large(self) -> bool:
        """To read all that may be there would take longer than a start may."""
        return self._arena.capacity > AT_ONCE_SLOTS

    def recover_beside(self, found: Found, breathe: Callable[[], None]) -> None:
        """Have `run` read, beside its work, what `recovered` would give.

        `found` hears of each that waits, and `breathe` is called after some of them.
        """
        self._beside = found, breathe

    def close(self) -> None:
        """Let go of the files of a spool that does not run; nothing is written."""
        self._groups.close()
        self._copies.close()

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Work until cancelled; then commit what was accepted, and close.

        IoError when the disk failed: what it holds is in doubt, and the process must
        end and recover at its next start.  LocalProtocolError after a bug half way in a
        change, which is no fault of the disk; and when `recovered` was not read: what
        nobody knows of would never be sent.
        """
        if self._beside is None and any(True for _ in self.recovered()):
            raise LocalProtocolError("read recovered() before run()")
        self._writer.start()
        self._is_open = True
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                if self._beside is not None:
                    nursery.start_soon(self._recover, *self._beside)
                await self._work()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._close()
        if isinstance(self._failure, SpoolCorruptError | LocalProtocolError):
            raise self._failure
        raise IoError(f"the spool's disk failed: {self._failure}") from self._failure

    async def _work(self) -> None:
        while self._failure is None:
            if self._intake.need:
                await trio.sleep(STEP_SECONDS)
            else:
                with trio.move_on_after(FLUSH_SECONDS):
                    await self._parking.park()
            await self._turn()

    async def _recover(self, found: Found, breathe: Callable[[], None]) -> None:
        try:
            await self._recovery.go_on(self._writer, found, breathe)
        except (IoError, SpoolCorruptError) as error:
            self._fail(error)
        self._parking.wake()

    async def _close(self) -> None:
        """Commit what was accepted, forget what was delivered, end the thread."""
        try:
            while self._failure is None and self._intake.is_busy:
                await self._writer.call(_nothing)
            self._is_open = False
            if self._failure is None:
                await self._flush()
                await self._upkeep.write_clock()
                self._tidying.checkpoint(last=True)
        finally:
            await self._writer.stop()
            self.close()

    # what the node asks

    @property
    def running_seconds(self) -> int:
        """Seconds for which nodes on this spool have run: the clock of ages."""
        return self._upkeep.running_seconds

    @property
    def waiting(self) -> int:
        """Records that are accepted and not forgotten, corrupt ones left out."""
        return self._index.waiting - len(self._corrupt)

    @property
    def corrupt(self) -> int:
        """Records set aside because they do not open."""
        return self._recovery.damaged + len(self._corrupt)

    def knows(self, origin: bytes, origin_id: bytes) -> bool:
        """Say whether this peer's message is on the disk, or was: it earns its 250."""
        return self._ids.knows(origin, origin_id)

    @property
    def is_indexed(self) -> bool:
        """All that waited at the start, and every id, is known."""
        return self._recovery.is_complete

    def when_indexed(self, call: Callable[[], None]) -> None:
        """Call it when `is_indexed` becomes true, which it is not yet."""
        self._recovery.when_complete(call)

    def is_of_before(self, ref: Ref) -> bool:
        """Say whether a record that waits was there before this process was."""
        return self._recovery.was_there(ref)

    def known_ids(self, origin: bytes) -> int:
        """Count the ids remembered for a peer; ids.PER_PEER_MAX is its quota."""
        return self._ids.count(origin)

    # in

    def has_room(self, origin: bytes, contents: Sequence[int]) -> bool:
        """Say whether an origin's share has room for records of so many octets each."""
        free = SLOTS_MAX - self._index.waiting - self._ids.buried
        return self._door.has_room(origin, contents, free, self._ids.count(origin))

    def take_refused(self) -> set[bytes]:
        """Give the origins whose share had no room since this was asked last."""
        return self._shares.take_refused()

    def accept(self, records: Sequence[Record], done: Accepted) -> None:
        """Seal these records into one group; `done` hears when it is on the disk.

        Never blocks.  `done` runs on the Trio thread, never within this call; after a
        failure of the disk it never runs: nobody is told anything any more.
        """
        if self._failure is not None:
            return
        if not self._is_open:
            raise LocalProtocolError("the spool is not running")
        with self._whole:
            self._shares.expect(records)
            self._intake.accept(records, partial(self._answer, records, done))
        if self._intake.need:
            self._parking.wake()

    def _answer(
        self, records: Sequence[Record], done: Accepted, refs: Sequence[Ref] | None
    ) -> None:
        self._shares.expect(records, -1)
        done(refs)

    def _store(self, group: Group) -> None:
        """A group is on the disk: know where its records are."""
        self._tidying.wrote(group.octets)
        places: list[tuple[int, int]] = []
        for place, (ref, record) in enumerate(
            zip(group.refs, group.records, strict=True)
        ):
            slot = slot_of(ref)[0]
            places.append((slot, place))
            self._ids.add(slot, record.origin, record.origin_id)
            self._shares.hold(slot, record.origin, charge_of(len(record.content)))
            self._hot.add(ref, record)
        self._index.add(group.row, places)

    # out

    def hot(self, ref: Ref) -> Record | None:
        """Give a record if it is still in memory, without waiting for anything."""
        return self._hot.get(ref)

    async def read(self, refs: Sequence[Ref]) -> list[Record | None]:
        """Give records whole, from memory or in one hop from the disk.

        None: that one does not open; it is counted in `corrupt` from now on.
        """
        return await self._reading.read(refs, bodies=True)

    async def heads(self, refs: Sequence[Ref]) -> list[Record | None]:
        """Give records, those that come from the disk without their contents."""
        return await self._reading.read(refs, bodies=False)

    def forget(self, ref: Ref, *, done: Callable[[], None] | None = None) -> None:
        """Destroy a record's key; `done` hears when both copies have that.

        A record that came from a peer leaves its id behind until `forget_id`.
        """
        slot = self._reading.held(ref)
        with self._whole:
            self._shares.let_go(slot)
            tombstone = self._ids.bury(slot, self._upkeep.running_seconds)
            self._arena.renew(slot, pack_tombstone(tombstone) if tombstone else EMPTY)
            self._hot.drop(ref)
            self._corrupt.discard(ref)
            row = self._index.drop(slot)
            if row is not None:
                self._tidying.dead.append(row)
        if done is not None:
            self._forgotten.append(done)

    def forget_id(self, origin: bytes, origin_id: bytes) -> None:
        """The peer will not offer this id again; an unknown one is nothing."""
        if not self.is_indexed:
            self._recovery.done_early(origin, origin_id)
        forget_id(self._ids, self._arena, origin, origin_id)

    # upkeep

    async def _turn(self) -> None:
        """Once a second, and when slots run out: the arena's turn."""
        for slot in self._ids.expired(self._upkeep.running_seconds):
            self._arena.renew(slot)
        try:
            await self._flush()
            await self._upkeep.turn(self._intake.need)
            if self._door.take_asked():
                self._door.free_octets = await self._writer.call(self._groups.room)
        except IoError as error:
            self._fail(error)
            return
        hope = self._arena.dirty or self._upkeep.is_low(self._intake.need)
        hope = hope or not self.is_indexed
        self._intake.feed(hope=hope)
        self._tidying.turn()

    async def _flush(self) -> None:
        """Make forgetting durable, and delete rows that this leaves empty."""
        if not (self._arena.dirty or self._forgotten or self._tidying.dead):
            return
        calls, self._forgotten = self._forgotten, []
        # Before each row was seen another may have the number of one that is dead.
        empty = len(self._tidying.dead) if self.is_indexed else 0
        await self._upkeep.flush()
        for call in calls:
            call()
        await self._tidying.delete(empty)

    def _fail(self, error: BaseException) -> None:
        """The disk failed: nothing is promised any more, and `run` ends."""
        self._failure = self._failure or error
        self._is_open = False
        self._parking.wake()


def _nothing() -> None:
    """Let the writer finish what came before."""
