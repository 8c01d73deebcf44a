# SPDX-License-Identifier: MIT
"""A sample of the damage that a node survives (scripts/damage: all), and each mending."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.crypto import Key
from mesh.errors import ConfigError, SpoolCorruptError
from mesh.node import groups, recovery
from mesh.node.archive import Archive
from mesh.node.copies import Copies
from mesh.node.counters import OwnCounter, PeerCounters
from mesh.node.served import read_served
from mesh.node.spool import Spool
from tests.descriptors import NOW
from tests.directories import directory
from tests.harness import FixedEntropy
from tests.node import damaging
from tests.node.damaging import KINDS, Outcome, check_home, plant, within
from tests.node.spooling import message, reopen, running, stored, waiting

pytestmark = pytest.mark.usefixtures("small", "quick")


def test_a_damaged_spool_gives_back_the_rest(tmp_path: Path) -> None:
    outcome = damaging.run(tmp_path, flipped=80, every=65_536, seed=1, most=80)
    assert not outcome.wrong
    assert outcome.ends["set aside"]
    assert outcome.ends["all is there"] > outcome.ends["SpoolCorruptError 74"]


def test_a_damaged_home_starts_or_says_why_not(tmp_path: Path) -> None:
    outcome = damaging.run_home(tmp_path, flipped=1, seed=1, most=25)
    assert not outcome.wrong
    assert outcome.ends["started"]


# what the damage has found


@pytest.mark.parametrize("name", ["arena.a", "arena.key", "spool.db", "spool.db-wal"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "nothing"])
def test_what_is_no_file_is_no_part_of_a_spool(
    tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / "spool"
    reopen(folder).close()
    plant(folder / name, kind)
    with pytest.raises(SpoolCorruptError, match=f"{name}: not a regular file"):
        reopen(folder)


@pytest.mark.parametrize("two", ["arena.a", "arena.key"])
def test_two_copies_in_one_file_are_none(tmp_path: Path, two: str) -> None:
    Copies(tmp_path).close()
    damaging.join(tmp_path / "arena.b", tmp_path / two)
    with pytest.raises(SpoolCorruptError, match="two names of one file"):
        Copies(tmp_path)


@pytest.mark.parametrize("length", [None, 0, 100])
async def test_a_database_that_is_gone_is_not_begun_anew(
    tmp_path: Path, length: int | None
) -> None:
    folder = tmp_path / "spool"
    async with running(folder) as spool:
        await stored(spool, message(1))
        os.link(folder / "spool.db", tmp_path / "kept")
        os.link(folder / "spool.db-wal", tmp_path / "kept-wal")
        (folder / "spool.db").unlink()
        if length is not None:
            (folder / "spool.db").write_bytes(bytes(length))
        with pytest.raises(SpoolCorruptError, match=r"spool\.db is gone"):
            reopen(folder)


@pytest.mark.parametrize("at_once", [1024, 7], ids=["read at once", "a little"])
def test_rows_out_of_their_order_hide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """A row's number is damaged, or its page ends in zeros: SQLite finds fault with none.

    The greatest number it takes from the last row, and a search goes astray.
    """
    monkeypatch.setattr(recovery, "READ_RECORDS", at_once)
    sample = damaging.sampled(tmp_path, stopped=True)
    database = (sample.folder / "spool.db").read_bytes()
    length, page = len(database), groups.PAGE_LEN
    cases = {f"cut {at}": database[:at] for at in range(length - page, length, 4_096)}
    for place, number in row_numbers(database, page):
        for other in {0, 1, number ^ 1, number ^ 2, 9, 100} - {number}:
            octets = database[:place] + bytes([other]) + database[place + 1 :]
            cases[f"{number} is {other}"] = octets
    assert len(cases) > 20
    outcome = Outcome()
    for name, octets in cases.items():
        shutil.copytree(sample.folder, tmp_path / "damaged")
        (tmp_path / "damaged" / "spool.db").write_bytes(octets)
        damaging.check(sample, f"spool.db {name}", tmp_path / "damaged", outcome)
        shutil.rmtree(tmp_path / "damaged")
    assert not outcome.wrong
    assert outcome.ends["all is there"]
    assert outcome.ends["SpoolCorruptError 74"]


@pytest.mark.parametrize("word", [b"id integer", b"heads blob", b"primary key"])
def test_a_table_of_another_shape_is_damage(tmp_path: Path, word: bytes) -> None:
    sample = damaging.sampled(tmp_path, stopped=True)
    path = sample.folder / "spool.db"
    database = path.read_bytes()
    assert word in database
    path.write_bytes(database.replace(word, bytes([word[0] ^ 1]) + word[1:]))
    outcome = Outcome()
    damaging.check(sample, "a table", sample.folder, outcome)
    assert not outcome.wrong
    assert outcome.ends["SpoolCorruptError 74"]


def test_a_table_that_is_lost_is_not_made_anew(tmp_path: Path) -> None:
    """Page 1 says that it has no cell."""
    sample = damaging.sampled(tmp_path, stopped=True)
    path = sample.folder / "spool.db"
    database = bytearray(path.read_bytes())
    assert database[103:105] == b"\0\1"
    database[104] = 0
    path.write_bytes(database)
    outcome = Outcome()
    damaging.check(sample, "a table", sample.folder, outcome)
    assert not outcome.wrong
    assert outcome.ends["SpoolCorruptError 74"]


def row_numbers(database: bytes, page: int) -> Iterator[tuple[int, int]]:
    """Give places and values of the rows' numbers: fileformat2.html, 1.6."""
    for start in range(page, len(database), page):
        if database[start] == 13:  # a leaf of a table
            count = int.from_bytes(database[start + 3 : start + 5])
            for cell in range(count):
                pointer = start + 8 + 2 * cell
                place = start + int.from_bytes(database[pointer : pointer + 2])
                while database[place] & 0x80:  # the row's length
                    place += 1
                yield place + 1, database[place + 1]


def test_another_keys_arena_is_not_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    reopen(folder).close()
    (folder / "spool.db").unlink()
    before = (folder / "arena.key").read_bytes()
    with pytest.raises(SpoolCorruptError, match=r"arena\.key does not open"):
        Spool.open(folder, Key.from_bytes(b"?" * 32), FixedEntropy("other"))
    assert (folder / "arena.key").read_bytes() == before


async def test_an_old_wal_does_not_outlive_its_node(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    async with running(folder) as spool:
        await stored(spool, message(1))
        await stored(spool, message(2))
    assert not (folder / "spool.db-wal").stat().st_size
    assert waiting(folder) == [1, 2]


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
@pytest.mark.parametrize("name", ["counter", "counters"])
def test_a_count_is_read_from_a_file_only(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    plant(path, kind)
    with within(5), pytest.raises((ConfigError, OSError)) as error:
        OwnCounter(path, 0) if name == "counter" else PeerCounters(path)
    assert str(path) in str(error.value)


def test_nobody_waits_for_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "served")
    with within(5):
        assert read_served(tmp_path / "served") == {}


def test_a_name_that_is_no_ascii_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "served"
    path.write_bytes(b"2026-12-23 ch\xe9rlie mix@c.test\n2026-12-23 dora mix@d.test\n")
    assert list(read_served(path)) == [("dora", "mix@d.test")]


def test_an_anchor_that_is_no_text_is_another_one(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.begin(None, directory())
    (tmp_path / "directory.root").write_bytes(b"\xff\xfe")
    trusted, mistakes = archive.load("main", NOW)
    assert trusted.document is None
    assert len(mistakes) == 2


@pytest.mark.parametrize("name", ["descriptor", "rotation", "drop.keys"])
def test_a_start_does_not_wait_for_a_fifo(tmp_path: Path, name: str) -> None:
    home = damaging.make_home(tmp_path)
    plant(home.path / "state" / name, "fifo")
    outcome = Outcome()
    check_home(name, home, outcome)
    assert not outcome.wrong
