# SPDX-License-Identifier: MIT
"""Writing into a Maildir: the remailer's own folder, durable when this returns.

    tmp/NAME   written, fsynced; removed when that failed: half a message is not to stay
    new/NAME   renamed to; new/ is fsynced once for a group

A folder that is found may be one whose maker was killed before its name was durable:
until a delivery of this process has gone well the folders' names are fsynced, too.

NAME is 32 hex digits that the caller derives from the record's id: no time, no host,
no counter.  A delivery that is repeated after a crash finds its own file, in new/, or
in cur/ where a reader may have moved it (with `:2,` and flags behind the name), and
writes nothing.  Folders are made 0700, files 0600.  Blocking: for a worker thread.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


class Letter(NamedTuple):
    """One message to write: its name, its octets with LF line ends, its history."""

    name: str
    octets: bytes
    repeated: bool
    """It may lie there already: look before writing."""


def deliver(maildir: Path, letters: Sequence[Letter], *, is_known: bool = False) -> int:
    """Write letters in their order; returns how many of them are on the disk.

    Of the others any may lie there: they come again as `repeated`.
    `is_known`: an earlier call of this process has made the folders durable.
    """
    written = 0
    try:
        for folder in (maildir, maildir / "tmp", maildir / "new", maildir / "cur"):
            _make_folder(folder)
        if not is_known:
            _sync_folder(maildir.parent)
            _sync_folder(maildir)
        for letter in letters:
            if not (letter.repeated and _lies_in(maildir, letter.name)):
                _write(maildir, letter)
            written += 1
    except OSError:
        pass
    try:
        _sync_folder(maildir / "new")
    except OSError:
        return 0
    return written


def _write(maildir: Path, letter: Letter) -> None:
    temporary, final = maildir / "tmp" / letter.name, maildir / "new" / letter.name
    # What a crash left under this name in tmp/ is ours and incomplete.
    temporary.unlink(missing_ok=True)
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, FILE_MODE
    )
    try:
        try:
            rest = memoryview(letter.octets)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(final)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _lies_in(maildir: Path, name: str) -> bool:
    if (maildir / "new" / name).exists():
        return True
    with os.scandir(maildir / "cur") as entries:
        return any(entry.name.partition(":")[0] == name for entry in entries)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(FOLDER_MODE)
    except FileExistsError:
        return
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
