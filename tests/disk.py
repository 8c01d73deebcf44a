# SPDX-License-Identifier: MIT
"""Disks that refuse: one with room for ten octets, and one that is not ours; and memory."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOM = 10
"""Octets: a write is cut short before the next one fails."""


@contextmanager
def full_disk() -> Iterator[None]:
    """Within it every write of this process past octet 10 of a file fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


MEMORY = 512 * 1_048_576
"""Octets that the files of a long run surely fit in."""


def memory_folder() -> str | None:
    """Where a sync costs nothing, for what does not try the disk; None: nowhere."""
    shared = Path("/dev/shm")  # noqa: S108  # below it a folder with a drawn name
    if shared.is_dir() and shutil.disk_usage(shared).free > MEMORY:
        return str(shared)
    return None


NOBODY = 65534


@contextmanager
def forbidden_folder() -> Iterator[Path]:
    """A folder that may be looked at and not written, also where the tests are root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        try:
            with unprivileged():
                yield folder
        finally:
            folder.chmod(0o700)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Within it root is nobody, so that permissions hold for everybody."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)
