# SPDX-License-Identifier: MIT
"""Groups in SQLite: rows come back as they were, and say when they cannot."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from mesh.core.record import HEAD_LEN
from mesh.errors import IoError, SpoolCorruptError, SpoolFullError
from mesh.node.groups import NUMBER_MAX, PAGE_LEN, Groups, Sealed
from mesh.node.row import ENTRY
from tests.node.test_damage import row_numbers

SALT = bytes(11)
SLOTS = ENTRY.pack(7, 1, 4096) + ENTRY.pack(9, 3, 8192)
HEADS = b"h" * HEAD_LEN + b"H" * HEAD_LEN
BODIES = b"b" * 4096 + b"B" * 8192


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Groups]:
    opened = Groups(tmp_path / "spool.db")
    yield opened
    opened.close()


def setting(groups: Groups, name: str) -> object:
    return groups._db.pragma(name)


def test_commits_are_durable_and_checkpoints_are_ours(groups: Groups) -> None:
    assert setting(groups, "journal_mode") == "wal"
    assert setting(groups, "synchronous") == 2
    assert setting(groups, "page_size") == 32768
    assert setting(groups, "wal_autocheckpoint") == 0
    assert setting(groups, "locking_mode") == "exclusive"


def test_a_row_comes_back(groups: Groups) -> None:
    assert groups.next_id() == 1
    groups.insert(1, SALT, SLOTS, HEADS, BODIES)
    assert groups.next_id() == 2
    (row,) = groups.scan()
    assert (row.id, row.salt, row.heads, row.sound) == (1, SALT, HEADS, True)
    assert row.entries == ((7, 1, 4096), (9, 3, 8192))
    whole = groups.row(1)
    assert whole is not None
    assert whole.heads == HEADS
    assert groups.row(2) is None
    assert groups.fetch([(1, 1), (1, 0), (1, 2), (5, 0)], bodies=True) == [
        Sealed(SALT, b"H" * HEAD_LEN, b"B" * 8192),
        Sealed(SALT, b"h" * HEAD_LEN, b"b" * 4096),
        None,
        None,
    ]
    assert groups.fetch([(1, 0)], bodies=False) == [Sealed(SALT, b"h" * HEAD_LEN, b"")]


def test_rows_are_deleted_together(groups: Groups) -> None:
    for number in range(1, 5):
        groups.insert(number, SALT, SLOTS, HEADS, BODIES)
    groups.delete([1, 3, 99])
    assert [row.id for row in groups.scan()] == [2, 4]
    assert groups.next_id() == 5


@pytest.mark.parametrize(
    ("damaged", "other", "next_id"),
    [(3, 40, 41), (4, 0, 4), (4, 2, 4), (3, 0, 5), (4, 60, 61), (1, 50, 51)],
)
def test_a_wrong_number_at_the_end_is_not_gone_by(
    tmp_path: Path, damaged: int, other: int, next_id: int
) -> None:
    path = tmp_path / "spool.db"
    made = Groups(path)
    for number in range(1, 5):
        made.insert(number, SALT, SLOTS, HEADS, bytes([number]) * 12288)
    made.checkpoint(last=True)
    made.close()
    octets = path.read_bytes()
    places = {number: at for at, number in row_numbers(octets, PAGE_LEN)}
    at = places[damaged]
    path.write_bytes(octets[:at] + bytes([other]) + octets[at + 1 :])
    again = Groups(path, new=False)
    assert again.next_id() == next_id
    again.insert(next_id, SALT, SLOTS, HEADS, BODIES)
    assert [row.id for row in again.scan()][-1] == next_id
    again.close()


def test_no_number_is_greater_than_the_greatest(groups: Groups) -> None:
    groups.insert(NUMBER_MAX, SALT, SLOTS, HEADS, BODIES)
    with pytest.raises(SpoolCorruptError):
        groups.next_id()


def test_the_first_number_is_1_whatever_is_there(groups: Groups) -> None:
    groups.insert(-5, SALT, SLOTS, HEADS, BODIES)
    assert groups.next_id() == 1


def test_a_row_that_lies_there_twice_hides_another(groups: Groups) -> None:
    groups.insert(1, SALT, SLOTS, HEADS, BODIES)
    assert groups.namesakes() == []
    groups.insert(2, SALT, SLOTS, HEADS, BODIES)
    with pytest.raises(SpoolCorruptError):
        groups.namesakes()


@pytest.mark.parametrize(
    ("parts", "entries"),
    [
        ((SALT[1:], SLOTS, HEADS, BODIES), 0),
        ((None, SLOTS, HEADS, BODIES), 0),
        ((SALT, SLOTS[1:], HEADS, BODIES), 0),
        ((SALT, "text", HEADS, BODIES), 0),
        ((SALT, SLOTS, HEADS[1:], BODIES), 2),
        ((SALT, SLOTS, None, BODIES), 2),
        ((SALT, SLOTS, HEADS, BODIES[1:]), 2),
        ((SALT, SLOTS, HEADS, None), 2),
    ],
)
def test_a_row_that_we_never_write_is_not_sound(
    groups: Groups, parts: tuple[object, ...], entries: int
) -> None:
    sql = "insert into groups values (1, ?, ?, ?, ?)"
    groups._db.execute(sql, parts).fetchall()
    (row,) = groups.scan()
    assert not row.sound
    assert len(row.entries) == entries


def test_a_body_beyond_its_row_is_empty(groups: Groups) -> None:
    groups.insert(1, SALT, SLOTS, HEADS, BODIES[:5000])
    (sealed,) = groups.fetch([(1, 1)], bodies=True)
    assert sealed is not None
    assert sealed.body == b""


def test_no_room_changes_nothing(groups: Groups) -> None:
    groups.insert(1, SALT, SLOTS, HEADS, BODIES)
    groups._db.execute("pragma max_page_count = 3").fetchall()
    with pytest.raises(SpoolFullError):
        groups.insert(2, SALT, SLOTS, HEADS, bytes(500_000))
    groups.checkpoint()
    assert [row.id for row in groups.scan()] == [1]


def test_a_disk_that_fails_at_the_start_is_no_bug(tmp_path: Path) -> None:
    """74 and one line; apsw's own errors would be a bug's 70."""
    path = tmp_path / "spool.db"
    (tmp_path / "spool.db-journal").mkdir()  # what an older SQLite would have left
    with pytest.raises(IoError, match="disk failed"):
        Groups(path)
    beside = tmp_path / "x"
    beside.mkdir()
    groups = Groups(beside / "spool.db")
    groups._db.close()  # what it asks of SQLite fails from now on
    for ask in (groups.next_id, lambda: list(groups.scan()), lambda: groups.row(1)):
        with pytest.raises(IoError, match="disk failed"):
            ask()
    groups.close()


def test_a_damaged_database_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    groups = Groups(path)
    for number in range(1, 200):
        groups.insert(number, SALT, SLOTS, HEADS, BODIES)
    groups.checkpoint()
    groups.close()
    (tmp_path / "spool.db-wal").unlink()
    octets = bytearray(path.read_bytes())
    octets[32768 : 2 * 32768] = b"\xff" * 32768
    path.write_bytes(octets)
    again = Groups(path)
    with pytest.raises(SpoolCorruptError, match="database is damaged"):
        list(again.scan())
    with pytest.raises(SpoolCorruptError, match="database is damaged"):
        again.next_id()  # or it would be a bug's 70
    again.close()


def test_a_damaged_page_costs_its_own_record_only(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    length = 5 * PAGE_LEN
    slots, heads = ENTRY.pack(7, 1, length), b"h" * HEAD_LEN
    groups = Groups(path)
    for number in (1, 2, 3):
        groups.insert(number, SALT, slots, heads, bytes([number]) * length)
    groups.checkpoint(last=True)
    groups.close()
    octets = bytearray(path.read_bytes())
    at = octets.index(bytes([2]) * (PAGE_LEN - 4))
    octets[at - 4 : at] = b"\xff" * 4  # which page is next
    path.write_bytes(octets)
    groups = Groups(path)
    assert [row.id for row in groups.scan()] == [1, 2, 3]
    one, two, three = groups.fetch([(1, 0), (2, 0), (3, 0)], bodies=True)
    assert one == Sealed(SALT, heads, bytes([1]) * length)
    assert two is None
    assert three == Sealed(SALT, heads, bytes([3]) * length)
    groups.delete([1, 2, 3])  # no error: it holds nothing that anybody misses
    assert [row.id for row in groups.scan()] == [2]
    groups.insert(4, SALT, slots, heads, bytes(length))
    groups.close()


def test_nothing_is_folded_in_at_the_close(tmp_path: Path) -> None:
    groups = Groups(tmp_path / "spool.db")
    groups.insert(1, SALT, SLOTS, HEADS, BODIES)
    groups.close()
    assert (tmp_path / "spool.db-wal").stat().st_size > len(BODIES)


class SmallDisk(apsw.VFS):
    """A disk on which the files of one folder may not grow past some octets."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room = folder, room
        super().__init__("small", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: Any) -> "SmallFile":  # noqa: N802
        return SmallFile(self, name, flags)

    def check(self, path: Path, end: int) -> None:
        """FullError when this file may not reach so far."""
        held = {file: file.stat().st_size for file in self.folder.iterdir()}
        held[path] = max(held.get(path, 0), end)
        if sum(held.values()) > self.room:
            raise apsw.FullError("no room")


class SmallFile(apsw.VFSFile):
    """A file on the small disk."""

    def __init__(self, disk: SmallDisk, name: Any, flags: Any) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._path = Path(name.filename() if hasattr(name, "filename") else name)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.check(self._path, offset + len(data))
        super().xWrite(data, offset)


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[None]:
    """Within it a database in this folder is on a small disk."""
    disk = SmallDisk(folder, room)

    def reserve(_file: int, offset: int, length: int) -> None:
        try:
            disk.check(folder / "spool.db", offset + length)
        except apsw.FullError as error:
            raise OSError("no room") from error
        os.truncate(folder / "spool.db", offset + length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mesh.node.groups.os.posix_fallocate", reserve)
        try:
            yield
        finally:
            disk.unregister()


def fill(groups: Groups, number: int) -> int:
    """Insert groups until there is no room; the number of the one that was refused."""
    while True:
        try:
            groups.insert(number, SALT, SLOTS, HEADS, bytes(300_000))
        except SpoolFullError:
            return number
        number += 1


@pytest.mark.parametrize("room", [3_000_000, 3_700_000, 5_000_000])
def test_a_full_disk_has_room_again_when_its_mail_is_gone(
    tmp_path: Path, room: int
) -> None:
    with small_disk(tmp_path, room):
        groups = Groups(tmp_path / "spool.db")
        end = fill(groups, 1)
        assert end > 3
        assert fill(groups, end) == end  # and it stays full until then
        for number in range(1, end):
            groups.delete([number])
        for _ in range(3):
            start, end = end, fill(groups, end)
            assert end - start > 3
            groups.delete(list(range(start, end)))
        groups.close()


def test_a_full_disk_is_found_again_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path, 3_000_000):
        groups = Groups(tmp_path / "spool.db")
        end = fill(groups, 1)
        groups.close()  # folds nothing in: as a killed process leaves it
        groups = Groups(tmp_path / "spool.db")
        assert [row.id for row in groups.scan()] == list(range(1, end))
        groups.delete(list(range(1, end)))
        assert fill(groups, end) > end
        groups.close()


SECTOR = 512


def test_a_torn_sector_of_a_later_commit_takes_no_earlier_one(tmp_path: Path) -> None:
    groups = Groups(tmp_path / "spool.db")
    wal = tmp_path / "spool.db-wal"
    for number in range(1, 9):
        before = wal.read_bytes()
        groups.insert(number, SALT, SLOTS, HEADS, BODIES)
        after = wal.read_bytes()
        torn = tmp_path / f"{number}"
        torn.mkdir()
        cut = bytearray(after)
        pairs = zip(before, after, strict=False)
        same = next((at for at, (a, b) in enumerate(pairs) if a != b), len(before))
        at = same // SECTOR * SECTOR
        cut[at : at + SECTOR] = b"?" * SECTOR
        (torn / "spool.db").write_bytes((tmp_path / "spool.db").read_bytes())
        (torn / "spool.db-wal").write_bytes(cut)
        left = Groups(torn / "spool.db")
        assert [row.id for row in left.scan()] == list(range(1, number))
        left.close()
    groups.close()


def test_room_is_what_the_disk_has_and_what_was_deleted(groups: Groups) -> None:
    groups.insert(1, SALT, SLOTS, HEADS, bytes(3_000_000))
    groups.checkpoint()
    before, free = groups.room(), groups._pragma("freelist_count")
    groups.delete([1])
    assert groups._pragma("freelist_count") >= free + 3_000_000 // 32768
    # Others use the disk meanwhile: only our own part of the sum is certain.
    assert groups.room() >= (groups._pragma("freelist_count")) * 32768
    assert before > 0
