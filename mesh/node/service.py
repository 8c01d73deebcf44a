# SPDX-License-Identifier: MIT
"""What a service owes its machine: one process a state directory, and a word to systemd.

state/lock       flock(2); the kernel frees it however the process ends
NOTIFY_SOCKET    READY=1 when remailers may connect, STOPPING=1 at the end
"""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from mesh.errors import CannotCreateError, NotPermittedError, UnavailableError


def lock_state(state: Path) -> int:
    """Take the state directory for this process; the lock dies with it.

    UnavailableError when another node has it.
    """
    try:
        fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise NotPermittedError(
            f"{state}: {error.strerror}: be the node's own user"
        ) from error
    except OSError as error:
        raise CannotCreateError(
            f"{state}: {error.strerror}; make it with `mesh init`"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise UnavailableError(
            f"{state}: in use by another node; stop that one first"
        ) from error
    return fd


def notify(state: str) -> None:
    """Tell systemd, if it is there, by sd_notify(3)'s datagram."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        address = "\0" + path[1:] if path.startswith("@") else path
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.sendto(state.encode(), address)
