# SPDX-License-Identifier: MIT
"""Every instant at which a sender or the node could stop, and what becomes of the mail.

Before each step of either on the drop folder and on state/drop.keys all is copied: once
as a killed process leaves it, and as a power cut may, with names and contents
that no fsync has made durable undone (all of them, those of keys, those of mail), the
slots that were being written torn, and unsynced files cut short.  On each copy a sender
leaves one more message under each key while the node is down, then a node starts.  What
must hold: a message whose sender exited 0 is there, none is there twice, and nothing is
left lying in the folder.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mesh.cli import dropoff
from mesh.errors import TryLaterError
from mesh.node.groups import Groups
from mesh.node.onetime import BLOCK_LEN
from tests.harness import Patience, until
from tests.node.dropping import few_slots, leave, mail, names, taking

LATER = 77
VARIANTS = ("killed", "all", "keys", "mail", "slots")


@dataclass
class Camera:
    """Takes the pictures while it is armed."""

    folder: Path
    album: Path
    must: set[int] = field(default_factory=set)
    moments: list[tuple[str, Path, set[int]]] = field(default_factory=list)
    armed: bool = False
    names: dict[str, bytes] = field(default_factory=dict)
    slots: bytes = b""
    written: list[int] = field(default_factory=list)
    files: set[int] = field(default_factory=set)

    def synced(self) -> None:
        """All names in the folder, and the slots, are on the disk."""
        self.names = self.now()
        self.files = {path.stat().st_ino for path in (self.folder / "drop").iterdir()}
        self.slots = (self.folder / "drop.keys").read_bytes()

    def now(self) -> dict[str, bytes]:
        drop = self.folder / "drop"
        return {path.name: path.read_bytes() for path in drop.iterdir()}

    def take(self, name: str) -> None:
        was, self.armed = self.armed, False  # what we do ourselves is no step
        self.copy(name)
        self.armed = was

    def copy(self, name: str) -> None:
        now = self.now()
        for variant in VARIANTS:
            torn = any(self.is_torn(file, now[file], "slots") for file in now)
            durable = now == self.names and not self.written and not torn
            if variant != "killed" and durable:
                continue
            target = self.album / f"{len(self.moments)}"
            shutil.copytree(self.folder, target)
            self.moments.append((f"{variant}: {name}", target, set(self.must)))
            if variant != "killed":
                self.cut(target, variant, now)

    def cut(self, target: Path, variant: str, now: dict[str, bytes]) -> None:
        """Undo what the disk has not got."""
        shutil.rmtree(target / "drop")
        (target / "drop").mkdir()
        for source, kept in ((self.names, True), (now, False)):
            for name, octets in source.items():
                is_key = name.startswith(("key", "new"))
                undone = variant == "all" or variant == ("keys" if is_key else "mail")
                if undone is kept:
                    torn = self.is_torn(name, octets, variant)
                    (target / "drop" / name).write_bytes(
                        octets[:20] if torn else octets
                    )
        slots = bytearray(self.slots)
        for offset in self.written:
            slots[offset : offset + 512] = b"?" * 512
        (target / "drop.keys").write_bytes(slots)

    def is_torn(self, name: str, octets: bytes, variant: str) -> bool:
        """Say whether a file's content may not have reached the disk."""
        if name.startswith(("key", "new")):
            return variant != "slots" and self.names.get(name) != octets
        path = self.folder / "drop" / name
        return path.exists() and path.stat().st_ino not in self.files

    def install(self, patch: pytest.MonkeyPatch) -> None:
        self.watch(patch, "unlink", lambda *_: None)
        self.watch(patch, "rename", lambda *_: None)
        self.watch(patch, "link", lambda *_: None)
        self.watch(patch, "fsync", self.folder_synced)
        self.watch(patch, "fdatasync", self.slots_synced)
        self.watch(patch, "pwrite", self.slots_written)
        insert = Groups.insert

        def inserted(groups: Groups, *args: Any) -> None:
            if self.armed:
                self.take("before the commit")
            insert(groups, *args)
            if self.armed:
                self.take("after the commit")

        patch.setattr(Groups, "insert", inserted)

    def watch(
        self, patch: pytest.MonkeyPatch, call: str, after: Callable[[Path, Any], None]
    ) -> None:
        real = getattr(os, call)

        def watched(first: Any, *args: Any, **places: Any) -> Any:
            path = Path(str(first))
            if isinstance(first, int):
                path = Path(f"/proc/self/fd/{first}").readlink()
            ours = "drop" in path.parts or path.name == "drop.keys" or places
            if not (self.armed and ours):
                return real(first, *args, **places)
            self.take(f"before {call} {path.name.partition('.')[0]}")
            result = real(first, *args, **places)
            after(path, args)
            return result

        patch.setattr(os, call, watched)

    def folder_synced(self, path: Path, _: Any) -> None:
        if path.name == "drop":
            self.names = self.now()
        elif path.exists():
            self.files.add(path.stat().st_ino)

    def slots_synced(self, path: Path, _: Any) -> None:
        self.slots = path.read_bytes()
        self.written.clear()

    def slots_written(self, _: Path, args: Any) -> None:
        octets, offset = args
        self.written += range(offset, offset + len(octets), BLOCK_LEN)


async def look(moment: str, folder: Path, must: set[int]) -> None:
    """What the next start makes of it."""
    few = {*must}
    with suppress(TryLaterError):
        for number in range(LATER, LATER + 4):  # under every key that lies there
            leave(folder, number)
            few.add(number)
    async with taking(folder) as (alpha, drop):
        await until(lambda: not names(folder, "mail"), 60)
        await until(lambda: len(names(folder, "key")) == 4, 60)
        await trio.sleep(3)
        found = sorted(int(content) for content in await alpha.arrived())
        assert len(found) == len(set(found)), moment
        assert few <= set(found), moment
        assert drop.junk == 0, moment
        assert names(folder, "temp") == names(folder, "mail") == [], moment


@pytest.mark.parametrize("who", ["sender", "several", "node", "start"])
async def test_each_instant(
    tmp_path: Path,
    autojump_clock: MockClock,
    patience: Patience,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
) -> None:
    del autojump_clock, patience
    few_slots(monkeypatch, 4)
    folder = tmp_path / "node"
    folder.mkdir()
    camera = Camera(folder, tmp_path / "album")
    if who == "start":
        (folder / "drop").mkdir()
        (folder / "drop.keys").touch()
    else:
        async with taking(folder):
            await until(lambda: len(names(folder, "key")) == 4)
    camera.synced()
    with monkeypatch.context() as patch:
        camera.install(patch)
        if who == "node":
            leave(folder, 1, 2)
            camera.synced()
            camera.must = {1, 2}
        camera.armed = True
        if who == "sender":
            for number in (1, 2):
                leave(folder, number)
                camera.must.add(number)
        elif who == "several":
            dropoff.drop(str(folder / "drop"), [mail(1), mail(2)])
            camera.must = {1, 2}
        else:
            async with taking(folder):
                await until(
                    lambda: not names(folder, "mail") and len(names(folder, "key")) == 4
                )
                await trio.sleep(3)
        camera.armed = False
        camera.take("the end")
    assert len(camera.moments) > 15
    for moment in camera.moments:
        await look(*moment)
