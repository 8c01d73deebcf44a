# SPDX-License-Identifier: MIT
"""What peers serve, as the node last knew it: for a start that finds a file gone or torn.

    state/served    YYYY-MM-DD NAME ADDRESS     a peer that vanished, and until when what
                                                it served may not leave by port 25
                    9999-12-31 NAME ADDRESS     one that was listed last time

Written whole and renamed into its place at each change of the list.  Not synced: a power
cut may take its last change, and then only what vanished in the same moment is forgotten.
Without the file nothing is known, lines of another form are passed over, and what cannot
be written is known while the process lives.  It says no more than peers.d does.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

SERVED_MAX_LEN: Final = 16_777_216
"""Octets that are read: some 300,000 addresses."""
LISTED: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
"""The UNIX time that stands for a peer that is listed."""

Who = tuple[str, str]
"""A peer's name and an address that it serves."""


def read_served(path: Path | None) -> dict[Who, int]:
    """Give who served what, and the UNIX time until which it is withheld."""
    found: dict[Who, int] = {}
    if path is None:
        return found
    octets = b""
    with suppress(OSError), open(path, "rb", opener=_open) as file:
        octets = file.read(SERVED_MAX_LEN)
    for line in octets.decode("ascii", "replace").split("\n"):
        day, _, who = line.partition(" ")
        name, _, address = who.partition(" ")
        with suppress(ValueError):
            until = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
            if name and address and line.isascii():
                found[name, address] = int(until.timestamp())
    return found


def _open(path: str, flags: int) -> int:
    """Open without waiting for anybody at the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def write_served(path: Path | None, served: Mapping[Who, int]) -> None:
    """Put a file in its place, whole."""
    if path is None:
        return
    aside = path.with_name(f"{path.name}.new")
    with suppress(OSError):
        aside.unlink(missing_ok=True)
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.writelines(_lines(served))
        aside.replace(path)


def _lines(served: Mapping[Who, int]) -> Iterable[str]:
    for (name, address), until in sorted(served.items()):
        yield f"{datetime.fromtimestamp(until, UTC):%Y-%m-%d} {name} {address}\n"
