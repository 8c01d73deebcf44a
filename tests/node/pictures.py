# SPDX-License-Identifier: MIT
"""What a kill or a power cut leaves of a folder, at every step of what changes it.

Around each fsync, rename and unlink the folder is copied three times: as a killed
process leaves it; as a power cut may, with the names undone that no fsync of their
folder made durable; and with the contents cut off that no fsync of their own did.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CUT_LEN = 5
"""Octets that are left of a content that was never synced."""


class Camera:
    """Takes the pictures from now on."""

    def __init__(self, folder: Path, album: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.album = folder, album
        album.mkdir()
        self.pictures: list[tuple[str, Path]] = []
        self.names = self.now()
        self.synced = {path.stat().st_ino for path in self.files()}
        for name in ("fsync", "rename", "unlink", "replace"):
            self.watch(patch, name)

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def now(self) -> dict[Path, bytes]:
        return {p.relative_to(self.folder): p.read_bytes() for p in self.files()}

    def watch(self, patch: pytest.MonkeyPatch, name: str) -> None:
        real: Callable[..., Any] = getattr(os, name)

        def step(*args: Any, **others: Any) -> Any:
            self.take(f"before {name}")
            result = real(*args, **others)
            if name == "fsync":
                self.note_sync(args[0])
            self.take(f"after {name}")
            return result

        patch.setattr(os, name, step)

    def note_sync(self, fd: int) -> None:
        found = os.fstat(fd)
        if not stat.S_ISDIR(found.st_mode):
            self.synced.add(found.st_ino)
            return
        folder = Path(f"/proc/self/fd/{fd}").readlink().relative_to(self.folder)
        kept = {p: octets for p, octets in self.names.items() if p.parent != folder}
        new = {p: octets for p, octets in self.now().items() if p.parent == folder}
        self.names = kept | new

    def take(self, name: str) -> None:
        cut = {
            path.relative_to(self.folder): path.read_bytes()[
                : None if path.stat().st_ino in self.synced else CUT_LEN
            ]
            for path in self.files()
        }
        for variant, files in (
            ("killed", self.now()),
            ("names undone", self.names),
            ("contents cut", cut),
        ):
            picture = self.album / str(len(self.pictures))
            picture.mkdir()
            for file, octets in files.items():
                (picture / file).parent.mkdir(exist_ok=True)
                (picture / file).write_bytes(octets)
            self.pictures.append((f"{name}, {variant}", picture))
