# SPDX-License-Identifier: MIT
"""The arena's files: one copy after the other, whole writes, nobody else's to read."""

import os
from pathlib import Path

import pytest

from mesh.node.copies import KEY_BLOCK, Copies, open_private, write_at


def test_both_copies_hold_what_was_written(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    copies.write([(0, b"ab"), (6, b"cd")])
    assert next(copies.chunks(10)) == (0, b"ab\0\0\0\0cd\0\0", b"ab\0\0\0\0cd\0\0")
    copies.mend([(0, b"A")], [(1, b"B")])
    assert next(copies.chunks(2)) == (0, b"Ab", b"aB")
    assert list(copies.chunks(0)) == []
    copies.close()


def test_the_key_lies_in_two_places(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    assert copies.read_keys(3) == (b"", b"")
    copies.write_keys(b"one")
    copies.write_keys(b"two", (1,))
    assert copies.read_keys(3) == (b"one", b"two")
    assert (tmp_path / "arena.key").stat().st_size == 2 * KEY_BLOCK
    copies.close()


def test_the_second_copy_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = Copies(tmp_path)
    pwrite, fdatasync = os.pwrite, os.fdatasync
    seen: list[tuple[str, int]] = []

    def write(fd: int, data: bytes, offset: int) -> int:
        seen.append(("write", fd))
        return pwrite(fd, data, offset)

    def sync(fd: int) -> None:
        seen.append(("sync", fd))
        fdatasync(fd)

    monkeypatch.setattr("mesh.node.copies.os.pwrite", write)
    monkeypatch.setattr("mesh.node.copies.os.fdatasync", sync)
    copies.write([(0, b"x"), (9, b"y")])
    a, b = copies._a, copies._b
    assert seen == [
        ("write", a), ("write", a), ("sync", a), ("write", b), ("write", b), ("sync", b)
    ]  # fmt: skip
    seen.clear()
    copies.write_keys(b"key")
    key = copies._key
    assert seen == [("write", key), ("sync", key)] * 2
    copies.close()


def test_what_a_killed_process_left_is_synced_before_any_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Copies(tmp_path).close()
    synced: list[str] = []
    fsync = os.fsync

    def sync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr("mesh.node.copies.os.fsync", sync)
    Copies(tmp_path).close()
    assert synced == ["arena.a", "arena.b", "arena.key", tmp_path.name]


def test_a_short_write_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        "mesh.node.copies.os.pwrite",
        lambda fd, data, offset: pwrite(fd, data[:3], offset),
    )
    fd = open_private(tmp_path / "file")
    write_at(fd, b"0123456789", 2)
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"\0\x000123456789"


def test_room_is_set_aside_in_both(tmp_path: Path) -> None:
    copies = Copies(tmp_path)
    copies.reserve(100_000)
    assert (tmp_path / "arena.a").stat().st_size == 100_000
    assert (tmp_path / "arena.b").stat().st_size == 100_000
    copies.close()
