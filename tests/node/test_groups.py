# SPDX-License-Identifier: MIT
"""Groups in SQLite: rows come back as they were, and say when they cannot."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.record import HEAD_LEN
from mesh.errors import SpoolCorruptError, SpoolFullError
from mesh.node.groups import ENTRY, Groups, Sealed

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
    assert (row.id, row.salt, row.heads, row.sound) == (1, SALT, b"", True)
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
    with pytest.raises(SpoolCorruptError):
        list(again.scan())
    again.close()


def test_nothing_is_folded_in_at_the_close(tmp_path: Path) -> None:
    groups = Groups(tmp_path / "spool.db")
    groups.insert(1, SALT, SLOTS, HEADS, BODIES)
    groups.close()
    assert (tmp_path / "spool.db-wal").stat().st_size > len(BODIES)
