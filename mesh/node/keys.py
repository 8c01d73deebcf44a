# SPDX-License-Identifier: MIT
"""The node's own keys on disk: files of one readable line, 0600.

    state/identity.key     Ed25519 seed       the node itself: back it up
    state/link.key         X25519 private key the gate; rotation.py makes a new one
    state/link-before.key  the last one of these, while peers learn of the new one
    state/spool.key        32 octets          what is in the spool opens under it
    state/descriptor.lock  held (flock) while any of our keys, or what we say, changes

    mesh identity key 1 <base64 of key[32] and BLAKE2b-256(line's words, key)[:4]>

The check octets find a slip in a line typed from paper and a file that was cut off.
A file appears whole or not at all, and is never written over: a key that is there
already is kept (a restored backup).  Each mistake is a ConfigError with the file's
name and what to do, a disk that fails an IoError; the octets of a key are in no message.

Identity and spool key never change here.  Another identity is another node: who signs
a directory says who takes its place.
"""

import base64
import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from mesh.core.crypto import KEY_LEN, Entropy, Key, hash256, signing_key
from mesh.errors import CannotCreateError, ConfigError, IoError, NotPermittedError

IDENTITY: Final = "identity"
LINK: Final = "link"
SPOOL: Final = "spool"
LINK_BEFORE: Final = "link-before"
LOCK_NAME: Final = "descriptor.lock"
"""Whoever changes our keys, or what we say of ourselves, holds this file's lock."""
KINDS: Final = (IDENTITY, LINK, SPOOL)

# Octets: enough to find any slip of one or two letters, 1 in 2**32 of others.
_CHECK_LEN: Final = 4
# Octets: a line is 71 at most; whatever is longer is no key.
_FILE_MAX_LEN: Final = 1024
_NOT_ITS_FAULT: Final = (
    errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
)  # fmt: skip


def create_missing(state: Path, entropy: Entropy) -> list[str]:
    """Make the keys that are not there yet; returns the kinds that were kept.

    Raises ConfigError when one that is there is no key, CannotCreateError or IoError
    when the disk refuses.
    """
    kept = []
    for kind in KINDS:
        path = key_path(state, kind)
        if path.exists():
            _load(path, kind)
            kept.append(kind)
        else:
            _create(path, line_of(kind, entropy.key()))
    return kept


def load_identity(state: Path) -> Key:
    """Give the expanded key that signs (64 octets); ConfigError."""
    return signing_key(_load(key_path(state, IDENTITY), IDENTITY))


def load_link_keys(state: Path) -> list[Key]:
    """Give our X25519 keys, one or two, newest first; ConfigError.

    A caller that does not hold the lock may see one where there are two.
    """
    keys = [_load(key_path(state, LINK), LINK)]
    before = key_path(state, LINK_BEFORE)
    if os.path.lexists(before):
        keys.append(_load(before, LINK))
        if keys[0] == keys[1]:  # a change of keys that was cut off (rotation.py)
            keys.pop().wipe()
    return keys


def load_spool_key(state: Path) -> Key:
    """Give the key that the spool's own keys are sealed under; ConfigError."""
    return _load(key_path(state, SPOOL), SPOOL)


def check_owner(state: Path) -> None:
    """Raise NotPermittedError for whoever would leave files that the node cannot read.

    A state directory that is not there is somebody else's error.
    """
    if state.exists() and state.stat().st_uid != os.geteuid():
        raise NotPermittedError(f"{state}: another user's: be the node's own user")


def key_path(state: Path, kind: str) -> Path:
    """Where a kind of key lies."""
    return state / f"{kind}.key"


def line_of(kind: str, key: Key) -> bytes:
    """Write the line of a key's file."""
    secret = key.unsafe_bytes()
    return _words(kind) + base64.b64encode(secret + _check(kind, secret)) + b"\n"


def _words(kind: str) -> bytes:
    return f"mesh {kind} key 1 ".encode()


def _check(kind: str, secret: bytes) -> bytes:
    return hash256(_words(kind), secret)[:_CHECK_LEN]


def _create(path: Path, line: bytes) -> None:
    """Write aside, then link: whole or not at all, and never over another's."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask says
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # somebody else was first: theirs counts
            os.link(aside, path)
        sync_directory(path.parent)
    except PermissionError as error:
        raise CannotCreateError(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise IoError(f"{path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(path: Path, kind: str) -> Key:
    line = _read(path)
    words = _words(kind)
    if not line.startswith(words):
        raise ConfigError(f"{path}:1: no {kind} key: restore it from its backup")
    try:
        octets = base64.b64decode(line[len(words) :].strip(), validate=True)
    except ValueError as error:
        raise ConfigError(
            f"{path}:1: damaged or mistyped: restore it from its backup"
        ) from error
    secret, check = octets[:KEY_LEN], octets[KEY_LEN:]
    if len(secret) != KEY_LEN or check != _check(kind, secret):
        raise ConfigError(f"{path}:1: damaged or mistyped: restore it from its backup")
    return Key.from_bytes(secret)


def _read(path: Path) -> bytes:
    """The whole of a regular file that nobody else may read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: not there: restore it from its backup, or `mesh init` a new node"
        ) from error
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise IoError(f"{path}: {error.strerror}") from error
        raise ConfigError(f"{path}: {error.strerror}: make it readable") from error
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path}: not a regular file: put the key file there")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise ConfigError(f"{path}: mode {mode:04o}: others may read it: chmod 600")
        return os.read(file, _FILE_MAX_LEN)
    finally:
        os.close(file)
