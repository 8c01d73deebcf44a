# SPDX-License-Identifier: MIT
"""Our own link keys and descriptor while the node runs: watched, and renewed in time.

    each second   state/link.key, link-before.key, descriptor: has a command changed them?
                  our descriptor: is half of its year over?  two keys: is the overlap?
    then          what a crash left is tidied up; two keys are taken up, or the older one
                  destroyed (rotation.py); what we say is signed anew where it is no more
                  so (statement.py); whoever asked is told

The order keeps everybody a way in: a key answers before it is published, and is gone
from the disk before a descriptor without it is.  Keys that are no longer in force are
wiped when everybody here has let go of them.

What goes wrong at the start is fatal for keys only.  Later nothing is: what was in force
stays, `notices` say why, and it is tried again each minute.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import trio

from mesh.config import Config
from mesh.core.crypto import Key
from mesh.core.descriptor import Descriptor, date
from mesh.errors import MeshError
from mesh.node import rotation
from mesh.node.keys import LINK, LINK_BEFORE, LOCK_NAME, key_path, load_link_keys
from mesh.node.rotation import Rotation
from mesh.node.statement import is_fresh, path_of, renewed
from mesh.node.whole import locked

LOOK_SECONDS: Final = 1.0
"""Between two looks: what a command changed counts within 2 s."""
RETRY_SECONDS: Final = 60.0
"""After a disk that refused."""


class Found(NamedTuple):
    """What a look at the disk, and its work, came to."""

    keys: list[Key]
    rotation: Rotation | None
    said: Descriptor


class Renewal:
    """What this node is to its peers, now."""

    def __init__(
        self,
        config: Config,
        running: Callable[[], int],
        unix_time: Callable[[], float] = lambda: time.time(),
    ) -> None:
        """Read the keys and sign what is due; blocking, and `running` is not asked yet.

        `running` gives the spool's running seconds.  ConfigError for a bad key file.
        """
        self._config = config
        self._running = running
        self._unix_time = unix_time
        self.keys = load_link_keys(config.state_dir)
        """Our link keys, newest first."""
        self.said: Descriptor | None = None
        """Our descriptor; None: it could not be had."""
        self._rotation: Rotation | None = None
        self._stamps: tuple[object, ...] = ()
        self._retry_at = 0.0
        self._trouble = ""
        try:
            self.said = renewed(config, unix_time(), None)
        except (MeshError, OSError) as error:
            self._trouble = str(error)

    def has_left(self) -> bool:
        """Say whether our own hour of leaving has come."""
        return self.said is not None and self.said.has_left(self._unix_time())

    @property
    def notices(self) -> list[str]:
        """What an operator should know, a line each."""
        lines = [self._trouble] if self._trouble else []
        if self._rotation and len(self.keys) > 1:
            until = date(self._rotation.until)
            lines.append(f"link key: the one before still opens, until {until}")
        if self.said and self.said.leaves:
            hour = date(self.said.leaves)
            lines.append(
                f"this node left the mesh at {hour}: it takes no mail, and delivers "
                "what it has for its remailers"
                if self.has_left()
                else f"this node leaves the mesh at {hour}: to stay, "
                "`mesh withdraw --cancel`"
            )
        return lines

    async def run(self, adopt: Callable[[], None]) -> None:
        """Look and work for ever; `adopt` is called when keys or descriptor changed."""
        while True:
            if self._is_due():
                await self._renew(adopt)
            await trio.sleep(LOOK_SECONDS)

    def _is_due(self) -> bool:
        if trio.current_time() < self._retry_at:
            return False
        now = self._unix_time()
        return (
            self._stamps != _stamps(self._config.state_dir)
            or self.said is None
            or not is_fresh(self.said, now)
            or bool(self._rotation and self._rotation.is_over(now, self._running()))
        )

    async def _renew(self, adopt: Callable[[], None]) -> None:
        now, running = self._unix_time(), self._running()
        stamps = _stamps(self._config.state_dir)
        try:
            found = await trio.to_thread.run_sync(
                self._work, now, running, self.said, abandon_on_cancel=True
            )
        except (MeshError, OSError) as error:
            self._trouble = str(error)
            self._retry_at = trio.current_time() + RETRY_SECONDS
            return
        self._trouble, self._stamps = "", stamps
        self._rotation = found.rotation
        before = self.keys, self.said
        self.keys, self.said = _same(found.keys, self.keys), found.said
        if before != (self.keys, self.said):
            adopt()
        for key in before[0]:
            if key not in self.keys:
                key.wipe()

    def _work(self, now: float, running: int, said: Descriptor | None) -> Found:
        """Do what is due, on the disk."""
        state = self._config.state_dir
        with locked(state / LOCK_NAME):
            rotation.tidy(state)
            last = rotation.take_up(state, now, running)
            if last is not None and last.is_over(now, running):
                rotation.end(state)
                last = None
            keys = load_link_keys(state)
        return Found(keys, last, renewed(self._config, now, said))


def _same(found: list[Key], had: list[Key]) -> list[Key]:
    """Keep the keys that we had where they are the same: others hold them too."""
    return [next((one for one in had if one == key), key) for key in found]


def _stamps(state: Path) -> tuple[object, ...]:
    """How the files look from outside."""
    files = key_path(state, LINK), key_path(state, LINK_BEFORE), path_of(state)
    return tuple(map(_stamp, files))


def _stamp(path: Path) -> object:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
