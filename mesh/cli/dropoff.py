# SPDX-License-Identifier: MIT
"""Leaving a message for a node that is down: sealed in its drop folder, on the disk.

    key.NNNN opened and locked (flock)     nobody else seals to it, nor is it taken away
    temp.ID  made, filled, fsynced         its time set to 1970
    mail.ID  linked to it                  here it becomes the node's; never over another
    folder fsynced, temp.ID removed        now exit 0 is true

    a crash            leaves behind
    before the link    temp.ID: the node removes it once the key's lock is free
    after it           mail.ID: delivered, whether the caller heard of it or not

A key counts only when the folder's owner made it: who may write here must not be able
to have our mail sealed to a key of theirs.  With mode 3770 (setgid, sticky) and a group
of its own, remailers can leave mail and cannot touch each other's; a message's file may
be read by whoever may enter the folder, and only the node can open it.

Formats: core/drop.py.  The node's half: node/drop.py.
"""

import fcntl
import os
import stat
from contextlib import suppress
from typing import Final

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


def drop(folder: str, mail: Mail) -> None:
    """Store one message; returns when it is on the disk.

    MessageError for what the node would not take, TryLaterError when it cannot be
    stored.
    """
    try:
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
        owner = os.fstat(place).st_uid
        first = int.from_bytes(os.urandom(4), "big")
        for step in range(SLOTS):
            if _drop_at(place, (first + step) % SLOTS, owner, mail):
                return
    except OSError as error:
        raise TryLaterError(f"{folder}: {error.strerror}: try later") from error
    finally:
        os.close(place)
    raise TryLaterError(f"the node does not run, and no key is left in {folder}")


def _drop_at(place: int, slot: int, owner: int, mail: Mail) -> bool:
    """Store it under this slot's key; False when that cannot be had."""
    try:
        key = os.open(key_name(slot), _KEY_FLAGS, dir_fd=place)
    except OSError:
        return False
    try:
        one = _claim(place, key, owner)
        return one is not None and _publish(place, key, one, mail)
    finally:
        os.close(key)  # and with it goes the lock


def _claim(place: int, key: int, owner: int) -> OneTime | None:
    """Lock a key for as long as its file is open; None: not ours to use."""
    found = os.fstat(key)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (owner, 0):
        return None
    try:
        fcntl.flock(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
        one = parse_key_untrusted(os.read(key, KEY_FILE_LEN + 1))
    except (BlockingIOError, EncodingError):
        return None
    return one if _is_free(place, key, one) else None


def _is_free(place: int, key: int, one: OneTime) -> bool:
    """Say whether the key lies there still, and no message under it."""
    if not os.fstat(key).st_nlink:
        return False
    for name in (mail_name(one.id), temp_name(one.id)):
        with suppress(FileNotFoundError):
            os.lstat(name, dir_fd=place)
            return False
    return True


def _publish(place: int, key: int, one: OneTime, mail: Mail) -> bool:
    """Write, sync, link, sync; False when somebody was in the way."""
    try:
        octets = seal_mail(one, mail, SystemEntropy())
    except RemoteProtocolError:
        return False  # a point of low order: no key of the node's
    temp, final = temp_name(one.id), mail_name(one.id)
    try:
        file = os.open(temp, _MAIL_FLAGS, 0o600, dir_fd=place)
    except FileExistsError:
        return False
    try:
        _fill(file, octets)
        os.link(temp, final, src_dir_fd=place, dst_dir_fd=place)
        if not os.fstat(key).st_nlink:  # somebody emptied the folder under us
            os.unlink(final, dir_fd=place)
            return False
        os.fsync(place)
    except (FileExistsError, FileNotFoundError):
        return False
    finally:
        os.close(file)
        with suppress(OSError):
            os.unlink(temp, dir_fd=place)
    return True


def _fill(file: int, octets: bytes) -> None:
    rest = memoryview(octets)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fchmod(file, MAIL_MODE)
    os.utime(file, (0, 0))
    os.fsync(file)
