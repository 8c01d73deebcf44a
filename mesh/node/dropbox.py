# SPDX-License-Identifier: MIT
"""The drop folder as the node sees it: only names that it gave out itself.

    key.NNNN   what `publish` put there        mail.ID, temp.ID   for the IDs of our keys

Nothing is listed: whatever else lies there, in whatever number, is never looked at, and
nothing but these names is ever removed or renamed.  What is found under one of them is
opened without following a link and without waiting, must be a regular file of one of
the lengths that messages have, belong to somebody who may submit, and be kept from
nobody, as mesh-sendmail leaves it:

    Found.MAIL    its octets             Found.JUNK    nothing of ours: may be removed
    Found.LATER   the disk or the machine keeps us from reading it: stays

A key's file is taken away under its lock, so not from a sender who is sealing to it
(cli/dropoff.py), or by force from one who will not let go: a sender looks once more
whether its key lies there when its message does.  A folder that stands in the way of a
name, and is not empty, is renamed aside.  Whoever may leave mail here may use up all keys.

Blocking: for a worker thread.
"""

import enum
import errno
import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from mesh.core.drop import (
    KEY_FILE_LEN,
    MAIL_LEN_MIN,
    OneTime,
    key_name,
    mail_name,
    pack_key,
    temp_name,
)
from mesh.errors import CannotCreateError, IoError
from mesh.node.copies import sync_folder

KEY_MODE: Final = 0o644
"""A public key; who gets at it is the folder's mode's matter."""
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_NO_FILE: Final = (errno.ELOOP, errno.ENXIO)
"""What opening a link or a socket says; all else may be our own trouble."""
_READABLE: Final = 0o444
"""What the mode of a message lets everybody do; the folder keeps others out."""
_ACL: Final = "system.posix_acl_access"


class Found(enum.Enum):
    """What lies under the name of a message."""

    MAIL = "a message, perhaps"
    JUNK = "nothing that we or a sender of ours put there"
    LATER = "not to be read now"


class DropBox:
    """The folder, open."""

    def __init__(self, path: Path, max_len: int, uids: frozenset[int] | None) -> None:
        """Open the folder, made when absent (0700), for mail of these users.

        Its own name is made durable: a sender syncs what is in it, and no more.

        CannotCreateError when it cannot be made or is not ours: senders trust keys
        of its owner only.
        """
        self._max_len = max_len
        self._uids = uids
        try:
            path.mkdir(0o700, exist_ok=True)
            with suppress(PermissionError):  # a place where we made no folder
                sync_folder(path.parent)
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CannotCreateError(
                f"{path}: {error.strerror}: see to [local] drop"
            ) from error
        if os.fstat(self._fd).st_uid != os.geteuid() != 0:
            self.close()
            raise CannotCreateError(
                f"{path}: belongs to another user: give it to the node's"
            )

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._fd)

    def changed_at(self) -> int:
        """Say when a name in it was last made or removed, by the folder's own time."""
        return os.fstat(self._fd).st_mtime_ns

    def sync(self) -> None:
        """Make the names durable; IoError."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise IoError(f"the drop folder: {error.strerror}") from error

    # keys

    def is_published(self, slot: int, one: OneTime) -> bool:
        """Say whether the slot's file is there, ours, and holds this key."""
        try:
            fd = os.open(key_name(slot), _READ, dir_fd=self._fd)
        except OSError:
            return False
        try:
            found = os.fstat(fd)
            return (
                stat.S_ISREG(found.st_mode)
                and found.st_uid == os.geteuid()
                and os.read(fd, KEY_FILE_LEN + 1) == pack_key(one)
            )
        except OSError:
            return False
        finally:
            os.close(fd)

    def publish(self, slot: int, one: OneTime) -> None:
        """Put a key's file in its place, whole; OSError when that cannot be done.

        It need not be durable: a torn one is no key, and the next start replaces it.
        """
        name, aside = key_name(slot), f"new.{slot:04d}"
        self._clear(aside)
        self._clear(name)
        fd = os.open(aside, _MAKE, 0o600, dir_fd=self._fd)
        try:
            if os.write(fd, pack_key(one)) != KEY_FILE_LEN:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fchmod(fd, KEY_MODE)
            os.utime(fd, (0, 0))  # or it would say when the last message was taken
        finally:
            os.close(fd)
        os.rename(aside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def withdraw(self, slot: int, *, by_force: bool = False) -> bool:
        """Take a key's file away; False while a sender holds its lock.

        OSError when nobody knows, or when it cannot be taken away.
        """
        name = key_name(slot)
        try:
            fd = os.open(name, _READ, dir_fd=self._fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (*_NO_FILE, errno.EACCES):
                raise
            self._withdraw(name)
            return True
        try:
            ours = os.fstat(fd).st_uid == os.geteuid()  # another's lock means nothing
            if ours and not by_force:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._withdraw(name)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def _withdraw(self, name: str) -> None:
        """Remove a key's file; OSError while a sender could still trust it."""
        self._clear(name)
        with suppress(FileNotFoundError, PermissionError):
            if os.lstat(name, dir_fd=self._fd).st_uid == os.geteuid():
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    # messages

    def look(self, ones: Iterable[tuple[int, OneTime]]) -> tuple[list[int], list[int]]:
        """Give the slots with a message, and those with one that is being written."""
        mails: list[int] = []
        temps: list[int] = []
        for slot, one in ones:
            if self._lies(mail_name(one.id)):
                mails.append(slot)
            elif self._lies(temp_name(one.id)):
                temps.append(slot)
        return mails, temps

    def _lies(self, name: str) -> bool:
        try:
            os.lstat(name, dir_fd=self._fd)
        except FileNotFoundError:
            return False
        except OSError:  # something that may not even be looked at
            return True
        return True

    def read(self, one: OneTime) -> tuple[Found, bytes]:
        """Read what lies under a message's name."""
        name = mail_name(one.id)
        try:
            fd = os.open(name, _READ, dir_fd=self._fd)
        except PermissionError:
            return (Found.JUNK if self._is_shut(name) else Found.LATER), b""
        except OSError as error:
            return (Found.JUNK if error.errno in _NO_FILE else Found.LATER), b""
        try:
            found = os.fstat(fd)
            length = found.st_size
            if not (stat.S_ISREG(found.st_mode) and self._permitted(found.st_uid)):
                return Found.JUNK, b""
            if not MAIL_LEN_MIN <= length <= self._max_len or length & (length - 1):
                return Found.JUNK, b""
            return Found.MAIL, _read_all(fd, length)
        except OSError:
            return Found.LATER, b""
        finally:
            os.close(fd)

    def _is_shut(self, name: str) -> bool:
        """Say whether its owner keeps this file from us, and not this machine's rules.

        No sender of ours does that; it would hold a key for ever.
        """
        try:
            mode = os.lstat(name, dir_fd=self._fd).st_mode
            if mode & _READABLE != _READABLE:
                return True
            place = f"/proc/self/fd/{self._fd}/{name}"
            return _ACL in os.listxattr(place, follow_symlinks=False)
        except PermissionError:
            return True
        except OSError:
            return False

    def _permitted(self, uid: int) -> bool:
        return self._uids is None or uid in self._uids

    def remove(self, one: OneTime) -> None:
        """Remove a message and what was left of its writing."""
        self._clear(mail_name(one.id))
        self._clear(temp_name(one.id))

    def remove_abandoned(self, slot: int, one: OneTime) -> None:
        """Remove what a sender was writing when it ended; not while it writes."""
        try:
            fd = os.open(key_name(slot), _READ, dir_fd=self._fd)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._clear(temp_name(one.id))
        except BlockingIOError:
            return
        finally:
            os.close(fd)

    def _clear(self, name: str) -> None:
        """Remove whatever has this name; a folder with something in it goes aside."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            with suppress(OSError):
                os.rmdir(name, dir_fd=self._fd)
                return
            aside = f"junk.{os.urandom(8).hex()}"
            with suppress(OSError):
                os.rename(name, aside, src_dir_fd=self._fd, dst_dir_fd=self._fd)


def _read_all(fd: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length and (part := os.read(fd, length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
