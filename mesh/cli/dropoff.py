# SPDX-License-Identifier: MIT
"""Leaving a message for a node that is down: sealed in its drop folder, on the disk.

    key.NNNN opened and locked (flock)     nobody else seals to it, nor is it taken away
    temp.ID  made, filled, fsynced         its time set to 1970
    mail.ID  linked to it                  here it becomes the node's; never over another
    key.NNNN looked for once more          gone: the node would not open this, another key
    folder fsynced, temp.ID removed        now exit 0 is true

    a crash            leaves behind
    before the link    temp.ID: the node removes it once the key's lock is free
    after it           mail.ID: delivered, whether the caller heard of it or not

Several files, for many recipients, are all made before the first one is linked: what
fails before that leaves nothing, what fails later is taken back.

A key counts only when the folder's owner made it and it has no second name: who may
write here must not be able to have our mail sealed to a key of theirs, or to one that
is no more.  What else lies here is passed over, whatever it is.  With mode 3770 (setgid, sticky) and a group
of its own, remailers can leave mail and cannot touch each other's; a message's file may
be read by whoever may enter the folder, and only the node can open it.

Formats: core/drop.py.  The node's half: node/drop.py.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from mesh.core.crypto import SystemEntropy
from mesh.core.drop import (
    KEY_FILE_LEN,
    SLOTS,
    Mail,
    OneTime,
    check_mail,
    key_name,
    mail_name,
    parse_key_untrusted,
    seal_mail,
    temp_name,
)
from mesh.errors import EncodingError, MessageError, RemoteProtocolError, TryLaterError

MAIL_MODE: Final = 0o644
"""The node may be another user and in no group of ours; the folder keeps others out."""
_KEY_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAIL_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Draft(NamedTuple):
    """A message that is on the disk under its temp name, and its key, locked."""

    key: int
    one: OneTime
    mail: Mail


def drop(folder: str, mails: Sequence[Mail]) -> None:
    """Store these messages, all or none; returns when they are on the disk.

    MessageError for what the node would not take, TryLaterError when they cannot be
    stored.
    """
    try:
        for mail in mails:
            check_mail(mail)
    except EncodingError as error:
        raise MessageError(f"the node would not take it: {error}") from error
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise TryLaterError(
            f"the node does not run, and {folder}: {error.strerror}"
        ) from error
    try:
        _drop_all(place, mails)
    except OSError as error:
        raise TryLaterError(f"{folder}: {error.strerror}: try later") from error
    except _NoKeyError:
        raise TryLaterError(
            f"the node does not run, and no key is left in {folder}"
        ) from None
    finally:
        os.close(place)


class _NoKeyError(Exception):
    """Every slot was tried."""


def _drop_all(place: int, mails: Sequence[Mail]) -> None:
    first = int.from_bytes(os.urandom(4), "big")
    slots = iter([(first + step) % SLOTS for step in range(SLOTS)])
    owner = os.fstat(place).st_uid
    drafts: list[Draft] = []
    linked: list[str] = []
    try:
        for mail in mails:
            drafts.append(  # noqa: PERF401  # each is known when the next one fails
                _write(place, slots, owner, mail)
            )
        for draft in drafts:
            if not _link(place, draft):  # somebody was in the way
                drafts.append(_write(place, slots, owner, draft.mail))
                continue
            linked.append(mail_name(draft.one.id))
        os.fsync(place)
    except BaseException:
        _unlink(place, linked)
        raise
    finally:
        _unlink(place, [temp_name(draft.one.id) for draft in drafts])
        for draft in drafts:
            os.close(draft.key)  # and with it goes the lock


def _write(place: int, slots: Iterator[int], owner: int, mail: Mail) -> Draft:
    """Seal it to the next key that is to be had, and sync it; _NoKeyError."""
    for slot in slots:
        try:
            key = os.open(key_name(slot), _KEY_FLAGS, dir_fd=place)
        except OSError:
            continue
        try:
            one = _claim(place, key, owner)
            if one is not None and _write_to(place, one, mail):
                return Draft(key, one, mail)
        except BaseException:
            os.close(key)
            raise
        os.close(key)
    raise _NoKeyError


def _claim(place: int, key: int, owner: int) -> OneTime | None:
    """Lock a key for as long as its file is open; None: not ours to use."""
    try:
        found = os.fstat(key)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (owner, 0):
            return None
        fcntl.flock(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
        one = parse_key_untrusted(os.read(key, KEY_FILE_LEN + 1))
        return one if _is_free(place, key, one) else None
    except (OSError, EncodingError):
        return None


def _lies_there(key: int) -> bool:
    """Say whether a key has the one name that the node gave it."""
    return os.fstat(key).st_nlink == 1


def _is_free(place: int, key: int, one: OneTime) -> bool:
    """Say whether the key lies there still, and no message under it."""
    if not _lies_there(key):
        return False
    for name in (mail_name(one.id), temp_name(one.id)):
        with suppress(FileNotFoundError):
            os.lstat(name, dir_fd=place)
            return False
    return True


def _write_to(place: int, one: OneTime, mail: Mail) -> bool:
    """Write and sync the temp file; False when this key is not to be used."""
    try:
        octets = seal_mail(one, mail, SystemEntropy())
    except RemoteProtocolError:
        return False  # a point of low order: no key of the node's
    try:
        file = os.open(temp_name(one.id), _MAIL_FLAGS, 0o600, dir_fd=place)
    except FileExistsError:
        return False
    try:
        _fill(file, octets)
    except BaseException:
        _unlink(place, [temp_name(one.id)])
        raise
    finally:
        os.close(file)
    return True


def _link(place: int, draft: Draft) -> bool:
    """Give it its name; False when somebody was in the way."""
    temp, final = temp_name(draft.one.id), mail_name(draft.one.id)
    try:
        os.link(temp, final, src_dir_fd=place, dst_dir_fd=place)
    except (FileExistsError, FileNotFoundError):
        return False
    if _lies_there(draft.key):
        return True
    _unlink(place, [final])  # somebody emptied the folder under us
    return False


def _unlink(place: int, names: Sequence[str]) -> None:
    for name in names:
        with suppress(OSError):
            os.unlink(name, dir_fd=place)


def _fill(file: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fchmod(file, MAIL_MODE)
    os.utime(file, (0, 0))
    os.fsync(file)
