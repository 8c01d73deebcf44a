# SPDX-License-Identifier: MIT
"""Changing the list of peers: all or none, one command at a time.

    peers.d/.lock            held (flock) while a command changes the folder
    peers.d/.NAME.mesh.new   written and synced, before it takes its name; as all here
                             it is given to the owner of the folder, the node's user
    peers.d/.removed         what removed peers served (removed.py), written before they go
    peers.d/.distrusted      whom the shared directory goes on listing, written likewise

`add` checks all descriptors, each against those before it, and writes all aside before
the first takes its name.  A crash between two renames leaves some added, each whole.
The node may run or not: it watches the folder (peers.py).

`remove` of a node that stands in a file with others gives each of the others a file of
its own first.  Whom the shared directory lists is distrusted here from then on, until he
is added by hand.

A claim to an address that we or another peer serve is refused even where it would not
count, since no honest peer makes it.  A name belongs to one identity until it is removed.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mesh.core.descriptor import Descriptor, fingerprint
from mesh.core.directory import Directory, Listed, Us, keys_of
from mesh.core.names import check_name
from mesh.errors import CannotCreateError, DescriptorError, IoError, NoInputError
from mesh.node.keys import sync_directory
from mesh.node.peers import (
    SUFFIX,
    Peers,
    check_is_other,
    format_file,
    path_of,
    read_file_untrusted,
)
from mesh.node.removed import (
    DISTRUSTED_NAME,
    REMOVED_NAME,
    day,
    read_distrusted,
    withhold,
    write_distrusted,
)
from mesh.node.whole import locked, replace_all


@dataclass(frozen=True)
class Added:
    """What became of one descriptor: `change` is added, updated or unchanged."""

    listed: Listed
    change: str


def add(
    folder: Path,
    us: Us,
    offered: Sequence[tuple[str, Descriptor]],
    serves: Collection[str],
    now: float,
) -> list[Added]:
    """List the offered (where, descriptor) pairs, all or none.

    `serves` are canonical addresses that the operator confirms.  Raises
    DescriptorError with a line a mistake, CannotCreateError, IoError.
    """
    with _locked(folder):
        peers = Peers(folder, us)
        peers.poll()
        known = dict(peers.snapshot.by_name)
        added: dict[str, Added] = {}
        mistakes = _unclaimed(offered, serves)
        for where, descriptor in offered:
            found = list(_objections(descriptor, known, us, now))
            mistakes += [f"{where}: {descriptor.name}: {what}" for what in found]
            if not found:
                one = _join(known.get(descriptor.name), descriptor, serves)
                known[descriptor.name] = one.listed
                added.setdefault(descriptor.name, one)
                if one.change != "unchanged":
                    added[descriptor.name] = one
        if mistakes:
            raise DescriptorError("\n".join(mistakes))
        _write(folder, [o.listed for o in added.values() if o.change != "unchanged"])
        try:
            _trust(folder, (one.listed.descriptor for one in added.values()))
        except OSError as error:
            raise IoError(f"{folder}: {error.strerror}") from error
    return list(added.values())


def remove(
    folder: Path,
    name: str,
    own: str = "",
    now: float = 0.0,
    shared: Listed | None = None,
) -> None:
    """Take a peer off the list; NoInputError when it is not on it.

    `own` is this node's name, which in a file with others stands for nobody, `shared`
    the peer as the shared directory lists it.  What the peer served is withheld from
    port 25 for a month from `now` on.
    """
    try:
        path = path_of(folder, check_name(name))
    except ValueError as error:
        raise NoInputError(str(error)) from error
    with _locked(folder):
        try:
            files = list(_among_others(folder, name))
            if not (files or shared or path.is_symlink() or path.exists()):
                raise NoInputError(
                    f"{path}: not there: `mesh peers list` shows who is listed"
                )
            with suppress(DescriptorError, OSError):
                files.append((path, read_file_untrusted(path)))
            listed = [one for _, found in files for one in found]
            served = [
                address
                for one in (*listed, *([shared] if shared else ()))
                if one.descriptor.name == name
                for address in one.counted
            ]
            withhold(folder / REMOVED_NAME, served, now)
            if shared:
                _distrust(folder, shared.descriptor)
            _write(folder, _latest(folder, files, {name, own}))
            for each in (*(file for file, _ in files), path):
                each.unlink(missing_ok=True)
            sync_directory(folder)
        except OSError as error:
            raise IoError(f"{error.filename or path}: {error.strerror}") from error


def _distrust(folder: Path, descriptor: Descriptor) -> None:
    """Write down that the shared directory's word does not count for this one."""
    path = folder / DISTRUSTED_NAME
    distrusted = read_distrusted(path)
    write_distrusted(path, distrusted | {descriptor.identity: descriptor.name})


def _trust(folder: Path, descriptors: Iterable[Descriptor]) -> None:
    """Forget it of these."""
    path = folder / DISTRUSTED_NAME
    distrusted = read_distrusted(path)
    again = {descriptor.identity for descriptor in descriptors} & distrusted.keys()
    if again:
        write_distrusted(
            path, {who: n for who, n in distrusted.items() if who not in again}
        )


def _among_others(folder: Path, name: str) -> Iterator[tuple[Path, list[Listed]]]:
    """Good files that list this node among others."""
    for file in sorted(folder.glob(f"[!.]*{SUFFIX}")):
        with suppress(DescriptorError, OSError):
            found = read_file_untrusted(file)
            if len(found) > 1 and any(one.descriptor.name == name for one in found):
                yield file, found


def _latest(
    folder: Path, shared: Sequence[tuple[Path, list[Listed]]], left_out: set[str]
) -> list[Listed]:
    """What is to be written so that the others stay listed without these files."""
    kept: dict[str, Listed] = {}
    written: set[str] = set()
    for one in (one for _, found in shared for one in found):
        name = one.descriptor.name
        if name in left_out:
            continue
        if name not in kept:
            with suppress(DescriptorError, OSError):
                kept[name] = read_file_untrusted(path_of(folder, name))[0]
        old = kept.get(name)
        if old is None or old.descriptor.serial < one.descriptor.serial:
            kept[name] = one
            written.add(name)
    return [kept[name] for name in sorted(written)]


def _unclaimed(
    offered: Sequence[tuple[str, Descriptor]], serves: Collection[str]
) -> list[str]:
    claimed = {address for _, descriptor in offered for address in descriptor.serves}
    return [
        f"--serves {address}: no FILE claims it: compare its Serves: lines"
        for address in sorted(set(serves) - claimed)
    ]


def _join(old: Listed | None, new: Descriptor, serves: Collection[str]) -> Added:
    """Keep what was confirmed before of the addresses that are still claimed."""
    before = old.confirmed if old else frozenset()
    listed = Listed(new, (before | frozenset(serves)) & frozenset(new.serves))
    if old is None:
        return Added(listed, "added")
    return Added(listed, "unchanged" if listed == old else "updated")


def _objections(
    descriptor: Descriptor, known: Mapping[str, Listed], us: Us, now: float
) -> Iterator[str]:
    """Say everything that speaks against listing a good descriptor."""
    try:
        check_is_other(descriptor, us)
    except DescriptorError as error:
        yield str(error)
        return
    if now > descriptor.not_after:
        yield f"expired {day(descriptor.not_after)}: ask for a fresh `mesh export`"
    if now < descriptor.not_before:
        yield f"valid from {day(descriptor.not_before)} only: compare the clocks"
    old = known.get(descriptor.name)
    if old:
        yield from _contradictions(old.descriptor, descriptor)
    others = [one for name, one in known.items() if name != descriptor.name]
    for one in others:
        if set(keys_of(one.descriptor)) & set(keys_of(descriptor)):
            name = one.descriptor.name
            yield f"{name} has one of its keys: `mesh peers remove {name}` first"
    directory = Directory(us.serves, others)
    for address in descriptor.serves:
        for owner in sorted(directory.owners(address)):
            yield f"{address}: {owner or 'this node'} serves it: one must give it up"


def _contradictions(old: Descriptor, new: Descriptor) -> Iterator[str]:
    if new.identity != old.identity:
        yield (
            f"another key ({fingerprint(new.identity)}) than the one listed "
            f"({fingerprint(old.identity)}): when its operator says so, "
            f"`mesh peers remove {old.name}` first"
        )
    elif new.serial < old.serial:
        yield f"serial {new.serial} is older than {old.serial}: ask for the latest"
    elif new.serial == old.serial and new != old:
        yield f"two statements with serial {new.serial}: ask for a fresh `mesh export`"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One command at a time."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotCreateError(f"{folder}: {error.strerror}") from error
    with locked(folder / ".lock"):
        yield


def _write(folder: Path, changed: Sequence[Listed]) -> None:
    """Write all aside, then give all their names."""
    files = {
        path_of(folder, listed.descriptor.name): format_file(listed).encode()
        for listed in changed
    }
    try:
        replace_all(files)
    except (IsADirectoryError, PermissionError) as error:
        raise CannotCreateError(f"{folder}: {error.strerror}") from error
    except OSError as error:
        raise IoError(f"{folder}: {error.strerror}") from error
