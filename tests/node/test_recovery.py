# SPDX-License-Identifier: MIT
"""What a start makes of damage: counted, kept, and never taken for delivered."""

from pathlib import Path

import pytest

from mesh.node import restore
from mesh.node.groups import Groups
from tests.node.spooling import forgotten, message, reopen, running, stored, waiting


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(restore, "SLOTS_MIN", 64)
    return tmp_path / "spool"


async def filled(path: Path) -> list[int]:
    """Three messages in one row; gives their slots."""
    async with running(path) as spool:
        refs = await stored(spool, *(message(n) for n in range(3)))
        return [ref & 0xFFFFFFFF for ref in refs]


def change(path: Path, column: str, offset: int, octets: bytes) -> None:
    groups = Groups(path / "spool.db")
    with groups._db.blob_open("main", "groups", column, 1, True) as blob:
        blob.seek(offset)
        blob.write(octets)
    groups.close()


async def test_a_damaged_slot_is_not_a_delivery(path: Path) -> None:
    slots = await filled(path)
    for file in ("arena.a", "arena.b"):
        with (path / file).open("r+b") as stream:
            stream.seek(slots[1] * 128 + 50)
            stream.write(b"??????")
    async with running(path) as spool:
        assert (spool.waiting, spool.corrupt) == (2, 1)
    assert waiting(path) == [0, 2]
    # The others are delivered; the row stays for the operator.
    spool = reopen(path)
    refs = [ref for ref, _ in spool.recovered()]
    spool.close()
    async with running(path) as spool:
        await forgotten(spool, *refs)
    async with running(path) as spool:
        assert (spool.waiting, spool.corrupt) == (0, 1)


async def test_a_damaged_head_is_set_aside(path: Path) -> None:
    await filled(path)
    change(path, "heads", 1024 + 7, b"????")
    spool = reopen(path)
    assert [head.accepted for _, head in spool.recovered()] == [0, 2]
    assert (spool.waiting, spool.corrupt) == (2, 1)
    spool.close()


async def test_a_length_that_its_head_denies_is_damage(path: Path) -> None:
    await filled(path)
    change(path, "slots", 12, (8192).to_bytes(4, "big"))
    change(path, "slots", 28, (0).to_bytes(4, "big"))
    spool = reopen(path)
    assert [head.accepted for _, head in spool.recovered()] == [2]
    assert spool.corrupt == 2
    spool.close()


@pytest.mark.parametrize("column", ["heads", "bodies", "salt", "slots"])
async def test_a_row_of_the_wrong_lengths_is_kept_whole(
    path: Path, column: str
) -> None:
    await filled(path)
    groups = Groups(path / "spool.db")
    groups._db.execute(f"update groups set {column} = x'00'").fetchall()  # noqa: S608
    groups.close()
    for _ in range(2):
        async with running(path) as spool:
            assert spool.waiting == 0
            assert spool.corrupt == (3 if column in ("heads", "bodies") else 1)


async def test_a_row_younger_than_its_slot_is_damage(path: Path) -> None:
    await filled(path)
    change(path, "slots", 4, (9).to_bytes(8, "big"))
    spool = reopen(path)
    assert [head.accepted for _, head in spool.recovered()] == [1, 2]
    assert spool.corrupt == 1
    spool.close()
