# SPDX-License-Identifier: MIT
"""The spool as the node sees it: what was accepted is there again, and only that."""

import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.errors import IoError, LocalProtocolError, SpoolCorruptError
from mesh.node import intake, restore
from mesh.node.arena import State
from mesh.node.groups import Groups
from mesh.node.guard import Guard
from mesh.node.ids import EXPIRY_SECONDS
from mesh.node.spool import Ref, Spool
from tests.harness import FixedEntropy
from tests.node.spooling import (
    PEER,
    flushed,
    forgotten,
    message,
    offered,
    reopen,
    running,
    stored,
    waiting,
)

KNOWN = b"i" * 16


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
        assert list(await again.heads(refs)) == [head for _, head in found]
        nursery.cancel_scope.cancel()


async def test_large_messages_are_sealed_by_the_writer(tmp_path: Path) -> None:
    records = [
        message(n, content=bytes([n]) * octets)
        for n, octets in enumerate((9, intake.LATE_OCTETS, 5, 3_000_000))
    ]
    async with running(tmp_path / "spool") as spool:
        refs = await stored(spool, *records)
        assert await spool.read(refs) == records
    again = reopen(tmp_path / "spool")
    assert [ref for ref, _ in again.recovered()] == refs
    async with trio.open_nursery() as nursery:
        await nursery.start(again.run)
        assert await again.read(refs) == records
        nursery.cancel_scope.cancel()


async def test_the_key_of_a_large_message_is_wiped_when_the_writer_has_sealed_it(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "spool") as spool:
        large = message(0, content=b"x" * intake.LATE_OCTETS)
        last = trio.Event()
        with writer_held(spool):
            spool.accept([large], lambda _: last.set())
            ((_, key),) = spool._intake._gathering[0].late
            assert any(key.unsafe_bytes())
        await last.wait()
        assert key.slot is None  # its octets are zeros, or another key's


async def test_what_was_forgotten_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        refs = await stored(spool, *(message(n) for n in range(4)))
        await forgotten(spool, refs[0], refs[2])
        assert spool.waiting == 2
        assert spool.hot(refs[0]) is None
        with pytest.raises(LocalProtocolError):
            spool.forget(refs[0])
        with pytest.raises(LocalProtocolError):
            await spool.read([refs[2]])
    assert waiting(tmp_path / "spool") == [1, 3]


async def test_a_reference_to_a_slot_used_again_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        (ref,) = await stored(spool, message(1))
        await forgotten(spool, ref)
        for _ in range(70):
            refs = await stored(spool, *(message(n) for n in range(64)))
            await forgotten(spool, *refs)
            with pytest.raises(LocalProtocolError):
                spool.forget(ref)


async def test_rows_are_deleted_when_their_last_record_went(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        two = await stored(spool, message(1), message(2))
        (one,) = await stored(spool, message(3))
        await forgotten(spool, one)
        await forgotten(spool, two[0])
    assert rows(path) == 1
    async with running(path) as spool:
        await forgotten(spool, two[1])
    assert rows(path) == 0


def rows(path: Path) -> int:
    groups = Groups(path / "spool.db")
    count = len(list(groups.scan()))
    groups.close()
    return count


async def test_an_id_is_known_until_done(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        assert not spool.knows(PEER, KNOWN)
        refs = await stored(
            spool, message(1, origin_id=KNOWN), message(2, origin_id=KNOWN)
        )
        assert spool.knows(PEER, KNOWN)
        assert spool.known_ids(PEER) == 1
        await forgotten(spool, *refs)
        assert spool.knows(PEER, KNOWN)
    async with running(tmp_path / "spool") as spool:
        assert spool.waiting == 0
        assert spool.knows(PEER, KNOWN)
        spool.forget_id(PEER, KNOWN)
        assert not spool.knows(PEER, KNOWN)
        spool.forget_id(PEER, KNOWN)
    async with running(tmp_path / "spool") as spool:
        assert not spool.knows(PEER, KNOWN)
        assert spool.known_ids(PEER) == 0


async def test_done_before_delivery_leaves_no_tombstone(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        (ref,) = await stored(spool, message(1, origin_id=KNOWN))
        spool.forget_id(PEER, KNOWN)
        assert await spool.read([ref]) == [message(1, origin_id=KNOWN)]
        await forgotten(spool, ref)
    async with running(tmp_path / "spool") as spool:
        assert not spool.knows(PEER, KNOWN)


async def test_done_is_not_forgotten_by_a_start(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        records = [message(n, origin_id=KNOWN) for n in (1, 2)]
        refs = await stored(spool, *records, message(3, origin_id=b"j" * 16))
        spool.forget_id(PEER, KNOWN)
    async with running(tmp_path / "spool") as spool:
        assert not spool.knows(PEER, KNOWN)
        assert spool.known_ids(PEER) == 1
        assert await spool.read(refs[:2]) == records
        await forgotten(spool, *refs[:2])
        assert spool._arena.count(State.TOMBSTONE) == 0
    assert waiting(tmp_path / "spool") == [3]


async def test_a_slot_whose_row_is_lost_says_nothing_of_the_next_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "SLOTS_MIN", 64)
    path = tmp_path / "spool"
    async with running(path) as spool:
        await stored(spool, message(1, origin_id=KNOWN))
        spool.forget_id(PEER, KNOWN)
    groups = Groups(path / "spool.db")
    groups.delete([1])
    groups.close()
    async with running(path) as spool:
        await flushed(spool)
        assert spool._arena.free == 64
        await stored(spool, *(message(n, origin_id=bytes([n]) * 16) for n in range(64)))
    async with running(path) as spool:
        assert all(spool.knows(PEER, bytes([n]) * 16) for n in range(1, 64))


async def test_an_id_is_forgotten_after_eight_days_of_running(tmp_path: Path) -> None:
    now = [0.0]
    async with running(tmp_path / "spool", clock=lambda: now[0]) as spool:
        (ref,) = await stored(spool, message(1, origin_id=KNOWN))
        await forgotten(spool, ref)
        now[0] = EXPIRY_SECONDS - 1.0
        await flushed(spool)
        await flushed(spool)
        assert spool.knows(PEER, KNOWN)
        now[0] = EXPIRY_SECONDS
        await flushed(spool)
        await flushed(spool)
        assert not spool.knows(PEER, KNOWN)
    async with running(tmp_path / "spool") as spool:
        assert not spool.knows(PEER, KNOWN)
        assert spool.running_seconds == EXPIRY_SECONDS


@contextmanager
def writer_held(spool: Spool) -> Iterator[None]:
    """Within, the writer is at a job, as at a commit."""
    begun, over = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        over.wait()

    spool._writer.submit(job, lambda *_: None)
    begun.wait()
    try:
        yield
    finally:
        over.set()


async def test_a_group_is_what_gathered_during_a_commit(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        heard: list[int] = []
        event = trio.Event()

        def done(refs: Sequence[Ref] | None) -> None:
            assert refs is not None
            heard.append(len(refs))
            if len(heard) == 140:
                event.set()

        with writer_held(spool):
            for n in range(140):
                spool.accept([message(n)], done)
        assert not heard
        await event.wait()
    assert rows(tmp_path / "spool") == 3  # 64 at a time
    assert waiting(tmp_path / "spool") == list(range(140))


async def test_the_disk_does_not_wait_for_the_loop(tmp_path: Path) -> None:
    """The second commit is done while this thread has not heard of the first."""
    async with running(tmp_path / "spool") as spool:
        heard: list[int] = []
        last = trio.Event()
        with writer_held(spool):
            spool.accept([message(n) for n in range(40)], lambda _: heard.append(1))
            spool.accept([message(n + 40) for n in range(40)], lambda _: last.set())
        both = threading.Event()
        then = partial(spool._writer.submit, both.set, lambda *_: None)
        spool._writer.submit(then, lambda *_: None)  # the second was asked for before
        both.wait()
        assert not spool._intake._gathering
        assert spool._intake.is_busy
        assert not heard
        await last.wait()
        assert heard
    assert rows(tmp_path / "spool") == 2
    assert waiting(tmp_path / "spool") == list(range(80))


async def test_what_comes_together_is_one_group(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        last = trio.Event()
        with ExitStack() as turn:
            with writer_held(spool):
                spool.accept([message(0)], lambda _: None)
                turn.enter_context(spool.together())
            spool.accept([message(1)], lambda _: None)
            with writer_held(spool):  # it has been at what the first asked for
                spool.accept([message(2)], lambda _: last.set())
        await last.wait()
        with pytest.raises(KeyError), spool.together():
            raise KeyError
        await stored(spool, message(3))
    assert rows(tmp_path / "spool") == 2
    assert waiting(tmp_path / "spool") == [0, 1, 2, 3]


async def test_all_records_of_a_call_are_in_one_group(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        first = trio.Event()
        with writer_held(spool):
            spool.accept([message(0)], lambda _: first.set())
            for _ in range(2):
                spool.accept([message(n) for n in range(40)], lambda _: None)
            spool.accept([message(n) for n in range(100)], lambda _: None)
        await first.wait()
    assert rows(tmp_path / "spool") == 3  # 41, 40 and 100


async def test_files_are_ours_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        async with running(tmp_path / "spool") as spool:
            await stored(spool, message(1))
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode)
                for path in (tmp_path / "spool").iterdir()
            }
    finally:
        os.umask(old)
    assert set(modes) == {
        "arena.a", "arena.b", "arena.key", "spool.db", "spool.db-wal",
    }  # fmt: skip
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


async def test_it_is_used_in_order_only(tmp_path: Path) -> None:
    async with running(tmp_path / "spool") as spool:
        await stored(spool, message(1))
    with pytest.raises(LocalProtocolError):
        spool.accept([message(2)], lambda _: None)
    again = reopen(tmp_path / "spool")
    with pytest.raises(LocalProtocolError):
        await again.run()


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    reopen(tmp_path / "spool").close()
    other = FixedEntropy("other").key()
    with pytest.raises(SpoolCorruptError):
        Spool.open(tmp_path / "spool", other, FixedEntropy())


def test_a_database_that_is_none_is_an_error(tmp_path: Path) -> None:
    reopen(tmp_path / "spool").close()
    (tmp_path / "spool" / "spool.db-wal").unlink()
    (tmp_path / "spool" / "spool.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(SpoolCorruptError):
        reopen(tmp_path / "spool")


async def test_damage_found_when_reading_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        refs = await stored(spool, message(1), message(2))
    groups = Groups(path / "spool.db")
    with groups._db.blob_open("main", "groups", "bodies", 1, True) as blob:
        blob.write(b"damage")
    groups.close()
    async with running(path) as spool:
        assert spool.corrupt == 0
        assert await spool.read(refs) == [None, message(2)]
        assert (spool.corrupt, spool.waiting) == (1, 1)
        assert (await spool.heads(refs))[0] is not None
        await forgotten(spool, refs[1])
    assert rows(path) == 1
    async with running(path) as spool:
        spool.forget(refs[0])
        assert (spool.corrupt, spool.waiting) == (0, 0)


async def test_no_room_refuses_a_group_and_the_next_one_is_taken(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        spool._groups._db.execute("pragma max_page_count = 4").fetchall()
        assert await offered(spool, message(1, content=bytes(200_000))) is None
        refs = await stored(spool, message(2))
        await flushed(spool)
        assert await spool.read(refs) == [message(2)]
        assert spool.waiting == 1
        # The refused group's key lies nowhere any more: its slot was renewed.
        assert spool._arena.count(State.HELD) == 1
        assert spool._arena.generations.count(2) == 1
    assert waiting(path) == [2]


async def test_the_disk_s_room_is_looked_at_again_when_somebody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [0]
    monkeypatch.setattr(Groups, "room", lambda _: room[0])
    async with running(tmp_path / "spool") as spool:
        assert spool.has_room(PEER, [5000])  # it has nothing: the disk will say
        await stored(spool, message(1, origin_id=KNOWN))
        assert not spool.has_room(PEER, [5000])
        assert spool.take_refused() == {PEER}
        room[0] = 1 << 20
        await flushed(spool)
        await flushed(spool)
        assert spool.has_room(PEER, [5000])
        assert not spool.has_room(PEER, [1 << 20])


async def test_slots_run_out_and_grow_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "SLOTS_MIN", 64)
    monkeypatch.setattr("mesh.node.upkeep.FREE_MIN", 1)
    monkeypatch.setattr("mesh.node.upkeep.STEP_SLOTS", 32)
    async with running(tmp_path / "spool") as spool:
        for n in range(4):
            await stored(spool, *(message(n * 50 + at) for at in range(50)))
        assert spool._arena.capacity == 256
    assert waiting(tmp_path / "spool") == list(range(200))


async def test_an_arena_that_cannot_grow_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "SLOTS_MIN", 64)
    monkeypatch.setattr("mesh.node.upkeep.SLOTS_MAX", 64)
    async with running(tmp_path / "spool") as spool:
        refs = await stored(spool, *(message(n) for n in range(60)))
        assert await offered(spool, *(message(n) for n in range(60, 70))) is None
        await forgotten(spool, *refs[:10])
        await stored(spool, *(message(n) for n in range(60, 70)))
    assert waiting(tmp_path / "spool") == list(range(10, 70))


async def test_a_failing_disk_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "the disk is gone")

    heard: list[object] = []

    async def work() -> None:
        async with running(tmp_path / "spool") as spool:
            (ref,) = await stored(spool, message(1))
            monkeypatch.setattr("mesh.node.copies.os.fdatasync", fail)
            spool.forget(ref, done=lambda: heard.append("forgotten"))
            spool._parking.wake()
            spool.accept([message(2)], heard.append)
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    assert caught.group_contains(IoError)
    assert "forgotten" not in heard
    assert IoError.exit_code == 74


async def test_a_failing_commit_ends_the_process(tmp_path: Path) -> None:
    heard: list[object] = []

    async def work() -> None:
        async with running(tmp_path / "spool") as spool:
            spool._groups._db.execute("drop table groups").fetchall()
            spool.accept([message(1)], heard.append)
            spool.accept([message(2)], heard.append)
            try:
                await trio.sleep_forever()
            finally:
                spool.accept([message(3)], heard.append)

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    assert caught.group_contains(IoError)
    assert not heard


@pytest.mark.parametrize("does", ["accept", "forget"])
async def test_a_bug_half_way_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    """Whoever called has a guard, and would go on with half a change."""
    guard = Guard()

    def breaks(*_: object) -> None:
        raise MemoryError("who@secret.example")

    async def work() -> None:
        async with running(tmp_path / "spool") as spool:
            (ref,) = await stored(spool, message(1))
            if does == "accept":
                monkeypatch.setattr(intake, "seal_record", breaks)
            else:
                monkeypatch.setattr(spool._hot, "drop", breaks)
            with guard():
                if does == "accept":
                    spool.accept([message(2)], lambda refs: None)
                else:
                    spool.forget(ref)
            await trio.sleep(60)

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    assert guard.bugs == 1
    # Not the disk's 74: nobody is to look for what is wrong with that.
    (bug,) = caught.value.exceptions
    assert isinstance(bug, LocalProtocolError)
    assert bug.exit_code == 70
    assert str(bug).startswith("a bug in the spool: MemoryError at test_spool.py")
    assert str(bug).endswith("please report it")


def folded_in(path: Path) -> bool:
    """Say whether the database holds a row without its WAL."""
    alone = path.parent / "alone.db"
    shutil.copyfile(path / "spool.db", alone)
    found = apsw.Connection(str(alone))
    try:
        return bool(found.execute("select count(*) from groups").get)
    except apsw.SQLError:  # not even the table
        return False
    finally:
        found.close()


async def test_the_wal_is_folded_in_when_nothing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool"
    async with running(path) as spool:
        await stored(spool, message(1, content=bytes(300_000)))
        assert not folded_in(path)
        for _ in range(3):
            await flushed(spool)
        assert folded_in(path)


async def test_the_wal_is_folded_in_when_it_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.node.tidying.CHECKPOINT_OCTETS", 100_000)
    path = tmp_path / "spool"
    async with running(path) as spool:
        await stored(spool, message(1, content=bytes(300_000)))
        await stored(spool, message(2))
        assert folded_in(path)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("accept"), st.integers(1, 5), st.integers(0, 20_000)),
        st.tuples(st.just("forget"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("done"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("flush"), st.just(0), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
        st.tuples(st.just("rewrap"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


class Model:
    """A dict that does what the spool does, and checks that it does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[Ref, int] = {}
        self.sizes: dict[int, int] = {}
        self.ids: set[int] = set()
        self.next = 1
        self.now = 0.0

    def known(self, number: int) -> bytes:
        return number.to_bytes(16, "little")

    async def play(self, script: list[tuple[str, int, int]]) -> None:
        parts: list[list[tuple[str, int, int]]] = [[]]
        for step in script:
            if step[0] == "reopen":
                parts.append([])
            else:
                parts[-1].append(step)
        for part in parts:
            async with running(self.path, clock=lambda: self.now) as spool:
                await self.check(spool)
                for name, count, size in part:
                    await getattr(self, name)(spool, count, size)
                await self.check(spool)

    async def check(self, spool: Spool) -> None:
        assert spool.waiting == len(self.records)
        assert spool.corrupt == 0
        found = await spool.read(list(self.records))
        assert found == [
            message(n, origin_id=self.known(n), content=bytes(self.sizes[n]))
            for n in self.records.values()
        ]
        for number in range(1, self.next):
            assert spool.knows(PEER, self.known(number)) == (number in self.ids)
        assert spool.known_ids(PEER) == len(self.ids)

    async def accept(self, spool: Spool, count: int, size: int) -> None:
        numbers = range(self.next, self.next + count)
        self.next += count
        self.ids.update(numbers)
        self.sizes.update(dict.fromkeys(numbers, size))
        refs = await stored(
            spool,
            *(
                message(n, origin_id=self.known(n), content=bytes(size))
                for n in numbers
            ),
        )
        self.records.update(zip(refs, numbers, strict=True))

    async def forget(self, spool: Spool, which: int, _: int) -> None:
        if self.records:
            ref = list(self.records)[which % len(self.records)]
            del self.records[ref]
            spool.forget(ref)

    async def done(self, spool: Spool, which: int, _: int) -> None:
        if self.ids:
            number = sorted(self.ids)[which % len(self.ids)]
            self.ids.discard(number)
            spool.forget_id(PEER, self.known(number))

    async def flush(self, spool: Spool, _: int, __: int) -> None:
        await flushed(spool)

    async def rewrap(self, spool: Spool, _: int, __: int) -> None:
        self.now += 3601
        await flushed(spool)


@settings(max_examples=20)
@given(operations)
def test_it_does_what_a_dict_does(script: list[tuple[str, int, int]]) -> None:
    import tempfile

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(restore, "SLOTS_MIN", 64)
        trio.run(Model(Path(folder) / "spool").play, script)


def test_limits_hold_what_the_design_says() -> None:
    assert intake.GROUP_RECORDS == 64
    assert apsw.sqlite_lib_version() >= "3.51"
