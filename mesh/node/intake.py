# SPDX-License-Identifier: MIT
"""The way in: records become sealed groups, groups become commits.

    accept    free slots?   sealed into the group that gathers    else it waits for slots
    ask       a job for the writer: one at most lies in its line
    commit    the job takes the oldest group, as it is when its turn comes
    done      the writer's one wake-up: each caller hears

Nobody waits for company: a record that comes while nothing is committed is a group of
its own, but for what is read in one go from many sockets (`together`).  All records of
one call are in one group, so they are accepted together or not at all.

Nor does the disk wait for the loop: what has gathered while a commit ran is taken by
the writer thread when that is done, before the Trio thread has heard of it.  So groups,
while they gather, belong to whoever has the lock; what was taken is the writer's until
its `done`.  Within `together` nothing is taken: its end asks.

A group that the disk has no room for is refused: its slots are renewed, because what it
wrote before it failed may lie on the disk under their keys.  Trio thread only, but for
`_write`.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from mesh.core.crypto import Entropy, Key
from mesh.core.record import SALT_LEN, Record, seal_record, sealed_len
from mesh.errors import SpoolFullError
from mesh.node.arena import Arena
from mesh.node.groups import Groups
from mesh.node.index import Ref, ref_of, slot_of
from mesh.node.row import ENTRY
from mesh.node.writer import Writer

GROUP_RECORDS: Final = 64
"""Records of a group: 256 are no faster and make a commit take 17 ms instead of 5."""
GROUP_OCTETS: Final = 16_777_216
"""Sealed octets of a group: what a slow disk writes in a fifth of a second."""
LATE_OCTETS: Final = 524_288
"""Content from which on the writer thread seals: 1 ms of the Trio thread; 20 MiB would
be 30.  The C call holds no lock, so nobody waits for it."""

Accepted = Callable[[Sequence[Ref] | None], None]
"""Hears the references, in the order of the records, or None: no room, try later."""


@dataclass(slots=True)
class Group:
    """What goes into one row, and who wants to know."""

    row: int
    salt: bytes
    entries: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    refs: list[Ref] = field(default_factory=list)
    calls: list[tuple[Accepted, int]] = field(default_factory=list)
    late: list[tuple[int, Key]] = field(default_factory=list)
    octets: int = 0


class Intake:
    """Seals, gathers, commits.

    `stored` hears of a group on the disk before its callers do; `failed` hears of an
    error after which nothing on the disk is certain.
    """

    def __init__(
        self,
        arena: Arena,
        groups: Groups,
        writer: Writer,
        entropy: Entropy,
        stored: Callable[[Group], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._arena = arena
        self._groups = groups
        self._writer = writer
        self._entropy = entropy
        self._stored = stored
        self._failed = failed
        self._next_row = groups.next_id()
        self._lock = threading.Lock()
        self._gathering: deque[Group] = deque()
        self._is_asked = False
        self._unheard = 0
        self._starving: deque[tuple[Sequence[Record], Accepted]] = deque()
        self._is_held = False

    @property
    def need(self) -> int:
        """Free slots for which the first caller waits; 0: nobody does."""
        return len(self._starving[0][0]) if self._starving else 0

    @property
    def is_busy(self) -> bool:
        """A group gathers, or is being committed."""
        return self._unheard > 0

    def accept(self, records: Sequence[Record], done: Accepted) -> None:
        """Take records in; `done` is never called from here."""
        if self._starving or self._arena.free < len(records):
            self._starving.append((records, done))
            return
        with self._lock:
            self._seal(records, done)
            self._ask()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let what is accepted within be one group; nothing waits for anything here."""
        with self._lock:
            self._is_held = True
        try:
            yield
        finally:
            with self._lock:
                self._is_held = False
                self._ask()

    def feed(self, *, hope: bool) -> None:
        """Seal what waited for slots; without hope of more, refuse the rest."""
        while self._starving:
            records, done = self._starving[0]
            if self._arena.free >= len(records):
                self._starving.popleft()
                with self._lock:
                    self._seal(records, done)
            elif hope:
                break
            else:
                self._starving.popleft()
                done(None)
        with self._lock:
            self._ask()

    def _seal(self, records: Sequence[Record], done: Accepted) -> None:
        group = self._group(len(records))
        salt = group.salt
        for record in records:
            slot, generation, key = self._arena.take()
            length = len(record.content)
            if length < LATE_OCTETS:
                head, body = seal_record(record, key, salt)
                key.wipe()
            else:
                head = body = b""
                group.late.append((len(group.heads), key))
            group.heads.append(head)
            group.bodies.append(body)
            length = sealed_len(length)
            group.entries.append(ENTRY.pack(slot, generation, length))
            group.octets += length
            group.refs.append(ref_of(slot, generation))
        group.records += records
        group.calls.append((done, len(records)))

    def _group(self, more: int) -> Group:
        """Give the group that so many more records go into."""
        if self._gathering:
            group = self._gathering[-1]
            if len(group.refs) + more <= GROUP_RECORDS and group.octets < GROUP_OCTETS:
                return group
        group = Group(self._next_row, self._entropy.octets(SALT_LEN))
        self._next_row += 1
        self._unheard += 1
        self._gathering.append(group)
        return group

    def _ask(self) -> None:
        """Have the writer take the oldest group; whoever calls has the lock."""
        if self._gathering and not (self._is_asked or self._is_held):
            self._is_asked = True
            taken: list[Group] = []
            self._writer.submit(
                partial(self._write, taken), partial(self._committed, taken)
            )

    def _write(self, taken: list[Group]) -> None:
        """On the writer thread: take a group, seal what is large, and commit."""
        with self._lock:
            self._is_asked = False
            if self._is_held:
                return
            group = self._gathering.popleft()
            taken.append(group)
            self._ask()
        heads, bodies = group.heads, group.bodies
        for place, key in group.late:
            sealed = seal_record(group.records[place], key, group.salt)
            heads[place], bodies[place] = sealed
        self._groups.insert(
            group.row,
            group.salt,
            b"".join(group.entries),
            b"".join(heads),
            b"".join(bodies),
        )

    def _committed(
        self, taken: list[Group], _result: None, error: BaseException | None
    ) -> None:
        for group in taken:
            self._unheard -= 1
            for _, key in group.late:
                key.wipe()
        if error is not None and not isinstance(error, SpoolFullError):
            self._failed(error)
            return
        for group in taken:
            self._settle(group, stored=error is None)

    def _settle(self, group: Group, *, stored: bool) -> None:
        """Tell whoever wants to know."""
        if stored:
            self._stored(group)
        else:
            for ref in group.refs:
                self._arena.renew(slot_of(ref)[0])
        at = 0
        for done, count in group.calls:
            done(group.refs[at : at + count] if stored else None)
            at += count
