# SPDX-License-Identifier: MIT
"""The peers that the operator listed: one file each in peers.d, or many in one.

    peers.d/NAME.mesh   Serves-Confirmed: ADDRESS      the operator's word, if any
                        -----BEGIN MESH DESCRIPTOR-----
                        ...                            the descriptor of NAME
    peers.d/ANY.mesh    two or more of these, each with the lines before it
    peers.d/.removed, .distrusted             who was taken off (removed.py)

Other names are ignored.  A file counts when it is a regular file (no link, no FIFO) of
bounded size with good descriptors only, of our network and not our own, and a single
one is of the name that the file bears; otherwise a line says what is wrong, and what
that file held before stays in force while it is there.  Our own descriptor among others
is passed over: a file of all nodes is good for each.

The same node in two files: the greater serial counts, and of one serial NAME.mesh.  Two
nodes with one key, or one name with two keys: neither counts, for either may lie.

With a registry (registry.py) the snapshot has its nodes too, joined as core/sources.py
says: what stands in peers.d wins.

Withheld from port 25, because a peer is or was lately to get it and not in clear:

    in .removed                   until its day; unreadable: what was known of it
    of a peer that vanished       awaited, 31 days: somebody took its file away by hand,
                                  or a start cannot read it; served.py remembers
    of those that do not count    awaited until one of them does
    taken off by the signers      31 days (registry.py)

`poll` costs one stat a file, and reads only what changed; but what changed may be ten
thousand descriptors, so with a registry it is a thread's work.  Readers take `snapshot`,
which never changes.  listing.py changes the folder.

Nothing here talks to a peer, and a descriptor that expired stays listed: whoever uses
one asks `find`, which looks at the time.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from mesh.core.descriptor import (
    BEGIN,
    END,
    Descriptor,
    armour,
    parse_untrusted,
)
from mesh.core.directory import Directory, Listed, Us, keys_of
from mesh.core.sources import Blend, Shared, blend
from mesh.errors import DescriptorError
from mesh.node.calm import calm_for
from mesh.node.registry import Registry
from mesh.node.removed import (
    DISTRUSTED_NAME,
    PASSING,
    REMOVED_NAME,
    WITHHELD_SECONDS,
    Note,
    read_distrusted,
    read_withheld,
)
from mesh.node.served import LISTED, read_served, write_served
from mesh.node.whole import look_of, read_regular_untrusted

SUFFIX: Final = ".mesh"
FILE_MAX_LEN: Final = 4_194_304
"""Octets: what the parser takes, some 1,000 common descriptors in one file."""
PEERS_MAX: Final = 4096
"""Files: four times the links that a node is built for."""

_UNDECIDED: Final = 2**62
"""UNIX time that does not come."""
LISTED_LEN: Final = 800
"""Octets of a common descriptor."""

_CONFIRMED: Final = "Serves-Confirmed: "
_Stamp: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """All peers at one time; `mistakes` has a line for each file that does not count.

    `by_hand` and `by_signers` are the names of those that peers.d lists, and the
    shared directory; `distrusted` of those that the directory lists to no effect.
    """

    directory: Directory
    by_name: Mapping[str, Listed] = field(default_factory=dict)
    by_link_key: Mapping[bytes, Listed] = field(default_factory=dict)
    mistakes: tuple[str, ...] = ()
    by_hand: frozenset[str] = frozenset()
    by_signers: frozenset[str] = frozenset()
    distrusted: frozenset[str] = frozenset()

    def find(self, link_key: bytes, now: float) -> Listed | None:
        """Give the peer of a link key whose descriptor holds at this UNIX time."""
        listed = self.by_link_key.get(link_key)
        return listed if listed and listed.descriptor.valid_at(now) else None


@dataclass
class _Entry:
    """One file: how it looked, what it held last, what is wrong with it now."""

    stamp: _Stamp
    listed: tuple[Listed, ...] = ()
    mistake: str | None = None


class Peers:
    """The folder, watched; call `poll` every second or so, from one thread."""

    def __init__(
        self,
        folder: Path,
        us: Us,
        registry: Registry | None = None,
        unix_time: Callable[[], float] = lambda: time.time(),
        served: Path | None = None,
    ) -> None:
        """`served` is where the node remembers what peers serve; else nobody does."""
        self._folder = folder
        self._us = us
        self._registry = registry
        self._unix_time = unix_time
        self._entries: dict[str, _Entry] = {}
        self._trouble: str | None = None
        self._removed = Note(folder / REMOVED_NAME, read_withheld)
        self._distrusted = Note(folder / DISTRUSTED_NAME, read_distrusted)
        self._shared = Shared()
        self._served_path = served
        self._served = read_served(served)
        latest = int(unix_time()) + WITHHELD_SECONDS
        self._left = {a: min(day, latest) for (_, a), day in self._served.items()}
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
        changed = stamps is not None and (
            self._read_changed(stamps) | self._removed.poll() | self._distrusted.poll()
        )
        changed = self._look_beside() or changed
        if changed or trouble != self._trouble:
            with calm_for(LISTED_LEN * len(self._shared.listed)):
                self._adopt()
            return True
        return False

    def _look_beside(self) -> bool:
        """Look at the shared directory."""
        if self._registry is None:
            return False
        self._registry.poll(self._unix_time())
        before, self._shared = self._shared, self._registry.shared
        return before is not self._shared

    def _adopt(self) -> None:
        """Take up what is there; who vanished leaves nothing to port 25.

        One snapshot is published, the whole one: this may be a thread's work, and what
        is accepted meanwhile goes by the snapshot that others see.
        """
        found = self._gather()
        by_name, now = found.by_name, int(self._unix_time())
        left = {
            who: min(until, now + WITHHELD_SECONDS)
            for who, until in self._served.items()
            if who[0] not in by_name and until > now
        }
        if left or self._left:
            self._left = {address: until for (_, address), until in left.items()}
            found = self._gather()
        self.snapshot = found
        served = left | {
            (name, address): LISTED
            for name, one in by_name.items()
            for address in one.counted
        }
        if served != self._served:
            self._served = served
            write_served(self._served_path, served)

    def _read_changed(self, stamps: dict[str, _Stamp]) -> bool:
        gone = self._entries.keys() - stamps.keys()
        for name in gone:
            del self._entries[name]
        changed = bool(gone)
        for name, stamp in stamps.items():
            entry = self._entries.get(name)
            if entry is None or entry.stamp != stamp:
                last = entry.listed if entry else ()
                self._entries[name] = self._read(name, stamp, last)
                changed = True
        return changed

    def _read(self, name: str, stamp: _Stamp, last: tuple[Listed, ...]) -> _Entry:
        path = self._folder / name
        try:
            found = read_file_untrusted(path)
            if len(found) > 1:
                found = [f for f in found if f.descriptor.name != self._us.name]
            for one in found:
                check_is_other(one.descriptor, self._us)
        except DescriptorError as error:
            text = str(error)
            shown = text if text.startswith(str(path)) else f"{path}: {text}"
            return _Entry(stamp, last, shown)
        except FileNotFoundError:  # removed since we looked: the next poll sees it
            return _Entry((), last)
        except OSError as error:
            mistake = f"{path}: {error.strerror}: make it readable"
            # The next poll reads it.
            return _Entry(() if error.errno in PASSING else stamp, last, mistake)
        return _Entry(stamp, tuple(found))

    def _gather(self) -> Snapshot:
        notes = self._trouble, self._removed.mistake, self._distrusted.mistake
        mistakes = [m for m in notes if m]
        latest: dict[tuple[str, bytes], tuple[str, Listed]] = {}
        for file, entry in sorted(self._entries.items(), key=_own_name_first):
            if entry.mistake:
                mistakes.append(entry.mistake)
            for one in entry.listed:
                who = (one.descriptor.name, one.descriptor.identity)
                other = latest.get(who)
                if other and other[1].descriptor.serial >= one.descriptor.serial:
                    continue
                latest[who] = file, one
        mistakes.sort()
        uses = Counter(
            key for who, (_, one) in latest.items() for key in _claims(who[0], one)
        )
        good: list[Listed] = []
        contested: set[object] = set()
        withheld = {**self._shared.withheld, **self._removed.value}
        awaited = {a: day for a, day in self._left.items() if a not in withheld}
        for (name, _), (file, one) in sorted(latest.items(), key=lambda item: item[0]):
            if any(uses[key] > 1 for key in _claims(name, one)):
                contested.update(_claims(name, one))
                mistakes.append(
                    f"{self._folder / file}: {name}: another descriptor has its name or "
                    "one of its keys: `mesh peers remove` the false one"
                )
                awaited |= dict.fromkeys(one.counted, _UNDECIDED)
            else:
                good.append(one)
        if self._registry:
            self._registry.know({o.descriptor.identity: o.descriptor for o in good})
        found = blend(self._us, good, self._shared, self._distrusted.value, contested)
        directory = Directory(self._us.serves, found.listed, withheld, awaited)
        return self._snapshot(found, directory, mistakes)

    def _snapshot(
        self, found: Blend, directory: Directory, mistakes: list[str]
    ) -> Snapshot:
        mistakes += found.mistakes
        mistakes += [_conflict(a, names) for a, names in directory.conflicts]
        return Snapshot(
            directory,
            {one.descriptor.name: one for one in found.listed},
            {key: one for one in found.listed for key in one.descriptor.link_keys},
            tuple(mistakes),
            found.by_hand,
            found.by_signers,
            frozenset(
                one.descriptor.name
                for one in self._shared.listed
                if one.descriptor.identity in self._distrusted.value
            ),
        )


def _claims(name: str, listed: Listed) -> tuple[object, ...]:
    """What must be one node's alone: its keys and its name."""
    return (name, *keys_of(listed.descriptor))


def _own_name_first(item: tuple[str, _Entry]) -> tuple[bool, str]:
    """Files with one descriptor, which bear its name, before those with many."""
    return len(item[1].listed) != 1, item[0]


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
                    stamps[item.name] = look_of(item.stat(follow_symlinks=False))
    return stamps


def read_file_untrusted(path: Path) -> list[Listed]:
    """All that one file of the folder lists; raises DescriptorError or OSError."""
    octets = read_regular_untrusted(path, FILE_MAX_LEN)
    return _parse_file_untrusted(octets, path)


def _parse_file_untrusted(octets: bytes, path: Path) -> list[Listed]:
    text = octets.decode(errors="replace")
    found = parse_untrusted(text, str(path))
    if len(found) == 1 and path.name != found[0].name + SUFFIX:
        raise DescriptorError(
            f"holds the descriptor of {found[0].name}: use `mesh peers add`"
        )
    listed: list[Listed] = []
    words: set[str] = set()
    inside = False
    for raw in text.split("\n"):  # cut as the parser does: one END a descriptor
        line = raw.strip(" \t\r")
        inside = (inside or line == BEGIN) and line != END
        if line == END:
            one = found[len(listed)]
            listed.append(Listed(one, frozenset(words) & frozenset(one.serves)))
            words.clear()
        elif not inside and raw.startswith(_CONFIRMED):
            words.add(raw.removeprefix(_CONFIRMED).strip())
    return listed


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
