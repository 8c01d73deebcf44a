# SPDX-License-Identifier: MIT
"""A spool that is read while the node works: nothing lost, nothing twice, nothing free.

What a start finds is not known before it was read.  So at every step of the reading:
no slot of the old arena is given out, what was found can be forgotten, what is accepted
is kept, and in the end, or after an end in the middle, everything is as if it had been
read at once.
"""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.record import NO_ID
from mesh.errors import SpoolCorruptError
from mesh.node.arena import State
from mesh.node.groups import Groups
from mesh.node.ids import EXPIRY_SECONDS
from mesh.node.spool import Ref, Spool
from tests.node.besides import Reader
from tests.node.spooling import (
    PEER,
    flushed,
    forgotten,
    message,
    reopen,
    running,
    stored,
    waiting,
)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(monkeypatch)


@asynccontextmanager
async def beside(
    path: Path, clock: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[tuple[Spool, dict[Ref, int]]]:
    """Run a spool that is read beside; gives what was found so far."""
    spool = reopen(path, "beside", clock)
    found: dict[Ref, int] = {}

    def heard(ref: Ref, head: object) -> None:
        assert ref not in found
        found[ref] = head.accepted  # type: ignore[attr-defined]

    assert spool.is_large
    spool.recover_beside(heard, lambda: None)
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        yield spool, found
        nursery.cancel_scope.cancel()


async def indexed(spool: Spool) -> None:
    if not spool.is_indexed:
        event = trio.Event()
        spool.when_indexed(event.set)
        await event.wait()


async def until_found(found: dict[Ref, int], count: int) -> None:
    while len(found) < count:
        await trio.lowlevel.checkpoint()


def ident(number: int) -> bytes:
    return number.to_bytes(16, "little")


async def test_it_accepts_before_it_has_read_anything(
    tmp_path: Path, reader: Reader
) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        old = [(await stored(spool, message(n)))[0] for n in range(40)]
        capacity = spool._arena.capacity
    async with beside(path) as (spool, found):
        assert not spool.is_indexed
        new = await stored(spool, *(message(n) for n in range(40, 50)))
        assert len(found) <= 2
        # Which of the old slots are free is not known: none was given out.
        assert min(ref & 0xFFFFFFFF for ref in new) >= capacity
        assert await spool.read(new) == [message(n) for n in range(40, 50)]
        assert not any(map(spool.is_of_before, new))
        reader.go_on()
        await indexed(spool)
        assert list(found.items()) == list(zip(old, range(40), strict=True))
        assert all(map(spool.is_of_before, old))
        assert spool.waiting == 50
        assert spool._arena.count(State.UNREAD) == 0
        assert spool._arena.count(State.HELD) == 50
        assert spool._arena.free == spool._arena.capacity - 50
    assert waiting(path) == list(range(50))


async def test_without_room_to_grow_it_accepts_when_it_has_read(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        await stored(spool, *(message(n) for n in range(10)))
    monkeypatch.setattr("mesh.node.upkeep.SLOTS_MAX", 64)
    async with beside(path) as (spool, _):
        heard: list[object] = []
        spool.accept([message(10)], heard.append)
        for _ in range(3):
            await flushed(spool)
        assert not heard  # neither taken nor refused
        reader.go_on()
        await indexed(spool)
        await stored(spool, message(11))  # it comes behind the other
        assert heard != [None]
    assert waiting(path) == list(range(12))


async def test_what_was_found_is_forgotten_while_the_rest_is_read(
    tmp_path: Path, reader: Reader
) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        for n in range(12):
            await stored(spool, message(n))
    async with beside(path) as (spool, found):
        reader.go_on(4)
        await until_found(found, 4)
        await forgotten(spool, *list(found)[:3])
        assert spool._arena.count(State.UNREAD) > 0
    # It ended in the middle: what it did is done, the rest is there.
    assert waiting(path) == list(range(3, 12))


async def test_a_crash_in_the_middle_loses_nothing(
    tmp_path: Path, reader: Reader
) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        for n in range(12):
            await stored(spool, message(n))
    async with beside(path) as (spool, found):
        for step in range(8):
            reader.go_on(1)
            await until_found(found, step + 1)
            await stored(spool, message(100 + step))
            await forgotten(spool, next(r for r, n in found.items() if n == step))
            crash = tmp_path / f"crash-{step}"
            shutil.copytree(path, crash)
            assert waiting(crash) == [
                *range(step + 1, 12),
                *range(100, 100 + step + 1),
            ]


async def test_done_is_obeyed_though_its_id_is_found_later(
    tmp_path: Path, reader: Reader
) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        one, two, _ = [
            (await stored(spool, message(n, origin_id=ident(n))))[0] for n in (1, 2, 3)
        ]
        await forgotten(spool, one)
    async with beside(path) as (spool, _):
        for n in (1, 2):
            spool.forget_id(PEER, ident(n))
        reader.go_on()
        await indexed(spool)
        known = [spool.knows(PEER, ident(n)) for n in (1, 2, 3)]
        assert known == [False, False, True]
        await flushed(spool)
        assert spool._arena.count(State.TOMBSTONE) == 0
    async with running(path) as spool:
        assert spool.waiting == 2
        known = [spool.knows(PEER, ident(n)) for n in (1, 2, 3)]
        assert known == [False, False, True]
        assert spool.is_of_before(two)


async def test_only_so_many_early_dones_are_kept(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.node.recovery.EARLY_MAX", 1)
    path = tmp_path / "spool"
    async with running(path) as spool:
        for n in (1, 2):
            await stored(spool, message(n, origin_id=ident(n)))
    async with beside(path) as (spool, _):
        for n in (1, 2):
            spool.forget_id(PEER, ident(n))
        reader.go_on()
        await indexed(spool)
        assert [spool.knows(PEER, ident(n)) for n in (1, 2)] == [False, True]


async def test_no_peer_takes_up_the_room_for_others_early_dones(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.node.recovery.EARLY_MAX", 100)
    path = tmp_path / "spool"
    async with running(path) as spool:
        await stored(spool, message(1, origin_id=ident(1)))
    async with beside(path) as (spool, _):
        for n in range(2, 302):
            spool.forget_id(bytes(16 * [n % 3 + 1]), ident(n))  # three others
        assert spool._recovery.early == 75
        spool.forget_id(PEER, ident(1))
        reader.go_on()
        await indexed(spool)
        assert not spool.knows(PEER, ident(1))
        assert spool._recovery.early == 0


async def test_tombstones_are_found_and_expire(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "spool"
    now = [0.0]
    async with running(path, clock=lambda: now[0]) as spool:
        refs = await stored(
            spool, *(message(n, origin_id=ident(n)) for n in range(1, 4))
        )
        for ref in refs:
            await forgotten(spool, ref)
            now[0] += 100
    async with beside(path, clock=lambda: now[0]) as (spool, _):
        reader.go_on()
        await indexed(spool)
        assert spool.known_ids(PEER) == 3
        now[0] = EXPIRY_SECONDS + 100.0
        await flushed(spool)
        await flushed(spool)
        assert spool.known_ids(PEER) == 1
        assert spool.knows(PEER, ident(3))


async def test_tombstones_are_taken_up_a_few_at_a_time(
    tmp_path: Path, reader: Reader
) -> None:
    """A million at once would be seconds in which nobody is answered."""
    path = tmp_path / "spool"
    async with running(path) as spool:
        for n in range(1, 31):  # each in a row of its own
            refs = await stored(spool, message(n, origin_id=ident(n)))
            await forgotten(spool, *refs)
    known = [0]
    async with beside(path) as (spool, _):
        while not spool.is_indexed:
            if reader.is_held:
                reader.go_on(1)
            await trio.lowlevel.checkpoint()
            known.append(spool.known_ids(PEER))
    assert known[-1] == 30
    assert max(b - a for a, b in itertools.pairwise(known)) <= 2


async def test_tombstones_expire_before_those_made_while_reading(
    tmp_path: Path, reader: Reader
) -> None:
    path = tmp_path / "spool"
    now = [0.0]
    async with running(path, clock=lambda: now[0]) as spool:
        old, ref = await stored(
            spool, *(message(n, origin_id=ident(n)) for n in (1, 2))
        )
        await forgotten(spool, old)
        now[0] += 1000
    async with beside(path, clock=lambda: now[0]) as (spool, found):
        reader.go_on(1)
        await until_found(found, 1)
        assert not spool.is_indexed
        await forgotten(spool, ref)
        reader.go_on()
        await indexed(spool)
        now[0] = EXPIRY_SECONDS + 500.0
        await flushed(spool)
        await flushed(spool)
        assert [spool.knows(PEER, ident(n)) for n in (1, 2)] == [False, True]


async def test_rubbish_is_deleted(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        refs = [(await stored(spool, message(n)))[0] for n in range(150)]
        keep = spool._groups.delete
        spool._groups.delete = list  # type: ignore[method-assign,assignment]
        await forgotten(spool, *refs)
        spool._groups.delete = keep  # type: ignore[method-assign]
    async with beside(path) as (spool, found):
        reader.go_on()
        await indexed(spool)
        assert not found
        await flushed(spool)
    groups = Groups(path / "spool.db")
    assert groups.scan() == []
    groups.close()


async def test_no_key_changes_before_each_slot_was_looked_at(
    tmp_path: Path, reader: Reader
) -> None:
    path = tmp_path / "spool"
    now = [0.0]
    async with running(path, clock=lambda: now[0]) as spool:
        (ref,) = await stored(spool, message(1))
    for file in ("arena.a", "arena.b"):  # a damaged one: sealing it anew would fail
        with (path / file).open("r+b") as stream:
            at = 5 if ref & 0xFFFFFFFF != 5 else 6
            stream.seek(at * 128 + 50)
            stream.write(b"??")
    async with beside(path, clock=lambda: now[0]) as (spool, _):
        old = spool._arena.keys.current.copy()
        now[0] += 3601
        await flushed(spool)
        await flushed(spool)
        assert spool._arena.keys.current == old
        reader.go_on()
        await indexed(spool)
        for _ in range(3):
            await flushed(spool)
        assert spool._arena.keys.current != old
    assert waiting(path) == [1]


async def test_a_database_damaged_in_its_middle_ends_the_process(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        for n in range(4):
            await stored(spool, message(n))

    def damaged(*_: object) -> None:
        raise SpoolCorruptError("the spool's database is damaged")

    async def work() -> None:
        async with beside(path) as (spool, _):
            monkeypatch.setattr(spool._groups, "scan", damaged)
            reader.go_on()
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    assert caught.group_contains(SpoolCorruptError)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.integers(1, 5)),
        st.tuples(st.just("forget"), st.integers(0, 50)),
        st.tuples(st.just("done"), st.integers(0, 50)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("read"), st.integers(1, 20)),
        st.tuples(st.just("start"), st.just(0)),
    ),
    max_size=30,
)


class Life:
    """What the spool must hold, whatever part of it was read."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path, self.reader = path, reader
        self.records: dict[Ref, int] = {}
        self.ids: set[int] = set()
        self.early: set[int] = set()
        self.lost: set[int] = set()
        self.next = 1

    async def play(self, script: list[tuple[str, int]]) -> None:
        lives: list[list[tuple[str, int]]] = [[]]
        for name, count in script:
            if name == "start":
                lives.append([])
            else:
                lives[-1].append((name, count))
        for life in lives:
            async with beside(self.path) as (spool, found):
                for name, count in life:
                    await getattr(self, name)(spool, found, count)
                if not spool.is_indexed:
                    self.lost |= self.early
                self.early.clear()
        async with beside(self.path) as (spool, found):
            for _ in range(1000):
                self.reader.go_on(1)
            await indexed(spool)
            await self.check(spool, found)
        async with running(self.path) as spool:
            await self.check(spool, self.records)

    async def check(self, spool: Spool, found: dict[Ref, int]) -> None:
        assert found == self.records
        assert spool.waiting == len(self.records)
        assert spool.corrupt == 0
        assert await spool.read(list(self.records)) == [
            message(n, origin_id=ident(n)) for n in self.records.values()
        ]
        known = {n for n in range(1, self.next) if spool.knows(PEER, ident(n))}
        # What was done before it was found is known again if that life ended too soon.
        assert self.ids <= known <= self.ids | self.lost
        arena = spool._arena
        held = {n for n, state in enumerate(arena.states) if state == State.HELD}
        assert held == {ref & 0xFFFFFFFF for ref in self.records}

    async def accept(self, spool: Spool, found: dict[Ref, int], count: int) -> None:
        numbers = range(self.next, self.next + count)
        self.next += count
        refs = await stored(spool, *(message(n, origin_id=ident(n)) for n in numbers))
        assert not set(refs) & set(self.records)
        self.ids.update(numbers)
        self.records.update(zip(refs, numbers, strict=True))
        found.update(zip(refs, numbers, strict=True))

    async def forget(self, spool: Spool, found: dict[Ref, int], which: int) -> None:
        known = [ref for ref in found if ref in self.records]
        if known:
            ref = known[which % len(known)]
            del self.records[ref]
            spool.forget(ref)

    async def done(self, spool: Spool, _: object, which: int) -> None:
        if self.ids:
            number = sorted(self.ids)[which % len(self.ids)]
            self.ids.discard(number)
            spool.forget_id(PEER, ident(number))
            if not spool.is_indexed:
                self.early.add(number)

    async def flush(self, spool: Spool, _: object, __: int) -> None:
        await flushed(spool)

    async def read(self, _: object, __: object, count: int) -> None:
        self.reader.go_on(count)
        for _ in range(count):
            await trio.sleep(0.0001)


@settings(max_examples=12)
@given(steps)
def test_it_is_read_beside_whatever_happens(script: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        reader = Reader(patch)
        trio.run(Life(Path(folder) / "spool", reader).play, script)


async def test_some_thousand_records_are_read_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.node.spool.AT_ONCE_SLOTS", 4095)
    path = tmp_path / "spool"
    async with running(path) as spool:
        refs: list[Ref] = []
        for first in range(0, 3000, 50):
            refs += await stored(spool, *(message(n) for n in range(first, first + 50)))
        await forgotten(spool, *refs[::3])
    left = [n for n in range(3000) if n % 3]
    async with beside(path) as (spool, found):
        assert (await stored(spool, message(3000)))[0] not in refs
        await indexed(spool)
        assert list(found.values()) == left
        assert spool.waiting == len(left) + 1
    assert waiting(path) == [*left, 3000]
    assert message(1).origin_id == NO_ID
