# SPDX-License-Identifier: MIT
"""The key arena's files: two equal copies, and the arena key twice in a third.

    arena.a    slots end to end, 128 octets each
    arena.b    the same, written when arena.a is on the disk
    arena.key  4,096 octets: the arena key's box, then zeros; and once more

Invariant: no write to a second copy begins before the first is on the disk, so a power
cut in the middle of a sector leaves the other copy whole.  All are overwritten in
place: a key that must die is not left behind in a file that was merely renamed.
A failed write or fsync is an OSError and the end of the process: a second fsync that
succeeds says nothing about what the first one lost.

Blocking; no secret is known here, nor what a slot means.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mesh.errors import SpoolCorruptError

KEY_BLOCK: Final = 4096
"""Octets between the two places of the arena key: no sector holds both."""

CHUNK_LEN: Final = 1_048_576
"""Octets of each copy read at once: the whole of both would be twice the arena."""

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def open_private(path: Path) -> int:
    """Open a file for us alone, made when absent, whatever the umask says.

    SpoolCorruptError for what is no file: a link would lead SQLite to another WAL.
    """
    check_regular(path)
    fd = os.open(path, _FLAGS, 0o600)
    os.fchmod(fd, 0o600)
    return fd


def check_regular(path: Path) -> None:
    """Let pass a file, and nothing at all; SpoolCorruptError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise SpoolCorruptError(f"{path}: not a regular file: put the spool's own back")


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of it, however many calls the kernel makes of that."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _read_at(fd: int, length: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while length and (part := os.pread(fd, length, offset)):
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)


class Copies:
    """The three files, open."""

    def __init__(self, folder: Path) -> None:
        """Open them, made when absent, and sync what a killed process left unsynced.

        Else the first write to one copy could meet the last one to the other still on
        its way, and a power cut then tear both.  SpoolCorruptError where two of them are
        one file: they would be torn together.
        """
        self._a = open_private(folder / "arena.a")
        self._b = open_private(folder / "arena.b")
        self._key = open_private(folder / "arena.key")
        files = [os.fstat(fd) for fd in (self._a, self._b, self._key)]
        if len({(file.st_dev, file.st_ino) for file in files}) < len(files):
            self.close()
            raise SpoolCorruptError(
                f"{folder}: two names of one file in arena.*: make each a file of its own"
            )
        for fd in (self._a, self._b, self._key):
            os.fsync(fd)
        sync_folder(folder)

    def close(self) -> None:
        """Close the files; nothing is written."""
        for fd in (self._a, self._b, self._key):
            os.close(fd)

    def chunks(self, length: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Read both copies piece by piece: where it begins, and how it is in each.

        What is missing is filled with zeros, which open nothing.
        """
        for at in range(0, length, CHUNK_LEN):
            size = min(CHUNK_LEN, length - at)
            one, two = (
                _read_at(fd, size, at).ljust(size, b"\0") for fd in (self._a, self._b)
            )
            yield at, one, two

    def write(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Write pieces at their offsets into one copy, then into the other."""
        self.mend(pieces, pieces)

    def mend(
        self,
        first: Sequence[tuple[int, bytes]],
        second: Sequence[tuple[int, bytes]],
    ) -> None:
        """Write different pieces into each copy, in the same order of safety."""
        for fd, pieces in ((self._a, first), (self._b, second)):
            for offset, piece in pieces:
                write_at(fd, piece, offset)
            os.fdatasync(fd)

    def reserve(self, length: int) -> None:
        """Have the disk set aside room for so many octets; OSError when it has none."""
        for fd in (self._a, self._b):
            os.posix_fallocate(fd, 0, length)

    def read_keys(self, length: int) -> tuple[bytes, bytes]:
        """Read the two boxes of the arena key."""
        return _read_at(self._key, length, 0), _read_at(self._key, length, KEY_BLOCK)

    def write_keys(self, box: bytes, places: Sequence[int] = (0, 1)) -> None:
        """Replace the box of the arena key in its places, one after the other."""
        for place in places:
            write_at(self._key, box.ljust(KEY_BLOCK, b"\0"), place * KEY_BLOCK)
            os.fdatasync(self._key)
