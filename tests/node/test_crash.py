# SPDX-License-Identifier: MIT
"""Every instant at which the spool's disk could stop, and what the next start finds.

While a spool works, the folder is copied at each step of each write to the arena and
around each statement of the database: before an fsync, after it, and in the middle of a
write, once half done and once with a sector torn; and each time once more as a power cut
may leave it, with every write since its file's last fsync undone but for a torn sector.
Each copy is then opened as after a crash.  What must hold:

    told accepted before the copy, not told to forget       is found, exactly as it was
    told that a forgetting is on the disk before the copy   is not found
    anything else that was handed in                        is found or not
    a peer's id, from its commit to its DONE                is known
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mesh.node import restore
from mesh.node.groups import Groups
from mesh.node.spool import Ref, Spool
from tests.node.spooling import PEER, flushed, message, reopen, running, stored

SECTOR = 512


def file_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


@dataclass
class Moment:
    """The folder at one instant, and what had been promised by then."""

    name: str
    folder: Path
    must: set[int]
    must_not: set[int]


@dataclass
class Camera:
    """Takes the pictures."""

    folder: Path
    album: Path
    must: set[int] = field(default_factory=set)
    must_not: set[int] = field(default_factory=set)
    moments: list[Moment] = field(default_factory=list)
    synced: dict[str, bytes] = field(default_factory=dict)
    unsynced: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def take(self, name: str) -> None:
        """Copy the folder: as a killed process leaves it, and as a power cut may."""
        self.copy(name)
        cut = self.copy(f"power cut {name}")
        for file, written in self.unsynced.items():
            content = bytearray(self.synced.get(file, b""))
            for offset, length in written:
                content.extend(bytes(max(0, offset + length - len(content))))
                content[offset : offset + SECTOR] = b"?" * min(SECTOR, length)
            (cut / file).write_bytes(content)

    def copy(self, name: str) -> Path:
        target = self.album / f"{len(self.moments)}"
        shutil.copytree(self.folder, target)
        self.moments.append(Moment(name, target, set(self.must), set(self.must_not)))
        return target

    def install(self, patch: pytest.MonkeyPatch) -> None:
        pwrite, fdatasync, fsync = os.pwrite, os.fdatasync, os.fsync
        insert, delete = Groups.insert, Groups.delete
        self.unsynced.clear()
        for file in self.folder.glob("arena.*"):
            self.synced[file.name] = file.read_bytes()

        def slow_write(fd: int, data: memoryview, offset: int) -> int:
            old = os.pread(fd, len(data), offset).ljust(len(data), b"\0")
            half = len(data) // 2 // SECTOR * SECTOR
            file = file_of(fd).name
            self.unsynced.setdefault(file, []).append((offset, len(data)))
            pwrite(fd, data[:half], offset)
            self.take("half written")
            torn = bytearray(data)
            torn[half : half + SECTOR] = b"?" * min(SECTOR, len(data) - half)
            torn[half + SECTOR :] = old[half + SECTOR :]
            pwrite(fd, torn, offset)
            self.take("a torn sector")
            return pwrite(fd, data, offset)

        def slow_sync(fd: int) -> None:
            self.take("before a sync")
            fdatasync(fd)
            synced(fd)
            self.take("after a sync")

        def synced(fd: int) -> None:
            file = file_of(fd)
            if file.is_file():
                self.synced[file.name] = file.read_bytes()
                self.unsynced.pop(file.name, None)

        def quick_sync(fd: int) -> None:
            fsync(fd)
            synced(fd)

        def around(method: Callable[..., None]) -> Callable[..., None]:
            def call(*args: Any) -> None:
                self.take("before a statement")
                method(*args)
                self.take("after a statement")

            return call

        patch.setattr("mesh.node.copies.os.pwrite", slow_write)
        patch.setattr("mesh.node.copies.os.fdatasync", slow_sync)
        patch.setattr("mesh.node.copies.os.fsync", quick_sync)
        patch.setattr(Groups, "insert", around(insert))
        patch.setattr(Groups, "delete", around(delete))


class Story:
    """Accepts and forgets, and keeps the camera's promises up to date."""

    def __init__(self, spool: Spool, camera: Camera) -> None:
        self.spool = spool
        self.camera = camera
        self.refs: dict[int, Ref] = {}

    async def accept(self, *numbers: int) -> None:
        for number, ref in zip(
            numbers,
            await stored(
                self.spool, *(message(n, content=bytes([n]) * 9) for n in numbers)
            ),
            strict=True,
        ):
            self.refs[number] = ref
            self.camera.must.add(number)

    def forget(self, *numbers: int) -> None:
        for number in numbers:
            self.camera.must.discard(number)
            self.spool.forget(
                self.refs[number],
                done=lambda number=number: self.camera.must_not.add(number),  # type: ignore[misc]
            )


def found_in(folder: Path) -> Sequence[int]:
    spool = reopen(folder, "after a crash")
    numbers = [head.accepted for _, head in spool.recovered()]
    assert spool.corrupt == 0
    spool.close()
    return numbers


def check(camera: Camera) -> None:
    for index, moment in enumerate(camera.moments):
        # Some twice: recovering must not undo what it recovered.
        for _ in range(1 + (index % 4 == 0)):
            numbers = found_in(moment.folder)
            assert len(numbers) == len(set(numbers))
            assert moment.must <= set(numbers), moment.name
            assert not moment.must_not & set(numbers), moment.name


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Camera:
    monkeypatch.setattr(restore, "SLOTS_MIN", 64)
    monkeypatch.setattr("mesh.node.upkeep.FREE_MIN", 1)
    (tmp_path / "album").mkdir()
    return Camera(tmp_path / "spool", tmp_path / "album")


async def test_nothing_accepted_is_lost_at_any_instant(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(camera.folder) as spool:
        story = Story(spool, camera)
        with monkeypatch.context() as patch:
            camera.install(patch)
            await story.accept(1, 2, 3)
            await story.accept(4)
            story.forget(1, 4)
            await flushed(spool)
            await story.accept(5, 6)
            story.forget(2, 3, 5)
            await flushed(spool)
            await story.accept(7)
            story.forget(6, 7)
            await flushed(spool)
    assert {moment.name for moment in camera.moments} == {
        cut + name
        for cut in ("", "power cut ")
        for name in (
            "half written",
            "a torn sector",
            "before a sync",
            "after a sync",
            "before a statement",
            "after a statement",
        )
    }
    check(camera)


IDS = [bytes([number]) * 16 for number in range(1, 4)]


async def test_an_id_is_known_at_each_instant_until_it_is_done(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its record is forgotten while the one before is being so on the disk."""
    async with running(camera.folder) as spool:
        groups = [await stored(spool, message(1, origin_id=ident)) for ident in IDS]
        first, second, third = (ref for [ref] in groups)
        with monkeypatch.context() as patch:
            camera.install(patch)
            spool.forget(first, done=lambda: spool.forget(second))
            await flushed(spool)
            spool.forget(third)
            await flushed(spool)
    assert camera.moments
    for moment in camera.moments:
        after = reopen(moment.folder)
        list(after.recovered())
        assert all(after.knows(PEER, ident) for ident in IDS), moment.name
        after.close()


async def test_what_a_killed_process_left_unsynced_is_synced_before_it_counts(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a peer would hear that its message is stored, and the next cut take it."""
    async with running(camera.folder) as spool:
        await stored(spool, message(1, origin_id=IDS[0]))
        killed = camera.copy("killed")
    fsync, synced = os.fsync, []

    def noted(fd: int) -> None:
        fsync(fd)
        synced.append(file_of(fd).name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", noted)
        after = reopen(killed)
    list(after.recovered())
    assert after.knows(PEER, IDS[0])
    after.close()
    assert {"arena.a", "arena.b", "arena.key", "spool.db-wal"} <= {*synced}
    assert synced[-1] == killed.name  # all their names


async def test_no_key_is_lost_in_a_rewrap(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    async with running(camera.folder, clock=lambda: now[0]) as spool:
        story = Story(spool, camera)
        await story.accept(*range(1, 20))
        old = spool._arena.keys.current.copy()
        with monkeypatch.context() as patch:
            patch.setattr("mesh.node.upkeep.STEP_SLOTS", 32)
            patch.setattr("mesh.node.upkeep.TURN_SLOTS", 32)
            camera.install(patch)
            now[0] = 3601.0
            for number in range(1, 5):
                await flushed(spool)
                story.forget(number)
            for _ in range(3):
                await flushed(spool)
        assert spool._arena.keys.previous is None
        assert spool._arena.keys.current != old
    check(camera)


def is_between_keys(folder: Path) -> bool:
    spool = reopen(folder)
    spool.close()
    return spool._arena.keys.previous is not None


async def test_an_interrupted_rewrap_is_finished_by_the_next_start(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    async with running(camera.folder, clock=lambda: now[0]) as spool:
        await Story(spool, camera).accept(1, 2)
        with monkeypatch.context() as patch:
            camera.install(patch)
            now[0] = 3601.0
            for _ in range(3):
                await flushed(spool)
    between = [each.folder for each in camera.moments if is_between_keys(each.folder)]
    assert len(between) > 8
    for folder in between[::4]:
        async with running(folder) as spool:
            for _ in range(4):
                await flushed(spool)
            keys = spool._arena.keys
            assert keys.previous is None
            assert spool.waiting == 2
        assert sorted(found_in(folder)) == [1, 2]


async def test_no_slot_is_lost_while_the_arena_grows(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.node.upkeep.STEP_SLOTS", 32)
    async with running(camera.folder) as spool:
        story = Story(spool, camera)
        await story.accept(*range(1, 51))
        with monkeypatch.context() as patch:
            camera.install(patch)
            await story.accept(*range(51, 100))
            story.forget(*range(40, 60))
            await flushed(spool)
    check(camera)


async def test_a_crash_in_the_making_leaves_an_empty_spool(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        camera.install(patch)
        reopen(camera.folder).close()
    for moment in camera.moments:
        assert list(found_in(moment.folder)) == []
        async with running(moment.folder) as spool:
            await stored(spool, message(1))
        assert list(found_in(moment.folder)) == [1]


async def test_a_crash_in_a_recovery_loses_nothing(
    camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(camera.folder) as spool:
        story = Story(spool, camera)
        await story.accept(*range(1, 30))
        with monkeypatch.context() as patch:
            camera.install(patch)
            story.forget(*range(1, 30, 2))
            await flushed(spool)
    torn = [moment for moment in camera.moments if moment.name.endswith("torn sector")]
    assert len(torn) >= 4
    for index, moment in enumerate(torn):
        album = camera.album / f"again-{index}"
        album.mkdir()
        again = Camera(moment.folder, album, moment.must, moment.must_not)
        with monkeypatch.context() as patch:
            again.install(patch)
            found_in(moment.folder)
        check(again)
