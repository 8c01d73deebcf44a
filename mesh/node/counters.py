# SPDX-License-Identifier: MIT
"""The two counts of the handshake that must survive a restart, in two small files.

    state/counter    the greatest counter that we may have used as initiator; reserved
                     ahead in one block a start, so a dial writes nothing
    state/counters   the last counter of each peer's link key, as responder: without it
                     a recorded hello would draw one more answer after a restart; of
                     keys that peers have changed for others the last RETIRED_MAX

Each file is one canonical statement (encoding.py), replaced whole: written beside,
fsynced, renamed, its directory fsynced.  A full disk has no room beside; then a
statement of the same length takes the old one's place, row by row: else a full spool
could neither start nor have a new link, and would stay full.

Blocking; the shell calls `save` in a thread.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from mesh.core.encoding import decode_untrusted, encode
from mesh.core.handshake import next_counter
from mesh.errors import ConfigError, DescriptorError, EncodingError
from mesh.node.copies import sync_folder, write_at
from mesh.node.whole import read_regular_untrusted

BLOCK: Final = 2**40
"""Counters reserved a start: one a nanosecond for 18 minutes; a node uses a handful."""
FILE_MAX: Final = 16_777_216
"""Octets: 300,000 peers' link keys."""
RETIRED_MAX: Final = 1_024
"""Link keys kept though no peer has them any more: 44 kB."""
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


def read_statement(path: Path) -> object:
    """Read a file that `replace_file` wrote; None: there is none; ConfigError."""
    try:
        octets = read_regular_untrusted(path, FILE_MAX, "file of state")
        return decode_untrusted(octets, max_len=FILE_MAX)
    except FileNotFoundError:
        return None
    except (DescriptorError, EncodingError) as error:
        raise ConfigError(
            f"{path}: not what this node wrote; restore it or remove it"
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Put a whole new file in the place of an old one, durably, mode 0600."""
    beside = path.with_name(path.name + ".new")
    try:
        _write(beside, content, os.O_CREAT | os.O_TRUNC)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno not in _NO_ROOM or not _is_as_long(path, content):
            raise
        _write(path, content, 0)
        return
    beside.replace(path)
    sync_folder(path.parent)


def _write(path: Path, content: bytes, flags: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o600)
    try:
        write_at(fd, content, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_as_long(path: Path, content: bytes) -> bool:
    """Say whether overwriting needs no room, and leaves whole rows wherever it ends."""
    return path.exists() and path.stat().st_size == len(content)


class OwnCounter:
    """Counters for our message 1: each greater than any before, restarts included."""

    def __init__(self, path: Path, unix_ns: int) -> None:
        last = read_statement(path)
        self._next = next_counter(last if type(last) is int else 0, unix_ns)
        replace_file(path, encode(self._next + BLOCK))

    def next(self) -> int:
        """Return the next counter."""
        self._next += 1
        return self._next


class PeerCounters:
    """The last counter of each link key that proved itself to us.

    What is taken out of `last` is left out of the file, many together: a statement of
    another length finds no room on a full disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.last: dict[bytes, int] = {}
        self._durable: dict[bytes, int] = {}
        rows = read_statement(path)
        for row in rows if isinstance(rows, list) else []:
            if isinstance(row, list) and len(row) == 2:
                key, counter = row
                if type(key) is bytes and type(counter) is int:
                    self._durable[key] = counter
        self.last.update(self._durable)

    def prove(self, link_key: bytes, counter: int) -> bytes:
        """Note a counter whose handshake was proven; returns what `save` writes."""
        self.last.setdefault(link_key, counter)
        if len(self._durable) > len(self.last) + RETIRED_MAX:
            self._durable = {k: v for k, v in self._durable.items() if k in self.last}
        self._durable[link_key] = max(counter, self._durable.get(link_key, 0))
        return encode([[key, value] for key, value in sorted(self._durable.items())])

    def save(self, statement: bytes) -> None:
        """Write what `prove` returned."""
        replace_file(self._path, statement)
