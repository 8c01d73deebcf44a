# SPDX-License-Identifier: MIT
"""What the tests of the spool share: small spools, records, and waiting for them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mesh.cli import dropoff
from mesh.core.crypto import Key
from mesh.core.record import NO_ID, Record
from mesh.node import drop, groups, onetime, restore, upkeep
from mesh.node.spool import Ref, Spool
from tests.harness import FixedEntropy

PEER = b"p" * 16


def spool_key() -> Key:
    return Key.from_bytes(b"k" * 32)


def reopen(
    path: Path, seed: str = "again", clock: Callable[[], float] = lambda: 0.0
) -> Spool:
    return Spool.open(path, spool_key(), FixedEntropy(seed), clock)


def message(number: int, *, origin_id: bytes = NO_ID, content: bytes = b"x") -> Record:
    return Record(
        number.to_bytes(16, "big"),
        PEER if origin_id != NO_ID else NO_ID,
        origin_id,
        "bravo",
        "",
        (f"{number}@bravo.test",),
        number,
        content,
    )


def waiting(path: Path) -> list[int]:
    """Open a spool as after a crash: the numbers of the messages that wait."""
    spool = reopen(path)
    found = sorted(head.accepted for _, head in spool.recovered())
    assert spool.waiting == len(found)
    spool.close()
    return found


@asynccontextmanager
async def running(
    path: Path, seed: str = "run", clock: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[Spool]:
    spool = reopen(path, seed, clock)
    list(spool.recovered())
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        yield spool
        nursery.cancel_scope.cancel()


async def offered(spool: Spool, *records: Record) -> list[Ref] | None:
    """Accept records and wait for the answer."""
    event = trio.Event()
    found: list[list[Ref] | None] = []

    def done(refs: Sequence[Ref] | None) -> None:
        found.append(None if refs is None else list(refs))
        event.set()

    spool.accept(records, done)
    await event.wait()
    return found[0]


async def stored(spool: Spool, *records: Record) -> list[Ref]:
    refs = await offered(spool, *records)
    assert refs is not None
    return refs


async def flushed(spool: Spool) -> None:
    """Let the spool's next turn come at once, and pass."""
    event = trio.Event()
    spool._forgotten.append(event.set)
    while not event.is_set():
        spool._parking.wake()
        with trio.move_on_after(0.002):
            await event.wait()


async def forgotten(spool: Spool, *refs: Ref) -> None:
    """Forget records and wait until both copies have it."""
    heard: list[Ref] = []
    for ref in refs:
        spool.forget(ref, done=lambda ref=ref: heard.append(ref))  # type: ignore[misc]
    await flushed(spool)
    assert heard == list(refs)


def few_slots(patch: pytest.MonkeyPatch) -> None:
    """Have small spools and drop folders: what is made in hundreds costs nothing."""
    patch.setattr(restore, "SLOTS_MIN", 64)
    patch.setattr(upkeep, "FREE_MIN", 1)
    patch.setattr(groups, "ROOM_AHEAD", 262_144)
    for module in (drop, dropoff, onetime):
        patch.setattr(module, "SLOTS", 4)
