# SPDX-License-Identifier: MIT
"""The kernel's word that this virtual machine goes on from a snapshot of its memory.

A hypervisor that has a generation id (ACPI's VMGENID: QEMU, Hyper-V, VMware, Xen,
Firecracker) changes it when it begins a machine from a snapshot, or copies one.  The
kernel then feeds its random generator anew, and since Linux 6.8 says so to listeners:

    netlink, NETLINK_KOBJECT_UEVENT, group 1, from the kernel (port 0)
        "change@/devices/..." 00 "ACTION=change" 00 ... "NEW_VMGENID=1" 00 ...

Such a clone shows no other sign: its memory has the old boot id, and its clocks go on
where they were.  The word comes when the kernel has heard of it, milliseconds after the
clone has begun: it makes the time short in which two machines use the same keys, and not
nothing.  It does not come at all from an older kernel, a hypervisor without the id, in a
container of another user, or where netlink is forbidden; so operators are told never to
do this (`mesh help security`).

Words of other devices are read and thrown away.  When there are too many to keep, the
kernel drops the last ones, and those before them are read.
"""

import select
import socket
from contextlib import suppress
from typing import Final

NETLINK_KOBJECT_UEVENT: Final = 15
KERNEL_GROUP: Final = 1
KERNEL_PORT: Final = 0
"""Who sent it: only root may send here, and the kernel alone has this number."""
WORD: Final = b"NEW_VMGENID=1"
WORD_MAX: Final = 8192
"""Octets: the kernel's own limit is 2,048 for the variables, and a path."""
WORDS_MAX: Final = 64
"""Words read at one look; the others at the next one, milliseconds later."""


def listen() -> socket.socket | None:
    """Listen to the kernel; None where that is not allowed, or not Linux."""
    made = None
    try:
        made = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK,
            NETLINK_KOBJECT_UEVENT,
        )
        made.bind((0, KERNEL_GROUP))
    except OSError:
        if made is not None:
            made.close()
        return None
    return made


class Generation:
    """Whether this machine was begun from a snapshot since this was made."""

    def __init__(self, sock: socket.socket | None) -> None:
        """Take over what `listen` gave."""
        self._sock = sock
        self._poll = select.poll()  # which says "nothing" without an exception
        if sock is not None:
            self._poll.register(sock, select.POLLIN)
        self._changed = False

    def changed(self) -> bool:
        """Look; once it has changed it stays so."""
        if self._poll.poll(0) and self._sock is not None:
            self._read(self._sock)
        return self._changed

    def close(self) -> None:
        """Listen no more; again is no error."""
        if self._sock is not None:
            self._poll.unregister(self._sock)
            self._sock.close()
            self._sock = None

    def _read(self, sock: socket.socket) -> None:
        for _ in range(WORDS_MAX):
            with suppress(OSError):  # ENOBUFS: the kernel has dropped some
                word, sender = sock.recvfrom(WORD_MAX)
                if sender[0] == KERNEL_PORT and WORD in word.split(b"\0"):
                    self._changed = True
            if not self._poll.poll(0):
                break
