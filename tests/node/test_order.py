# SPDX-License-Identifier: MIT
"""Rows whose numbers are damaged: none hides another, and no slot of theirs is freed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from mesh.errors import SpoolCorruptError
from mesh.node import groups, recovery
from mesh.node.arena import State
from mesh.node.groups import Groups
from tests.node.besides import Reader
from tests.node.damaging import look
from tests.node.spooling import flushed, forgotten, message, reopen, running, stored
from tests.node.test_beside import beside, indexed
from tests.node.test_damage import row_numbers

pytestmark = pytest.mark.usefixtures("small", "quick")

ROWS = 60
ABOVE = 100
"""No row has a number as great."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a spool of so many rows with a record each, which is not open."""
    folder = tmp_path_factory.mktemp("rows") / "spool"

    async def make() -> None:
        async with running(folder) as spool:
            for number in range(1, ROWS + 1):
                await stored(spool, message(number))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mesh.node.restore.SLOTS_MIN", 2 * ROWS)
        trio.run(make)
    return folder


def renumber(folder: Path, changes: dict[int, int]) -> None:
    """Write other numbers into rows, where they lie."""
    path = folder / "spool.db"
    octets = bytearray(path.read_bytes())
    places = {number: at for at, number in row_numbers(bytes(octets), groups.PAGE_LEN)}
    for number, other in changes.items():
        octets[places[number]] = other
    path.write_bytes(octets)


def damaged(made: Path, tmp_path: Path, changes: dict[int, int]) -> Path:
    folder = tmp_path / "spool"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)
    renumber(folder, changes)
    return folder


def used(folder: Path) -> int:
    """Open it as a start does: how many slots are not given out again."""
    spool = reopen(folder)
    try:
        found = [head.accepted for _, head in spool.recovered()]
        assert sorted(found) == list(range(1, ROWS + 1))
        return spool._arena.count(State.HELD)
    finally:
        spool.close()


def leaves(folder: Path) -> dict[int, set[int]]:
    """Give each row's number those in its leaf."""
    found: dict[int, set[int]] = {}
    for at, number in row_numbers((folder / "spool.db").read_bytes(), groups.PAGE_LEN):
        found.setdefault(at // groups.PAGE_LEN, set()).add(number)
    return {number: leaf for leaf in found.values() for number in leaf}


def cases() -> Iterator[tuple[int, int]]:
    """Each row's number grows, and shrinks: by little, by much, over a boundary."""
    for number in range(1, ROWS + 1):
        further = (number, number + 1, number + 9, ROWS, ABOVE)
        yield number, further[number % 4 + 1]
        if number > 1:
            yield number, (1, number - 1, number // 2, 0)[number % 4]
    yield from ((15, 60), (30, 31), (30, 5), (45, 2), (20, ABOVE), (15, 3))


def test_no_number_hides_a_row(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are found, and keep their slots.

    What cannot be read is the damaged row, one whose number it has, and one beside it
    that a search misses: no more than a leaf of the b-tree has.
    """
    monkeypatch.setattr(recovery, "READ_RECORDS", 8)
    beside_it = leaves(made)
    for number, other in cases():
        if number == other:
            continue
        name = f"{number} is {other}"
        folder = damaged(made, tmp_path, {number: other})
        assert used(folder) == ROWS, name
        found, corrupt = look(folder)
        missing = set(range(1, ROWS + 1)) - {each.accepted for each in found}
        assert missing <= {number, other} | beside_it[number], name
        ordered = number - 1 < other < number + 1 or (number == ROWS and other > ROWS)
        assert corrupt == len(missing) + (not ordered), name


@pytest.mark.parametrize("other", [60, 5, ABOVE, 31])
async def test_nor_beside_the_running_node(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: int
) -> None:
    reader = Reader(monkeypatch)
    folder = damaged(made, tmp_path, {30: other})
    async with beside(folder) as (spool, found):
        while not spool.is_indexed and len(found) < ROWS // 3:
            reader.go_on(1)
            await trio.lowlevel.checkpoint()
        await stored(spool, *(message(ROWS + n) for n in range(1, 4)))
        reader.go_on()
        await indexed(spool)
        assert len(found) == ROWS
        assert spool.corrupt == 1


@pytest.mark.parametrize("zeros", [1, 3])
async def test_last_rows_without_a_salt_are_counted(
    made: Path, tmp_path: Path, zeros: int
) -> None:
    """Nothing tells one of them from another: they lie behind one that has a salt."""
    folder = tmp_path / "spool"
    shutil.copytree(made, folder)
    opened = Groups(folder / "spool.db")
    opened._db.execute(
        "update groups set salt = null, slots = null where id > ? or id = 3",
        (ROWS - zeros,),
    ).fetchall()
    opened.close()
    assert corrupt_of(folder) == (ROWS - 1 - zeros, 1 + zeros)


def corrupt_of(folder: Path) -> tuple[int, int]:
    spool = reopen(folder)
    try:
        return len(list(spool.recovered())), spool.corrupt
    finally:
        spool.close()


def test_an_end_that_nobody_can_tell_is_damage(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    shutil.copytree(made, folder)
    opened = Groups(folder / "spool.db")
    opened._db.execute("update groups set salt = null").fetchall()
    opened.close()
    with pytest.raises(SpoolCorruptError):
        reopen(folder)


def test_a_negative_number_is_no_bug(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    shutil.copytree(made, folder)
    opened = Groups(folder / "spool.db")
    opened._db.execute("update groups set id = -5 where id = 9").fetchall()
    opened.close()
    assert used(folder) == ROWS


def inner_cells(octets: bytes) -> list[int]:
    """Give the places of the root's cells: a leaf's number, its greatest row's."""
    root = next(
        start
        for start in range(groups.PAGE_LEN, len(octets), groups.PAGE_LEN)
        if octets[start] == 5  # an inner page of a table
    )
    return [
        root + int.from_bytes(octets[at : at + 2])
        for at in range(root + 12, root + 12 + 2 * 5, 2)
    ]


@pytest.mark.parametrize("leaf", [2, 4])
def test_a_leaf_that_is_there_twice_hides_another(
    made: Path, tmp_path: Path, leaf: int
) -> None:
    """No slot is freed: the records of the other one are accepted mail."""
    folder = tmp_path / "spool"
    shutil.copytree(made, folder)
    path = folder / "spool.db"
    octets = bytearray(path.read_bytes())
    cells = inner_cells(bytes(octets))
    octets[cells[leaf] : cells[leaf] + 4] = octets[cells[1] : cells[1] + 4]
    path.write_bytes(octets)
    with pytest.raises(SpoolCorruptError):
        look(folder)


def test_a_wrong_number_in_the_tree_hides_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is out of order, and yet it is told that something is wrong."""
    monkeypatch.setattr(recovery, "READ_RECORDS", 4)
    folder = tmp_path / "spool"
    shutil.copytree(made, folder)
    path = folder / "spool.db"
    octets = bytearray(path.read_bytes())
    octets[inner_cells(bytes(octets))[1] + 4] = ABOVE
    path.write_bytes(octets)
    spool = reopen(folder)
    assert len(list(spool.recovered())) == ROWS
    assert spool.corrupt == 1
    assert spool._recovery._wide > 8  # the second stretch so looked for is longer
    spool.close()


def test_a_row_that_is_gone_while_it_is_read_is_damage(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "READ_RECORDS", 8)
    folder = tmp_path / "spool"
    shutil.copytree(made, folder)
    spool = reopen(folder)
    found = spool.recovered()
    next(found)
    spool._groups.delete(list(range(1, ROWS + 1)))
    with pytest.raises(SpoolCorruptError):
        list(found)
    spool.close()


async def test_a_new_row_does_not_take_its_namesake_along(
    made: Path, tmp_path: Path
) -> None:
    folder = damaged(made, tmp_path, {30: ROWS + 1})
    async with running(folder) as spool:
        refs = await stored(spool, message(99))
        await forgotten(spool, *refs)
        await flushed(spool)
        assert [row.id for row in spool._groups.scan()].count(ROWS + 1) == 2


async def test_a_dead_row_does_not_take_its_namesake_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite deletes the first row that it meets: here the one that lives."""
    rows = 5
    folder, kept = tmp_path / "spool", tmp_path / "kept"
    async with running(folder) as spool:
        refs = [(await stored(spool, message(n)))[0] for n in range(1, rows + 1)]
        spool._groups.delete = list  # type: ignore[method-assign,assignment]
        await forgotten(spool, refs[0], refs[-1])
    folder.rename(kept)
    reader = Reader(monkeypatch)
    for dead in (1, rows):
        for living in range(2, rows):
            folder = damaged(kept, tmp_path, {living: dead})
            async with beside(folder) as (spool, _):
                for _ in range(2):
                    await flushed(spool)
                reader.go_on()
                await indexed(spool)
                await flushed(spool)
                await flushed(spool)
                assert spool._arena.count(State.HELD) == rows - 2
                assert len(spool._groups.scan()) == rows - 1  # the other dead one
            reader._is_free = False
