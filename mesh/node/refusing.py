# SPDX-License-Identifier: MIT
"""The refuse list's file: read at the start, looked at each second, never waited for.

    the file, at a look               the list                    `mistake` says
    as it was                         stays                       what it said
    changed, and well                 the new one                 nothing
    changed, and with a mistake;
    gone, or no file that ends        the last good one stays     what is wrong, and where

A look is one stat in a worker thread; only a file that has changed is read, and one that
changed within the last second is read again, since its time has a grain.  A FIFO, a
device, or a disk that hangs keeps no cell waiting: what is no regular file is not read,
and at most REFUSE_MAX_LEN octets of what is.  At the start a mistake is a ConfigError.
"""

import os
import stat
import time
from pathlib import Path
from typing import Final

import trio

from mesh.core.refusal import Refusals, parse_refusals
from mesh.errors import ConfigError

LOOK_SECONDS: Final = 1.0
"""Between two looks: a change counts within 2 s."""
REFUSE_MAX_LEN: Final = 16_777_216
"""Octets of a refuse list: half a million addresses."""
GRAIN_NS: Final = 1_000_000_000
"""No file system's clock of changes is coarser, in nanoseconds."""
_READ_LEN: Final = 1_048_576


class RefuseList:
    """Who wants no mail from here, by the last good list."""

    def __init__(self, path: Path | None) -> None:
        """Read the list; ConfigError with a line a mistake."""
        self._path = path
        self._seen: object = None
        self._refusals = Refusals()
        self.mistake = ""
        """Why the file as it lies there does not count, in one line."""
        if path is not None:
            self._read(path)

    def refuses(self, address: str) -> bool:
        """Say whether this recipient wants no mail from here."""
        return self._refusals.refuses(address)

    async def watch(self) -> None:
        """Look at the file for ever; at once nothing when there is none."""
        while self._path is not None:
            await trio.sleep(LOOK_SECONDS)
            await trio.to_thread.run_sync(self.look, abandon_on_cancel=True)

    def look(self) -> None:
        """Read the file again if it has changed.  Blocks."""
        if self._path is None:
            return
        try:
            seen: object = _signature(self._path.stat())
        except OSError:
            seen = None
        if seen == self._seen and (seen is not None or self.mistake):
            return
        self._seen = seen
        try:
            self._read(self._path)
        except ConfigError as error:
            first, _, more = str(error).partition("\n")
            others = f" (and {more.count(chr(10)) + 1} more)" if more else ""
            self.mistake = f"{first}{others}: the last good list stays in force"
        else:
            self.mistake = ""

    def _read(self, path: Path) -> None:
        try:
            octets, status = _contents(path)
        except OSError as error:
            raise ConfigError(
                f"{path}: {error.strerror}; `[delivery] refuse` names it: write it, or "
                "leave that empty"
            ) from error
        # What changed a moment ago may change once more and show the same time.
        is_settled = not 0 <= time.time_ns() - status.st_ctime_ns < GRAIN_NS
        self._seen = _signature(status) if is_settled else None
        if len(octets) > REFUSE_MAX_LEN:
            raise ConfigError(f"{path}: more than 16 MiB: this is no list of addresses")
        self._refusals = parse_refusals(octets.decode("utf-8", "replace"), str(path))


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _contents(path: Path) -> tuple[bytes, os.stat_result]:
    """Read a regular file, or the beginning of one that is too long."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(
                f"{path}: no regular file; `[delivery] refuse` names it: write a list of "
                "addresses there, or leave that empty"
            )
        parts: list[bytes] = []
        left = REFUSE_MAX_LEN + 1
        while left and (part := os.read(fd, min(left, _READ_LEN))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts), status
    finally:
        os.close(fd)
