# SPDX-License-Identifier: MIT
"""Nobody holds more than is free; the counts are exact whatever happens to a record."""

import os
import pwd
import resource
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.record import HEAD_LEN, NO_ID, SALT_LEN, Record, sealed_len
from mesh.node import restore
from mesh.node.groups import PAGE_LEN, Groups
from mesh.node.row import ENTRY
from mesh.node.shares import (
    NOBODY,
    Holding,
    Shares,
    charge_of,
    has_no_room,
    user_mark,
    user_of,
)
from mesh.node.spool import Ref, Spool
from tests.node.spooling import flushed, message, offered, running, stored

A, B = b"a" * 16, b"b" * 16
MUCH = Holding(1000, 1 << 30)


def one(octets: int = 4096) -> Holding:
    return Holding(1, octets)


def test_one_alone_stops_at_half() -> None:
    shares = Shares()
    free = Holding(100, 1 << 40)
    for slot in range(100):
        if not shares.has_room(A, one(), free):
            break
        shares.hold(slot, A, 4096)
        free.records -= 1
    assert shares.of(A).records == free.records == 50
    assert shares.take_refused() == {A}
    assert shares.take_refused() == set()


def test_many_who_take_all_they_can_leave_as_much_as_each_has() -> None:
    shares = Shares()
    free = Holding(1 << 40, 4096 * 1000)
    slot = 0
    refused: set[bytes] = set()
    while len(refused) < 4:
        for origin in (bytes([n]) * 16 for n in range(1, 5)):
            if not shares.has_room(origin, one(), free):
                refused.add(origin)
                continue
            shares.hold(slot, origin, 4096)
            free.octets -= 4096
            slot += 1
    held = {shares.of(bytes([n]) * 16).octets // 4096 for n in range(1, 5)}
    assert held == {200}
    assert free.octets // 4096 == 200
    assert shares.has_room(B, Holding(100, 100 * 4096), free)


def test_who_holds_nothing_is_refused_by_the_disk_alone() -> None:
    shares = Shares()
    assert shares.has_room(A, one(1 << 20), Holding(0, 0))
    shares.hold(1, A, 4096)
    assert not shares.has_room(A, one(), Holding(0, 1 << 30))
    assert not shares.has_room(A, one(), Holding(9, 0))
    shares.let_go(1)
    assert shares.has_room(A, one(), Holding(0, 0))
    assert shares.has_room(NO_ID, one(), Holding(0, 0))  # nobody's


def test_a_burst_counts_before_it_is_on_the_disk() -> None:
    shares = Shares()
    free = Holding(100, 1 << 30)
    burst = [replace(message(n), origin=A) for n in range(50)]
    assert shares.has_room(A, Holding(50, 0), free)
    shares.expect(burst)
    # Each takes a place that was free, and stands where it will be.
    assert not shares.has_room(A, one(), free)
    assert shares.has_room(B, one(), free)
    shares.expect(burst[10:], -1)
    assert shares.has_room(A, Holding(80, 0), free)
    assert not shares.has_room(A, Holding(81, 0), free)
    assert not shares.has_room(A, one(), Holding(1000, 10 * 2 * charge_of(1)))
    shares.expect(burst[:10], -1)
    assert shares.has_room(A, one(), Holding(0, 0))
    assert not shares._coming
    assert shares._all_coming == Holding()


def test_ids_count_as_records() -> None:
    shares = Shares()
    free = Holding(100, 1 << 30)
    assert shares.has_room(A, one(), free, ids=99)
    assert not shares.has_room(A, one(), free, ids=100)


def test_a_mark_says_which_user() -> None:
    for uid in (0, 1000, NOBODY):
        assert user_of(user_mark(uid)) == uid
    assert len({user_mark(uid) for uid in (0, 1, NOBODY)} | {NO_ID}) == 4
    assert user_of(A) is None
    assert user_of(NO_ID) is None


def test_the_operator_is_told_who() -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    assert has_no_room(user_mark(os.getuid()), {}).startswith(f"user {name} has ")
    assert has_no_room(user_mark(NOBODY - 7), {}).startswith("user 4294967288 has ")
    assert "loopback" in has_no_room(user_mark(NOBODY), {})
    assert has_no_room(A, {A: "bravo"}).startswith("peer bravo has ")
    assert "drop folder" in has_no_room(A, {})


@pytest.mark.parametrize("length", [0, 8000, 16_000, 31_000, 36_000, 150_000])
def test_a_charge_is_what_a_record_takes_of_the_disk(
    tmp_path: Path, length: int
) -> None:
    """A page is 32 KiB: one of 17 KiB has it alone, and one of 37 KiB a second in part."""
    groups = Groups(tmp_path / "spool.db")
    body = bytes(sealed_len(length))
    before, count = 0, 30
    for number in range(1, count + 2):
        entry = ENTRY.pack(number, 1, len(body))
        groups.insert(number, bytes(SALT_LEN), entry, bytes(HEAD_LEN), body)
        before = before or groups._pragma("page_count")
    pages = groups._pragma("page_count") - before
    groups.close()
    taken = pages * PAGE_LEN / count
    # The tree above the pages is not counted; the last page is when nobody shares it.
    assert 0.9 < charge_of(length) / taken < 2


@given(st.integers(0, 1 << 26))
def test_a_charge_is_never_less_than_what_is_written(length: int) -> None:
    written = HEAD_LEN + sealed_len(length)
    assert written <= charge_of(length) < 2 * written + 1024
    assert charge_of(length) <= charge_of(length + 1)


scripts = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.integers(0, 3), st.integers(0, 20_000)),
        st.tuples(st.just("refuse"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("forget"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("divide"), st.integers(0, 50), st.integers(2, 4)),
        st.tuples(st.just("flush"), st.just(0), st.just(0)),
        st.tuples(st.just("start"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


class Books:
    """Counts what each origin has by adding up its records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[Ref, Record] = {}
        self.next = 1

    async def play(self, script: list[tuple[str, int, int]]) -> None:
        lives: list[list[tuple[str, int, int]]] = [[]]
        for step in script:
            if step[0] == "start":
                lives.append([])
            else:
                lives[-1].append(step)
        for life in [*lives, []]:
            async with running(self.path) as spool:
                self.check(spool)
                for name, what, size in life:
                    await getattr(self, name)(spool, what, size)
                    self.check(spool)

    def check(self, spool: Spool) -> None:
        records = Counter(record.origin for record in self.records.values())
        octets: Counter[bytes] = Counter()
        for record in self.records.values():
            octets[record.origin] += charge_of(len(record.content))
        for origin in (NO_ID, A, B, user_mark(0), user_mark(1000)):
            held = Holding(records[origin], octets[origin])
            assert spool._shares.of(origin) == held
        assert not spool._shares._coming
        assert spool.waiting == len(self.records)

    def record(self, whose: int, size: int) -> Record:
        made = message(self.next, content=bytes(size))
        origin = (A, B, user_mark(0), user_mark(1000))[whose]
        ident = self.next.to_bytes(16, "big") if whose < 2 else NO_ID
        self.next += 1
        return replace(made, origin=origin, origin_id=ident)

    async def accept(self, spool: Spool, whose: int, size: int) -> None:
        some = [self.record(whose, size), self.record(whose, size // 2)]
        self.records.update(zip(await stored(spool, *some), some, strict=True))

    async def refuse(self, spool: Spool, whose: int, _: int) -> None:
        some = [self.record(whose, 9_000_000)]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, before[1]))
        try:
            assert await offered(spool, *some) is None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    async def forget(self, spool: Spool, which: int, _: int) -> None:
        if self.records:
            ref = list(self.records)[which % len(self.records)]
            del self.records[ref]
            spool.forget(ref)

    async def divide(self, spool: Spool, which: int, count: int) -> None:
        if self.records:
            ref = list(self.records)[which % len(self.records)]
            whole = self.records.pop(ref)
            parts = [replace(whole, id=bytes([n]) * 16) for n in range(count)]
            self.records.update(zip(await stored(spool, *parts), parts, strict=True))
            spool.forget(ref)

    async def flush(self, spool: Spool, _: int, __: int) -> None:
        await flushed(spool)


@settings(max_examples=15)
@given(scripts)
def test_the_counts_are_exact(script: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(restore, "SLOTS_MIN", 64)
        trio.run(Books(Path(folder) / "spool").play, script)
