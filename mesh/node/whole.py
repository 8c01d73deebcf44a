# SPDX-License-Identifier: MIT
"""Files that are there whole or not at all, and reads that nothing in the way can hold.

    replace    1 octets to .NAME.new beside it, whatever a crash left there removed
               2 fsync of that file, which is the owner of the folder's: root may be us
               3 it takes the name
               4 fsync of the folder

    killed or without power before 3: what was there before, and after 4: the new octets;
    between: one of the two, whole.  A .NAME.new that stays is nobody's and is ignored.

`read_regular_untrusted` neither follows a link nor waits for a FIFO, a device or a
socket, and takes no more than it was told to: whatever somebody puts in a file's place,
what comes back is one line that says so.

Errors of the disk are OSErrors: what they mean is for the caller to say.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mesh.errors import CannotCreateError, DescriptorError
from mesh.node.keys import sync_directory

_MIB: Final = 1 << 20


def replace(path: Path, octets: bytes, mode: int = 0o600) -> None:
    """Give the file these octets and this mode; raises OSError."""
    replace_all({path: octets}, mode)


def replace_all(files: Mapping[Path, bytes], mode: int = 0o600) -> None:
    """Write all aside, then give all their names; raises OSError.

    A crash between two of the names leaves some new, each whole.
    """
    pairs = [(path.with_name(f".{path.name}.new"), path) for path in files]
    try:
        for aside, path in pairs:
            _write_new(aside, files[path], mode)
        for aside, path in pairs:
            aside.replace(path)
        for folder in {path.parent for path in files}:
            sync_directory(folder)
    finally:
        for aside, _ in pairs:
            with suppress(OSError):
                aside.unlink()


def _write_new(path: Path, octets: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        os.fchmod(file.fileno(), mode)
        folder = path.parent.stat()
        if folder.st_uid != os.geteuid():  # we are root, and the node is not
            with suppress(PermissionError):
                os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())


def read_regular_untrusted(path: Path, max_len: int, what: str = "descriptor") -> bytes:
    """All octets of a regular file; raises DescriptorError or OSError."""
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
        file = os.open(path, flags)
    except OSError as error:
        if path.is_symlink():
            raise DescriptorError(
                "a symbolic link: put the file itself here"
            ) from error
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise DescriptorError("not a regular file: remove it") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise DescriptorError("not a regular file: remove it")
        with os.fdopen(file, "rb", closefd=False) as stream:
            octets = stream.read(max_len + 1)
    finally:
        os.close(file)
    if len(octets) > max_len:
        raise DescriptorError(f"more than {max_len // _MIB} MiB: this is no {what}")
    return octets


def look(path: Path) -> tuple[int, ...] | None:
    """How a file looks from outside, for seeing that it changed; None: not there."""
    try:
        return look_of(path.lstat())
    except OSError:
        return None


def look_of(found: os.stat_result) -> tuple[int, ...]:
    """Likewise, of what stat(2) found."""
    return (
        found.st_ino,
        found.st_mode,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One at a time; the kernel frees the lock of one that was killed.

    CannotCreateError where the file cannot be opened.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CannotCreateError(f"{path.parent}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
