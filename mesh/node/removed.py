# SPDX-License-Identifier: MIT
"""What stays of those who were taken off the list.

    YYYY-MM-DD ADDRESS    what a removed node served, and until when it may not leave
                          by port 25, in clear and to whoever answers there
    NAME IDENTITY         whom the shared directory lists and the operator does not
                          want: the key in hexadecimal digits

    peers.d/.removed          taken off by `mesh peers remove`
    peers.d/.distrusted       the same, where the shared directory lists the node too
    state/directory.removed   taken off by the shared directory's signers

Each is written whole, before whatever takes somebody off takes effect.  Lines of another
form are passed over.
"""

import errno
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Generic, TypeVar

from mesh.core.crypto import PUBLIC_LEN
from mesh.core.names import normalize_address
from mesh.errors import DescriptorError
from mesh.node.whole import look, read_regular_untrusted, replace

What = TypeVar("What")
Told = TypeVar("Told")

PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Too many open files is no property of the one that could not be read."""
REMOVED_NAME: Final = ".removed"
DISTRUSTED_NAME: Final = ".distrusted"
REMOVED_MAX_LEN: Final = 16_777_216
"""Octets of one of these files: some 300,000 addresses."""
WITHHELD_SECONDS: Final = 31 * 86_400
"""A removed node's mail never leaves in clear for 30 whole days: time to notice."""


class Note(Generic[What, Told]):
    """One of these files, watched; unreadable, what it said last goes on counting."""

    def __init__(self, path: Path, read: Callable[[Path], dict[What, Told]]) -> None:
        self._path, self._read = path, read
        self._look: tuple[int, ...] | None = None
        self.value: dict[What, Told] = {}
        self.mistake: str | None = None

    def poll(self) -> bool:
        """Read it if it changed; whether it did."""
        found = look(self._path)
        if found == self._look:
            return False
        self._look, self.mistake = found, None
        try:
            self.value = self._read(self._path)
        except (OSError, DescriptorError) as error:
            why = (
                f"{self._path}: {error.strerror}"
                if isinstance(error, OSError)
                else error
            )
            self.mistake = (
                f"{why}: make it readable, or what removed peers served "
                "may leave by port 25"
            )
            if isinstance(error, OSError) and error.errno in PASSING:
                self._look = (0,)  # the next poll reads it
        return True


def read_withheld(path: Path) -> dict[str, int]:
    """Addresses and the UNIX time until which they are withheld.

    None without the file; raises OSError or DescriptorError where it cannot be read.
    """
    found = {}
    for line in _lines(path):
        day, _, address = line.partition(" ")
        with suppress(ValueError):
            until = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
            found[normalize_address(address)] = int(until.timestamp())
    return found


def withhold(path: Path, addresses: Iterable[str], now: float) -> None:
    """Write down what must not leave, and forget what may again; raises OSError."""
    withheld = {a: until for a, until in read_withheld(path).items() if until > now}
    withheld |= dict.fromkeys(addresses, int(now) + WITHHELD_SECONDS)
    lines = [f"{day(until)} {address}\n" for address, until in withheld.items()]
    replace(path, "".join(sorted(lines)).encode("ascii"))


def read_distrusted(path: Path) -> dict[bytes, str]:
    """Identities that the operator does not want, and the names that they had.

    None without the file; raises OSError or DescriptorError where it cannot be read.
    """
    found = {}
    for line in _lines(path):
        name, _, digits = line.partition(" ")
        with suppress(ValueError):
            identity = bytes.fromhex(digits)
            if name and len(identity) == PUBLIC_LEN:
                found[identity] = name
    return found


def write_distrusted(path: Path, distrusted: Mapping[bytes, str]) -> None:
    """Replace the list; raises OSError."""
    lines = [f"{name} {identity.hex()}\n" for identity, name in distrusted.items()]
    replace(path, "".join(sorted(lines)).encode("ascii"))


def day(seconds: int) -> str:
    """Write UNIX seconds as a date of UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def _lines(path: Path) -> list[str]:
    try:
        octets = read_regular_untrusted(path, REMOVED_MAX_LEN)
    except FileNotFoundError:
        return []
    except DescriptorError as error:
        raise DescriptorError(f"{path}: {error}") from error
    return octets.decode("ascii", "replace").splitlines()
