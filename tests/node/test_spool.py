# SPDX-License-Identifier: MIT
"""The spool as the node sees it: what was accepted is there again, what was not is not."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mesh.core.crypto import Key
from mesh.core.record import NO_ID, Record
from mesh.errors import LocalProtocolError
from mesh.node.spool import Ref, Spool
from tests.harness import FixedEntropy

PEER = b"p" * 16


def spool_key() -> Key:
    return Key.from_bytes(b"k" * 32)


def reopen(path: Path, seed: str = "again") -> Spool:
    return Spool.open(path, spool_key(), FixedEntropy(seed))


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


@asynccontextmanager
async def running(path: Path, seed: str = "run") -> AsyncIterator[Spool]:
    spool = reopen(path, seed)
    list(spool.recovered())
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        yield spool
        nursery.cancel_scope.cancel()


async def stored(spool: Spool, *records: Record) -> list[Ref]:
    """Accept records and wait for their commit."""
    event = trio.Event()
    found: list[Ref] = []

    def done(refs: Sequence[Ref] | None) -> None:
        assert refs is not None
        found.extend(refs)
        event.set()

    spool.accept(records, done)
    await event.wait()
    return found


async def forgotten(spool: Spool, *refs: Ref) -> None:
    """Forget records and wait until both copies have it."""
    event = trio.Event()
    left = len(refs)

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            event.set()

    for ref in refs:
        spool.forget(ref, done=done)
    spool._parking.wake()
    await event.wait()


def contents(spool: Spool) -> list[bytes]:
    return [head.id for _, head in spool.recovered()]


async def test_what_was_accepted_is_found_again(tmp_path: Path) -> None:
    records = [message(n, content=bytes([n]) * (n * 5000)) for n in range(5)]
    async with running(tmp_path / "spool") as spool:
        refs = await stored(spool, *records)
        assert await spool.read(refs) == records
        assert spool.hot(refs[0]) == records[0]
        assert spool.waiting == 5
    again = reopen(tmp_path / "spool")
    found = list(again.recovered())
    assert [ref for ref, _ in found] == refs
    assert [head.recipients for _, head in found] == [r.recipients for r in records]
    assert [head.content for _, head in found] == [b""] * 5
    async with trio.open_nursery() as nursery:
        await nursery.start(again.run)
        assert again.hot(refs[0]) is None
        assert await again.read(refs[::-1]) == records[::-1]
        assert list(await again.heads(refs)) == [h for _, h in found]
        nursery.cancel_scope.cancel()


async def test_what_was_forgotten_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        refs = await stored(spool, *(message(n) for n in range(4)))
        await forgotten(spool, refs[0], refs[2])
        assert spool.waiting == 2
        with pytest.raises(LocalProtocolError):
            spool.forget(refs[0])
        with pytest.raises(LocalProtocolError):
            await spool.read([refs[2]])
    assert contents(reopen(tmp_path / "spool")) == [message(n).id for n in (1, 3)]


async def test_an_id_is_known_until_done(tmp_path: Path) -> None:
    known = b"i" * 16
    async with running(tmp_path / "spool") as spool:
        refs = await stored(
            spool, message(1, origin_id=known), message(2, origin_id=known)
        )
        assert spool.knows(PEER, known)
        assert spool.known_ids(PEER) == 1
        await forgotten(spool, *refs)
        assert spool.knows(PEER, known)
    async with running(tmp_path / "spool") as spool:
        assert spool.waiting == 0
        assert spool.knows(PEER, known)
        spool.forget_id(PEER, known)
        assert not spool.knows(PEER, known)
        spool.forget_id(PEER, known)
    async with running(tmp_path / "spool") as spool:
        assert not spool.knows(PEER, known)
        assert spool.known_ids(PEER) == 0
