# SPDX-License-Identifier: MIT
"""The arena from its two copies: the greater generation, the one that opens, or damage."""

import os
from pathlib import Path

import pytest

from mesh.core.slot import EMPTY, SLOT_LEN, Tombstone, pack_tombstone
from mesh.errors import SpoolCorruptError
from mesh.node import restore
from mesh.node.arena import Arena, State
from mesh.node.copies import Copies
from mesh.node.restore import create_arena, open_arena
from tests.harness import FixedEntropy

ENTROPY = FixedEntropy("restore")
SPOOL_KEY = ENTROPY.key()
MARK = Tombstone(b"o" * 16, b"i" * 16, 77)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(restore, "SLOTS_MIN", 64)
    copies = Copies(tmp_path)
    create_arena(copies, SPOOL_KEY, ENTROPY)
    copies.close()
    return tmp_path


def opened(folder: Path) -> Arena:
    """The arena, all of it read, and nothing claimed."""
    copies = Copies(folder)
    try:
        arena = open_arena(copies, SPOOL_KEY, ENTROPY)
    finally:
        copies.close()
    arena.settle(arena.capacity)
    return arena


def overwrite(file: Path, offset: int, octets: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(octets)


def equal(folder: Path) -> bool:
    return (folder / "arena.a").read_bytes() == (folder / "arena.b").read_bytes()


def test_a_new_arena_has_random_slots_of_the_first_generation(folder: Path) -> None:
    arena = opened(folder)
    assert (arena.capacity, arena.tombstones) == (64, [])
    assert set(arena.generations) == {1}
    assert arena.count(State.FREE) == 64
    keys = {arena.key(number).unsafe_bytes() for number in range(64)}
    assert len(keys) == 64
    assert equal(folder)


@pytest.mark.parametrize("file", ["arena.a", "arena.b"])
def test_a_torn_copy_is_taken_from_the_other_and_mended(
    folder: Path, file: str
) -> None:
    before = (folder / "arena.a").read_bytes()
    overwrite(folder / file, 512, b"?" * 512)
    arena = opened(folder)
    assert arena.count(State.DAMAGED) == 0
    assert bytes(arena.image) == before
    assert (folder / "arena.a").read_bytes() == before
    assert equal(folder)


@pytest.mark.parametrize("file", ["arena.a", "arena.b"])
def test_a_short_copy_is_mended(folder: Path, file: str) -> None:
    os.truncate(folder / file, 1000)
    arena = opened(folder)
    assert arena.count(State.DAMAGED) == 0
    assert equal(folder)


def test_damage_in_both_copies_is_damage_for_ever(folder: Path) -> None:
    for file in ("arena.a", "arena.b"):
        overwrite(folder / file, 3 * SLOT_LEN + 60, b"?")
    for _ in range(2):
        arena = opened(folder)
        assert arena.states[3] == State.DAMAGED
        assert arena.claim(3, 1) == (State.DAMAGED, None, False)
        assert arena.free == 63


@pytest.mark.parametrize("file", ["arena.a", "arena.b"])
@pytest.mark.parametrize("filling", [EMPTY, pack_tombstone(MARK)])
def test_the_greater_generation_counts(folder: Path, file: str, filling: bytes) -> None:
    arena = opened(folder)
    arena.renew(5, filling)
    arena.begin_flush()
    slot = bytes(arena.image[5 * SLOT_LEN : 6 * SLOT_LEN])
    overwrite(folder / file, 5 * SLOT_LEN, slot)
    again = opened(folder)
    assert again.generations[5] == 2
    assert again.tombstones == ([] if filling == EMPTY else [(5, MARK)])
    assert again.key(5) == arena.key(5)
    assert equal(folder)


def test_a_slot_with_a_filling_that_we_never_write_is_damage(folder: Path) -> None:
    arena = opened(folder)
    arena.renew(5, b"\7" * 48)
    copies = Copies(folder)
    copies.write(arena.begin_flush().pieces)
    copies.close()
    again = opened(folder)
    assert again.states[5] == State.DAMAGED
    assert again.tombstones == []


@pytest.mark.parametrize("place", [0, 1])
def test_one_place_of_the_key_is_enough_and_mends_the_other(
    folder: Path, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = folder / "arena.key"
    before = key.read_bytes()
    overwrite(key, place * 4096 + 30, b"?")
    offsets: list[int] = []
    pwrite = os.pwrite

    def write(fd: int, data: bytes, offset: int) -> int:
        offsets.append(offset)
        return pwrite(fd, data, offset)

    monkeypatch.setattr("mesh.node.copies.os.pwrite", write)
    opened(folder)
    # The good place must not be touched: a power cut would leave neither.
    assert offsets == [place * 4096]
    assert key.read_bytes() == before


@pytest.mark.parametrize("place", [0, 1])
def test_the_greater_sequence_of_the_key_counts(folder: Path, place: int) -> None:
    arena = opened(folder)
    copies = Copies(folder)
    copies.write_keys(arena.box(arena.timed_keys(4711)), (place,))
    copies.close()
    for _ in range(2):
        assert opened(folder).keys.running == 4711


def test_without_its_key_the_arena_is_lost(folder: Path) -> None:
    (folder / "arena.key").write_bytes(bytes(8192))
    with pytest.raises(SpoolCorruptError):
        opened(folder)
    (folder / "arena.key").unlink()
    with pytest.raises(SpoolCorruptError):
        opened(folder)
