# SPDX-License-Identifier: MIT
"""A new link key in the place of the old one, with nothing lost and nothing for peers to do.

    state/link.key         K1, from now on the newest
    state/link-before.key  K0, until OVERLAP_SECONDS are over
    state/link-next.key    K1 while it is made         both of no meaning: whatever a
    state/link-dead.key    K0 while it is destroyed    crash leaves there is destroyed
    state/rotation         [1, K1's public half, UNIX seconds of the change,
                           running seconds of the spool when a node took K1 up; -1: none]

Peers that have our old descriptor dial K0 and know K0; those that have the new one know
both.  So while two keys are in force a node answers under both, dials with K0 first and
says in its descriptor [K1, K0].  What each step leaves when it is the last:

    step                                             in force     after a crash
    L0  link.key is K0                               K0           as L0
    L1  link-next.key is K1                          K0           K1 is destroyed: L0
    L2  rotation speaks of K1                        K0           as L1: it counts for K1
    L3  link-before.key is K0, the same file         K0           as L1: one key, two names
    L4  link.key is K1: one rename                   K1, K0       as L4
        a node takes both up, then says so
    L5  14 days later: link-before.key is link-dead  K1           as L5
    L6  link-dead.key overwritten, fsynced           K1           as L5
    L0  link-dead.key gone                           K1           as L0

The folder is fsynced behind each change of a name.  The overlap is 14 days of the wall's
clock, which reaches everybody who looks now and then, and a whole day of running, so
that a clock that was wrong, or a node that was off, costs no peer its way.

Not overwritten: what a flash disk, a copy-on-write file system, a snapshot or a backup
keeps of K0.  With K0 alone nobody opens what was sent: only handshakes' outer boxes.
Identity keys do not change here: another identity is another node, by its signers' word.

Blocking.  Each change is made under the lock of state/descriptor.lock.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mesh.core.crypto import Entropy, Key, x25519_public
from mesh.core.descriptor import date
from mesh.core.encoding import decode_untrusted, encode
from mesh.errors import (
    CannotCreateError,
    EncodingError,
    IoError,
    TryLaterError,
)
from mesh.node.copies import sync_folder, write_at
from mesh.node.keys import (
    LINK,
    LINK_BEFORE,
    LOCK_NAME,
    key_path,
    line_of,
    load_link_keys,
)
from mesh.node.whole import locked
from mesh.node.whole import replace as replace_file

DAY_SECONDS: Final = 86_400
OVERLAP_SECONDS: Final = 14 * DAY_SECONDS
"""Both keys are in force for so long: a fortnight's holiday."""
OVERLAP_RUNNING_SECONDS: Final = DAY_SECONDS
"""And at least for so long of running: peers can have heard of it."""
AGAIN_SECONDS: Final = 30 * DAY_SECONDS
"""Between two changes: each is work for every peer, and says when its operator worked."""

_FORM: Final = 1
_NOBODY: Final = -1
_FILE_MAX_LEN: Final = 256
_TIME_MAX: Final = 253_402_300_799 - OVERLAP_SECONDS - AGAIN_SECONDS
"""UNIX seconds: later than this nobody has rotated, and dates could not be printed."""


@dataclass(frozen=True)
class Rotation:
    """The last change of the link key, as state/rotation has it."""

    public: bytes
    began: int
    taken_up: int = _NOBODY

    @property
    def until(self) -> int:
        """UNIX seconds of the overlap's end, if the node runs meanwhile."""
        return self.began + OVERLAP_SECONDS

    def is_over(self, now: float, running: int) -> bool:
        """Whether the key before may go."""
        ran = running - self.taken_up
        known = self.taken_up != _NOBODY
        return known and now >= self.until and ran >= OVERLAP_RUNNING_SECONDS


def rotate(
    state: Path, entropy: Entropy, now: float, *, again: bool = False
) -> Rotation:
    """Change the link key; `again`: also within 30 days of the last time.

    Raises TryLaterError while two keys are in force, or so soon after the last change;
    ConfigError, CannotCreateError, IoError.
    """
    with locked(state / LOCK_NAME), _of_the_disk(state):
        tidy(state)
        keys = load_link_keys(state)
        last = _read(state, keys[0])
        if len(keys) > 1:
            until = last.until if last else int(now) + OVERLAP_SECONDS
            raise TryLaterError(
                "the link key before this one still opens: "
                + (
                    f"try again after {date(until)}, when it is destroyed"
                    if until > now
                    else "run the node for a day, then it is destroyed"
                )
            )
        if last and not again and 0 <= now - last.began < AGAIN_SECONDS:
            raise TryLaterError(
                f"the link key changed at {date(last.began)}: wait until "
                f"{date(last.began + AGAIN_SECONDS)}, or say --again"
            )
        fresh = entropy.key()
        rotation = Rotation(x25519_public(fresh), int(now))
        _switch(state, fresh, rotation)
        for key in (fresh, *keys):
            key.wipe()
        return rotation


def _switch(state: Path, fresh: Key, rotation: Rotation) -> None:
    """L1 to L4."""
    link, before = key_path(state, LINK), key_path(state, LINK_BEFORE)
    coming = _next(state)
    fd = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)  # whatever the umask says
        write_at(fd, line_of(LINK, fresh), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    _write(state, rotation)  # this syncs the folder too
    os.link(link, before)
    sync_folder(state)
    coming.replace(link)
    sync_folder(state)


def look(state: Path) -> Rotation | None:
    """Give the last change of the link key, where it is known; ConfigError."""
    return _read(state, load_link_keys(state)[0])


def take_up(state: Path, now: float, running: int) -> Rotation | None:
    """Note that a node has taken up two keys; None: there is one.

    A rotation that nobody knows of any more begins now, and one of another spool's
    running time is taken up again.  The caller holds the lock; OSError, ConfigError.
    """
    keys = load_link_keys(state)
    if len(keys) == 1:
        return None
    rotation = _read(state, keys[0])
    if rotation is None:
        rotation = Rotation(x25519_public(keys[0]), int(now))
    if not 0 <= rotation.taken_up <= running:
        rotation = replace(rotation, taken_up=running)
        _write(state, rotation)
    return rotation


def end(state: Path) -> None:
    """Destroy the key before (L5 to L0); the caller holds the lock; OSError."""
    before = key_path(state, LINK_BEFORE)
    if before.exists():
        before.replace(_dead(state))
        sync_folder(state)
    tidy(state)


def tidy(state: Path) -> None:
    """Destroy what a crash left; the caller holds the lock.  OSError."""
    link, before = key_path(state, LINK), key_path(state, LINK_BEFORE)
    if _are_same(link, before) or _are_same(_dead(state), before):
        before.unlink()
        sync_folder(state)
    for path in (_next(state), _dead(state)):
        if os.path.lexists(path):
            if not _are_same(link, path):
                _overwrite(path)
            path.unlink()
            sync_folder(state)


def _overwrite(path: Path) -> None:
    """Put zeros where a key was, in place and on the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        write_at(fd, bytes(os.fstat(fd).st_size), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _of_the_disk(state: Path) -> Iterator[None]:
    """Say of what the disk refuses what an operator can do about it."""
    try:
        yield
    except PermissionError as error:
        raise CannotCreateError(
            f"{error.filename or state}: {error.strerror}"
        ) from error
    except OSError as error:
        raise IoError(f"{error.filename or state}: {error.strerror}") from error


def _are_same(one: Path, other: Path) -> bool:
    """Say whether two names are of one file: what is in force is never overwritten."""
    with suppress(OSError):
        return one.samefile(other)
    return False


def _next(state: Path) -> Path:
    return state / "link-next.key"


def _dead(state: Path) -> Path:
    return state / "link-dead.key"


def _path(state: Path) -> Path:
    return state / "rotation"


def _write(state: Path, rotation: Rotation) -> None:
    fields = (_FORM, rotation.public, rotation.began, rotation.taken_up)
    replace_file(_path(state), encode(fields))


def _open(path: str, flags: int) -> int:
    """Open without waiting for anybody at the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _read(state: Path, newest: Key) -> Rotation | None:
    """What is known of the change to this key; a damaged file says nothing."""
    try:
        with open(_path(state), "rb", opener=_open) as file:
            fields = decode_untrusted(
                file.read(_FILE_MAX_LEN + 1), max_len=_FILE_MAX_LEN
            )
    except (FileNotFoundError, EncodingError):
        return None
    match fields:
        case [int(form), bytes(public), int(began), int(taken_up)]:
            lawful = form == _FORM and 0 <= began <= _TIME_MAX and taken_up >= _NOBODY
            if lawful and public == x25519_public(newest):
                return Rotation(public, began, taken_up)
    return None
