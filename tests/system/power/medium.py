# SPDX-License-Identifier: MIT
"""A disk, made again from calls: what is on it for certain, and what may be.

    an inode      on the disk for certain               may be there
    a file        octets at its last fsync              each write since, whole, in part
                                                        (sectors of 512), or as a torn
                                                        sector; each length since
    a folder      names at its last fsync               each name since, made or removed

An fsync makes durable what had ended when it began.  A name is durable by an fsync of its
folder and by nothing else, a file's octets by an fsync of the file: stricter than any one
file system, and what POSIX promises.  A rename within a folder is one change, one
between folders two.  A sector that is being written may be neither old nor new, and then
what else lies in it is gone, too: its neighbours were durable before.

What a killed process was doing is done or not, and the files themselves say so: `settle`
compares them with what the calls made of them.  It also shows that no call was missed and
none taken in a wrong order; any difference is an error.  An unknown name is one, too.

    loss         of what is not durable
    nothing      none of it is there
    everything   all of it is there
    metadata     names and lengths, and zeros in the place of new octets
    data         octets where there was room, no new length, no new name
    tail         everything, but the last write of each file is zeros
    subset       each write, length and name is there or not, drawn
    torn         likewise, and one sector of each file that is being written is torn
    mixed        another one of these for each file
"""

import copy
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from tests.system.power.calls import NAMES, SYNCS, UNKNOWN, WRITES, Call

SECTOR: Final = 512
SOCKET: Final = ".sock"
"""Ends the names of our sockets, which are no files and not followed."""
_serial = itertools.count()
LOSSES: Final = (
    "nothing", "everything", "metadata", "data", "tail",
    "torn", "torn", "torn", "subset", "subset", "mixed", "mixed",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Change:
    """A write, or a new length, that no fsync has made durable."""

    begin: int
    end: int
    offset: int
    octets: bytes | None
    """None: the file's length becomes `offset`, or at least that."""
    at_least: bool = False


@dataclass(slots=True, eq=False)
class File:
    """An inode with octets."""

    durable: bytes = b""
    pending: list[Change] = field(default_factory=list)
    version: int = 0
    """Counts what became durable."""
    serial: int = field(default_factory=_serial.__next__)
    certain: "Remains | None" = None
    """What every cut leaves of it while nothing is pending, once asked for."""

    @property
    def octets(self) -> bytes:
        """What a reader sees now."""
        return replay(self.durable, self.pending)


@dataclass(slots=True, eq=False)
class Name:
    """A change of a folder that no fsync has made durable."""

    end: int
    removed: str
    added: str
    node: "File | Folder | None"


@dataclass(slots=True, eq=False)
class Folder:
    """An inode with names."""

    durable: "dict[str, File | Folder]" = field(default_factory=dict)
    live: "dict[str, File | Folder]" = field(default_factory=dict)
    pending: list[Name] = field(default_factory=list)


Tree = dict[str, "bytes | Tree"]
Key = tuple[object, ...]


def replay(content: bytes, changes: Iterable[Change]) -> bytes:
    """Make these changes."""
    octets = bytearray(content)
    for change in changes:
        if change.octets is None:
            if not change.at_least:
                del octets[change.offset :]
            octets.extend(bytes(max(0, change.offset - len(octets))))
        else:
            octets.extend(bytes(max(0, change.offset - len(octets))))
            end = change.offset + len(change.octets)
            octets[change.offset : end] = change.octets
    return bytes(octets)


class Medium:
    """The disk under one root; feed it calls in their order."""

    def __init__(self, root: str, tree: Tree) -> None:
        self._prefix = root + "/"
        self.root = _durable(tree)
        self.stamp = 0
        """Counts every change."""
        self._doubtful: list[Call] = []
        """Those that a kill ended."""

    # calls

    def feed(self, call: Call) -> bool:
        """Take a call up; True: something on this disk, or its promise, changed."""
        if not call.killed:
            return self._feed(call)
        changes = call.name in ("ftruncate", "fallocate", *WRITES, *NAMES)
        if call.name in ("openat", "open"):
            changes = not {"O_CREAT", "O_TRUNC"}.isdisjoint(_flags(call))
        if changes and self._is_ours(call):
            self._doubtful.append(call)
        return False

    def settle(self, files: Tree) -> bool:
        """Hear what the disk holds now that nobody writes; True: something changed.

        AssertionError when the calls, with or without those that a kill ended, do not
        make just this of it.
        """
        doubtful, self._doubtful = sorted(self._doubtful, key=_beginning), []
        for chosen in _choices(doubtful):
            trial = copy.deepcopy(self)
            try:
                trial._finish(chosen, files)
            except AssertionError:
                continue  # it would have failed
            if _live(trial.root) == files:
                self._finish(chosen, files)
                return bool(chosen)
        names = ", ".join(sorted(_differences(_live(self.root), files)))
        raise AssertionError(
            f"{self._prefix}: these are not as calls made them: {names}"
        )

    def _finish(self, chosen: list[Call], files: Tree) -> None:
        """Make these calls as if they had come to their ends."""
        for call in chosen:
            done = replace(call, killed=False)
            if call.name in WRITES:
                done.result = self._written(call, files)
            elif call.name in ("openat", "open"):
                done.opened = self._all_paths(call)[0]
            self._feed(done)

    def _written(self, call: Call, files: Tree) -> int:
        """Say how many octets of a write that a kill ended lie there."""
        octets = b"".join(call.texts)
        node = self._at(call.paths)
        there = _look_up(files, call.paths[0].removeprefix(self._prefix))
        if not isinstance(node, File) or not isinstance(there, bytes):
            return 0
        offset = self._offset(call, node)
        both = zip(octets, there[offset : offset + len(octets)], strict=False)
        return sum(
            1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], both)
        )

    def _is_ours(self, call: Call) -> bool:
        by_name = call.name in (*NAMES, "openat", "open")
        paths = self._all_paths(call) if by_name else call.paths
        return any(path.startswith(self._prefix) for path in paths)

    def _feed(self, call: Call) -> bool:
        if call.name in WRITES:
            return self._write(call)
        if call.name in SYNCS:
            return self._sync(call)
        if call.name in ("ftruncate", "fallocate"):
            return self._resize(call)
        if call.name in ("openat", "open"):
            return self._open(call)
        if call.name in NAMES:
            return self._rename(call)
        self._refuse(call)
        return False

    def _refuse(self, call: Call) -> None:
        """AssertionError for a way to this disk that nothing here can follow."""
        if call.name == "mmap":
            words = " ".join(call.words)
            writes = "MAP_SHARED" in words and "PROT_WRITE" in words
            assert not (writes and self._at(call.paths)), f"a map: {call.paths}"
        elif call.name in UNKNOWN:
            paths = self._all_paths(call) + call.paths
            if call.name == "sendfile":
                paths = call.paths[:1]  # to where; from where does not matter
            ours = any(path.startswith(self._prefix) for path in paths)
            assert not ours, f"{call.name} is not understood"

    def _at(self, paths: list[str]) -> "File | Folder | None":
        if not paths:
            return None
        if paths[0] + "/" == self._prefix:
            return self.root
        if not paths[0].startswith(self._prefix):
            return None
        found = self.find(paths[0])
        assert found is not None, f"{paths[0]} is not known"
        return found

    def find(self, path: str) -> "File | Folder | None":
        """Give what has this name now."""
        node: File | Folder | None = self.root
        for part in path.removeprefix(self._prefix).split("/"):
            if not isinstance(node, Folder):
                return None
            node = node.live.get(part)
        return node

    def _write(self, call: Call) -> bool:
        node = self._at(call.paths)
        if not isinstance(node, File):
            return False
        octets = b"".join(call.texts)[: call.result]
        offset = self._offset(call, node)
        node.pending.append(Change(call.begin, call.end, offset, octets))
        self.stamp += 1
        return True

    def _offset(self, call: Call, node: File) -> int:
        if call.name == "pwrite64":
            return int(call.words[-1])
        assert call.name == "write", f"{call.name} is not understood"
        # Ours begin at the beginning and go on: nobody seeks.
        return len(node.octets)

    def _resize(self, call: Call) -> bool:
        node = self._at(call.paths)
        if not isinstance(node, File):
            return False
        if call.name == "ftruncate":
            change = Change(call.begin, call.end, int(call.words[0]), None)
        else:
            mode, offset, length = map(int, call.words[:3])
            assert mode == 0, "a mode of fallocate that is not understood"
            change = Change(call.begin, call.end, offset + length, None, at_least=True)
        node.pending.append(change)
        self.stamp += 1
        return True

    def _sync(self, call: Call) -> bool:
        node = self._at(call.paths)
        if isinstance(node, File):
            done = [each for each in node.pending if each.end < call.begin]
            if done:
                node.durable = replay(node.durable, done)
                node.pending = [each for each in node.pending if each not in done]
                node.version += 1
                self.stamp += 1
        elif isinstance(node, Folder):
            for name in [each for each in node.pending if each.end < call.begin]:
                _rename(node.durable, name)
                node.pending.remove(name)
                self.stamp += 1
        return node is not None

    def _open(self, call: Call) -> bool:
        flags = _flags(call)
        path = call.opened
        if not path.startswith(self._prefix):
            return False
        node = self.find(path)
        if node is None and "O_CREAT" in flags:
            folder, name = self._place(path)
            self._name(folder, Name(call.end, "", name, File()))
            return True
        if isinstance(node, File) and "O_TRUNC" in flags:
            node.pending.append(Change(call.begin, call.end, 0, None))
            self.stamp += 1
            return True
        return False  # to read; also what `settle` is about to hear of

    def _all_paths(self, call: Call) -> list[str]:
        """The paths that a call names; relative ones are relative to a descriptor."""
        texts = [text.decode() for text in call.texts]
        folders = call.paths or [""] * len(texts)
        return [
            text if text.startswith("/") else f"{folder}/{text}"
            for folder, text in zip(folders * len(texts), texts, strict=False)
        ]

    def _place(self, path: str) -> tuple[Folder, str]:
        folder, _, name = path.rpartition("/")
        found = self.find(folder) if folder + "/" != self._prefix else self.root
        assert isinstance(found, Folder), path
        return found, name

    def _name(self, folder: Folder, change: Name) -> None:
        _rename(folder.live, change)
        folder.pending.append(change)
        self.stamp += 1

    def _rename(self, call: Call) -> bool:
        paths = self._all_paths(call)
        if not any(path.startswith(self._prefix) for path in paths):
            return False
        folder, name = self._place(paths[0])
        if call.name in ("mkdir", "mkdirat"):
            self._name(folder, Name(call.end, "", name, Folder()))
            return True
        node = folder.live.get(name)
        if node is None and name.endswith(SOCKET):
            return False
        assert node is not None, f"{paths[0]} is not known"
        if call.name in ("unlink", "unlinkat", "rmdir"):
            self._name(folder, Name(call.end, name, "", None))
            return True
        target, new = self._place(paths[1])
        if call.name in ("link", "linkat"):
            self._name(target, Name(call.end, "", new, node))
        elif target is folder:
            self._name(folder, Name(call.end, name, new, node))
        else:
            self._name(target, Name(call.end, "", new, node))
            self._name(folder, Name(call.end, name, "", None))
        return True

    @property
    def is_durable(self) -> bool:
        """Nothing waits for an fsync."""
        return all(not node.pending for node in _all(self.root))


def _all(folder: Folder) -> "Iterable[File | Folder]":
    yield folder
    for node in {
        id(n): n for n in (*folder.live.values(), *folder.durable.values())
    }.values():
        if isinstance(node, Folder):
            yield from _all(node)
        else:
            yield node


def _flags(call: Call) -> list[str]:
    return call.words[0].split("|") if call.words else []


def _beginning(call: Call) -> int:
    return call.begin


def _choices(doubtful: list[Call]) -> "Iterable[list[Call]]":
    """Give all ways in which some of these came to their ends."""
    for flags in itertools.product((False, True), repeat=len(doubtful)):
        yield list(itertools.compress(doubtful, flags))


def _live(folder: Folder) -> Tree:
    """Give what a reader sees now."""
    return {
        name: _live(node) if isinstance(node, Folder) else node.octets
        for name, node in folder.live.items()
    }


def _look_up(tree: Tree, path: str) -> "bytes | Tree | None":
    node: bytes | Tree | None = tree
    for part in path.split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _differences(ours: Tree, theirs: Tree) -> "Iterable[str]":
    for name in ours.keys() | theirs.keys():
        one, other = ours.get(name), theirs.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from (f"{name}/{each}" for each in _differences(one, other))
        elif one != other:
            yield name


def _durable(tree: Tree) -> Folder:
    names: dict[str, File | Folder] = {
        name: File(what) if isinstance(what, bytes) else _durable(what)
        for name, what in tree.items()
    }
    return Folder(dict(names), names)


def _rename(names: "dict[str, File | Folder]", change: Name) -> None:
    if change.removed:
        names.pop(change.removed, None)
    if change.added and change.node is not None:
        names[change.added] = change.node


# what a power cut leaves


@dataclass(slots=True)
class Left:
    """What a power cut left of a folder: files' octets are made when asked for."""

    names: "dict[str, Left | Remains]"

    def at(self, path: str) -> "Left | Remains | None":
        """Give what is under this path."""
        node: Left | Remains | None = self
        for part in path.split("/"):
            if not isinstance(node, Left):
                return None
            node = node.names.get(part)
        return node

    def key(self) -> Key:
        """Differ where the contents may differ."""
        return tuple((name, node.key()) for name, node in sorted(self.names.items()))


@dataclass(slots=True)
class Remains:
    """What a power cut left of a file."""

    file: File
    version: int
    what: Key
    make: Callable[[], bytes]

    def key(self) -> Key:
        """Differ where the octets may differ."""
        return (self.file.serial, self.version, self.what)

    def octets(self) -> bytes:
        """What lies there."""
        return self.make()


class Cut:
    """One power cut: decides for each inode what of it is there."""

    def __init__(self, loss: str, rng: random.Random) -> None:
        self._loss = loss
        self._rng = rng
        self._files: dict[int, Remains] = {}

    def of(self, folder: Folder) -> Left:
        """Cut the power under this folder."""
        names = dict(folder.durable)
        for change in self._chosen(folder.pending):
            _rename(names, change)
        return Left(
            {
                name: self.of(node) if isinstance(node, Folder) else self._left_of(node)
                for name, node in names.items()
            }
        )

    def _chosen(self, pending: list[Name]) -> list[Name]:
        loss = self._loss
        if not pending or loss in ("nothing", "data"):
            return []
        if loss in ("everything", "metadata", "tail"):
            return pending
        if self._rng.random() < 0.3:
            return pending[: self._rng.randint(0, len(pending))]
        return [each for each in pending if self._rng.random() < 0.5]

    def _left_of(self, file: File) -> Remains:
        """Say what of it is there; most of many letters are there for certain."""
        if file.pending:
            return self._file(file)
        if file.certain is None or file.certain.version != file.version:
            old = file.durable
            file.certain = Remains(file, file.version, (), lambda: old)
        return file.certain

    def _file(self, file: File) -> Remains:
        found = self._files.get(id(file))
        if found is None:
            found = self._files[id(file)] = self._draw(file)
        return found

    def _draw(self, file: File) -> Remains:
        old, pending = file.durable, list(file.pending)
        loss = self._loss
        if loss == "mixed":
            loss = self._rng.choice(LOSSES[:-2])
        if loss == "nothing":
            return Remains(file, file.version, (), lambda: old)
        if loss == "everything":
            return Remains(
                file, file.version, (pending[-1].begin,), lambda: replay(old, pending)
            )
        last = pending[-1].begin
        if loss == "metadata":
            return Remains(
                file, file.version, ("m", last), lambda: replay(old, _lengths(pending))
            )
        if loss == "data":
            return Remains(
                file, file.version, ("d", last),
                lambda: replay(old, _contents(pending))[: len(old)].ljust(len(old), b"\0"),
            )  # fmt: skip
        if loss == "tail":
            return Remains(
                file, file.version, ("t", last),
                lambda: replay(old, [*pending[:-1], *_lengths(pending[-1:])]),
            )  # fmt: skip
        return self._some(file, old, pending, torn=loss == "torn")

    def _some(
        self, file: File, old: bytes, pending: list[Change], *, torn: bool
    ) -> Remains:
        """Draw which changes are there, and in which sectors."""
        rng = self._rng
        if rng.random() < 0.4:
            chosen = pending[: rng.randint(0, len(pending))]
        else:
            chosen = [each for each in pending if rng.random() < 0.5]
        masks: list[tuple[Change, int | None]] = []
        for change in chosen:
            partly = change.octets is not None and rng.random() < 0.3
            masks.append((change, rng.getrandbits(32) if partly else None))
        written = [each for each in pending if each.octets]
        hit = None
        if torn and written:
            change = rng.choice(written)
            first = change.offset // SECTOR
            last = (change.offset + len(change.octets or b"") - 1) // SECTOR
            hit = rng.choice((first, last, rng.randint(first, last)))
        what = (hit, *((each.begin, mask) for each, mask in masks))

        def make() -> bytes:
            octets = bytearray(old)
            for change, mask in masks:
                octets[:] = _partly(bytes(octets), change, mask)
            if hit is not None:
                at = hit * SECTOR
                length = min(SECTOR, max(0, len(octets) - at))
                octets[at : at + length] = b"?" * length
            return bytes(octets)

        return Remains(file, file.version, what, make)


def _partly(octets: bytes, change: Change, mask: int | None) -> bytes:
    """Make a change, or the sectors of it that the mask's bits choose."""
    new = replay(octets, [change])
    if mask is None or change.octets is None:
        return new
    before = octets.ljust(len(new), b"\0")
    parts = bytearray(new)
    end = change.offset + len(change.octets)
    for number, at in enumerate(range(change.offset // SECTOR * SECTOR, end, SECTOR)):
        if not mask >> (number % 32) & 1:
            parts[at : at + SECTOR] = before[at : at + SECTOR]
    return bytes(parts)


def _lengths(changes: Iterable[Change]) -> list[Change]:
    """Only what these changes make of the length."""
    return [
        each
        if each.octets is None
        else Change(
            each.begin, each.end, each.offset + len(each.octets), None, at_least=True
        )
        for each in changes
    ]


def _contents(changes: Iterable[Change]) -> list[Change]:
    """Only the octets of these changes."""
    return [each for each in changes if each.octets is not None]
