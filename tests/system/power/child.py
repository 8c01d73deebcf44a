# SPDX-License-Identifier: MIT
"""A node whose hours are short and whose spool is small, and on demand one with a bug.

What takes an hour in a node takes a second here, so that a recording of a minute has all
of it: re-wraps of the arena, checkpoints, a growing arena, notes of running time.

    planted                       what it does
    ack-before-commit             a session hears 250 while its group is being written
    no-directory-fsync            no folder is ever synced
    slot-overwritten-before-reply a record's key dies when it is sent, not when its
                                  receiver has it
    one-arena-copy                arena.b is written at its making and never again

Each is what somebody could write by mistake; the power cut has to find it.  Several may
be planted at once, with commas between their names.
"""

import os
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from mesh.cli import dropoff
from mesh.core.slot import EMPTY
from mesh.node import (
    copies,
    drop,
    groups,
    onetime,
    peer,
    restore,
    spool,
    tidying,
    upkeep,
)
from mesh.node.arena import PAGE_LEN, PAGE_SLOTS
from mesh.node.index import Ref, slot_of
from mesh.node.qmgr import STORED, QueueManager

DROP_SLOTS: Final = 8


def shorten() -> None:
    """Make this process's hours short and its files small."""
    short: dict[Any, dict[str, float]] = {
        restore: {"SLOTS_MIN": 64},
        upkeep: {
            "REWRAP_SECONDS": 0.2, "CLOCK_SECONDS": 2, "FREE_MIN": 16,
            "STEP_SLOTS": PAGE_SLOTS, "TURN_SLOTS": 2 * PAGE_SLOTS,
        },
        spool: {"FLUSH_SECONDS": 0.1},
        tidying: {"CHECKPOINT_OCTETS": 600_000},
        groups: {"ROOM_AHEAD": 262_144},
        drop: {"SLOTS": DROP_SLOTS},
        dropoff: {"SLOTS": DROP_SLOTS},
        onetime: {"SLOTS": DROP_SLOTS},
    }  # fmt: skip
    for module, values in short.items():
        for name, value in values.items():
            assert hasattr(module, name), name
            setattr(module, name, value)


def ack_before_commit() -> None:
    accept = QueueManager.accept

    def hasty(self: QueueManager, *, answer: Callable[..., None], **rest: Any) -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(answer, STORED)
        accept(self, answer=lambda _: None, **rest)

    QueueManager.accept = hasty  # type: ignore[method-assign]


def no_directory_fsync() -> None:
    fsync = os.fsync

    def lazy(fd: int) -> None:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            fsync(fd)

    os.fsync = lazy  # type: ignore[assignment]


def slot_overwritten_before_reply() -> None:
    fill = peer.Peer.fill
    outgoing = peer.Outgoing  # type: ignore[attr-defined]
    spools: list[spool.Spool] = []

    def watched(self: peer.Peer) -> None:
        spools[:] = [self._qmgr.spool]
        fill(self)

    def hasty(ref: Ref, *rest: Any) -> Any:
        [of] = spools
        slot, generation = slot_of(ref)
        of._arena._put(slot, generation + 1, of._entropy.key(), EMPTY)
        at = slot // PAGE_SLOTS * PAGE_LEN
        of._copies.write([(at, bytes(of._arena.image[at : at + PAGE_LEN]))])
        return outgoing(ref, *rest)

    peer.Peer.fill = watched  # type: ignore[method-assign]
    peer.Outgoing = hasty  # type: ignore[attr-defined,assignment]


def one_arena_copy() -> None:
    mend = copies.Copies.mend
    made: set[int] = set()

    def half(
        self: copies.Copies,
        first: Sequence[tuple[int, bytes]],
        second: Sequence[tuple[int, bytes]],
    ) -> None:
        if id(self) not in made:
            made.add(id(self))
            mend(self, first, second)
        else:
            mend(self, first, ())

    copies.Copies.mend = half  # type: ignore[method-assign]


PLANTED: Final[dict[str, Callable[[], None]]] = {
    "ack-before-commit": ack_before_commit,
    "no-directory-fsync": no_directory_fsync,
    "slot-overwritten-before-reply": slot_overwritten_before_reply,
    "one-arena-copy": one_arena_copy,
}


def main(planted: str) -> None:
    """Be `mesh` with the arguments given, shortened, with this bug if one is named."""
    from mesh.cli.main import main as mesh

    shorten()
    for name in filter(None, planted.split(",")):
        PLANTED[name]()
    sys.exit(mesh(sys.argv[1:]))
