# SPDX-License-Identifier: MIT
"""The peers that the operator listed: one file each in peers.d.

    peers.d/NAME.mesh   Serves-Confirmed: ADDRESS      the operator's word, if any
                        -----BEGIN MESH DESCRIPTOR-----
                        ...                            the descriptor of NAME

Other names are ignored.  A file counts when it is a regular file (no link, no FIFO) of
bounded size with exactly one good descriptor of the name it bears, of our network and
not our own; otherwise a line says what is wrong, and what that file held before stays in
force while it is there.  Two files with one key: neither counts, for either may lie.

`poll` costs one stat a file, and reads only what changed.  listing.py changes the folder.

Nothing here talks to a peer, and a descriptor that expired stays listed: whoever uses
one asks `find`, which looks at the time.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from mesh.core.descriptor import (
    BEGIN,
    Descriptor,
    armour,
    parse_untrusted,
)
from mesh.core.directory import Directory, Listed
from mesh.errors import DescriptorError

SUFFIX: Final = ".mesh"
FILE_MAX_LEN: Final = 262_144
"""Octets: the longest descriptor in armour and a line for each address it serves."""
PEERS_MAX: Final = 4096
"""Files: four times the links that a node is built for."""

_CONFIRMED: Final = "Serves-Confirmed: "
_Stamp: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Us:
    """What of this node a peer's descriptor may not contradict."""

    name: str
    network: str
    serves: Mapping[str, int]


@dataclass(frozen=True)
class Snapshot:
    """All peers at one time; `mistakes` has a line for each file that does not count."""

    directory: Directory
    by_name: Mapping[str, Listed] = field(default_factory=dict)
    by_link_key: Mapping[bytes, Listed] = field(default_factory=dict)
    mistakes: tuple[str, ...] = ()

    def find(self, link_key: bytes, now: float) -> Listed | None:
        """Give the peer of a link key whose descriptor holds at this UNIX time."""
        listed = self.by_link_key.get(link_key)
        return listed if listed and listed.descriptor.valid_at(now) else None


@dataclass
class _Entry:
    """One file: how it looked, what it held last, what is wrong with it now."""

    stamp: _Stamp
    listed: Listed | None = None
    mistake: str | None = None


class Peers:
    """The folder, watched; call `poll` every second or so, from one thread."""

    def __init__(self, folder: Path, us: Us) -> None:
        self._folder = folder
        self._us = us
        self._entries: dict[str, _Entry] = {}
        self._trouble: str | None = None
        self.snapshot = self._gather()

    def poll(self) -> bool:
        """Look at the folder; True when the snapshot is another one."""
        trouble, stamps = self._trouble, None
        try:
            found = _stamps(self._folder)
            stamps = {name: found[name] for name in sorted(found)[:PEERS_MAX]}
            self._trouble = None
            if len(found) > PEERS_MAX:
                self._trouble = (
                    f"{self._folder}: more than {PEERS_MAX} files: the rest is not read"
                )
        except OSError as error:
            self._trouble = f"{self._folder}: {error.strerror}: put the folder back"
        changed = stamps is not None and self._read_changed(stamps)
        if changed or trouble != self._trouble:
            self.snapshot = self._gather()
            return True
        return False

    def _read_changed(self, stamps: dict[str, _Stamp]) -> bool:
        gone = self._entries.keys() - stamps.keys()
        for name in gone:
            del self._entries[name]
        changed = bool(gone)
        for name, stamp in stamps.items():
            entry = self._entries.get(name)
            if entry is None or entry.stamp != stamp:
                last = entry.listed if entry else None
                self._entries[name] = self._read(name, stamp, last)
                changed = True
        return changed

    def _read(self, name: str, stamp: _Stamp, last: Listed | None) -> _Entry:
        path = self._folder / name
        try:
            listed = _parse_file_untrusted(_read_regular(path), path)
            check_is_other(listed.descriptor, self._us)
        except DescriptorError as error:
            text = str(error)
            shown = text if text.startswith(str(path)) else f"{path}: {text}"
            return _Entry(stamp, last, shown)
        except FileNotFoundError:  # removed since we looked: the next poll sees it
            return _Entry((), last)
        except OSError as error:
            mistake = f"{path}: {error.strerror}: make it readable"
            # Too many open files is no property of this one: the next poll reads it.
            passing = error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
            return _Entry(() if passing else stamp, last, mistake)
        return _Entry(stamp, listed)

    def _gather(self) -> Snapshot:
        entries = [self._entries[name] for name in sorted(self._entries)]
        mistakes = [self._trouble] if self._trouble else []
        mistakes += [entry.mistake for entry in entries if entry.mistake]
        listed = [entry.listed for entry in entries if entry.listed]
        uses = Counter(key for one in listed for key in keys_of(one.descriptor))
        good = []
        for one in listed:
            if any(uses[key] > 1 for key in keys_of(one.descriptor)):
                mistakes.append(
                    f"{path_of(self._folder, one.descriptor.name)}: another file has "
                    "one of its keys: `mesh peers remove` the false one"
                )
            else:
                good.append(one)
        directory = Directory(self._us.serves, good)
        mistakes += [_conflict(a, names) for a, names in directory.conflicts]
        return Snapshot(
            directory,
            {one.descriptor.name: one for one in good},
            {key: one for one in good for key in one.descriptor.link_keys},
            tuple(mistakes),
        )


def keys_of(descriptor: Descriptor) -> tuple[bytes, ...]:
    """All public keys that must be one node's alone."""
    return (descriptor.identity, *descriptor.link_keys)


def _conflict(address: str, names: Sequence[str]) -> str:
    who = " and ".join(name or "this node" for name in names)
    return f"{address}: {who} both serve it: its mail waits until one gives it up"


def _stamps(folder: Path) -> dict[str, _Stamp]:
    """How each file looks from outside; raises OSError."""
    stamps: dict[str, _Stamp] = {}
    with os.scandir(folder) as found:
        for item in found:
            if item.name.endswith(SUFFIX) and not item.name.startswith("."):
                with suppress(FileNotFoundError):
                    s = item.stat(follow_symlinks=False)
                    look = (
                        s.st_ino,
                        s.st_mode,
                        s.st_size,
                        s.st_mtime_ns,
                        s.st_ctime_ns,
                    )
                    stamps[item.name] = look
    return stamps


def _read_regular(path: Path) -> bytes:
    """A bounded read that neither follows a link nor waits for a FIFO."""
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
        file = os.open(path, flags)
    except OSError as error:
        if path.is_symlink():
            raise DescriptorError(
                "a symbolic link: put the file itself here"
            ) from error
        if error.errno == errno.ENXIO:  # a socket
            raise DescriptorError("not a regular file: remove it") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise DescriptorError("not a regular file: remove it")
        with os.fdopen(file, "rb", closefd=False) as stream:
            octets = stream.read(FILE_MAX_LEN + 1)
    finally:
        os.close(file)
    if len(octets) > FILE_MAX_LEN:
        raise DescriptorError("more than 256 KiB: this is no descriptor")
    return octets


def _parse_file_untrusted(octets: bytes, path: Path) -> Listed:
    text = octets.decode(errors="replace")
    found = parse_untrusted(text, str(path))
    if len(found) > 1:
        raise DescriptorError("more than one descriptor: use `mesh peers add`")
    descriptor = found[0]
    if path.name != descriptor.name + SUFFIX:
        raise DescriptorError(
            f"holds the descriptor of {descriptor.name}: use `mesh peers add`"
        )
    head = text.partition(BEGIN)[0].splitlines()
    words = (
        line.removeprefix(_CONFIRMED).strip()
        for line in head
        if line.startswith(_CONFIRMED)
    )
    return Listed(descriptor, frozenset(words) & frozenset(descriptor.serves))


def format_file(listed: Listed) -> str:
    """Write the text of a peer's file."""
    words = [f"{_CONFIRMED}{address}\n" for address in sorted(listed.confirmed)]
    return "".join(words) + armour(listed.descriptor)


def path_of(folder: Path, name: str) -> Path:
    """Where the file of a peer lies."""
    return folder / (name + SUFFIX)


def check_is_other(descriptor: Descriptor, us: Us) -> None:
    """Raise DescriptorError for a descriptor of ourselves or another network."""
    if descriptor.name == us.name:
        raise DescriptorError(
            f"{us.name} is this node's own name: a peer needs another"
        )
    if descriptor.network != us.network:
        raise DescriptorError(
            f"of the network {descriptor.network}: this node is of {us.network}"
        )
