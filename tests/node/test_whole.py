# SPDX-License-Identifier: MIT
"""Files that are there whole or not at all: every instant of a write, every intruder."""

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.errors import CannotCreateError, DescriptorError
from mesh.node.whole import locked, read_regular_untrusted, replace, replace_all
from tests.disk import full_disk
from tests.node.pictures import Camera

BEFORE, AFTER = b"before " * 99, b"after " * 777


def test_replace(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace(path, BEFORE)
    assert path.read_bytes() == BEFORE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    replace(path, AFTER, 0o644)
    assert path.read_bytes() == AFTER
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_left_aside_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / ".file.new").symlink_to(tmp_path / "elsewhere")
    replace(path, AFTER)
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    replace(path, AFTER)
    assert not path.is_symlink()
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    replace(path, b"small")
    with full_disk(), pytest.raises(OSError, match="too large"):
        replace_all({path: b"tiny", other: AFTER})
    assert path.read_bytes() == b"small"
    assert list(tmp_path.iterdir()) == [path]


def test_every_instant_has_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, album = tmp_path / "folder", tmp_path / "album"
    folder.mkdir()
    replace(folder / "file", BEFORE)
    with monkeypatch.context() as patch:
        camera = Camera(folder, album, patch)
        replace(folder / "file", AFTER)
    found = [(name, (at / "file").read_bytes()) for name, at in camera.pictures]
    assert all(octets in (BEFORE, AFTER) for _, octets in found), found
    assert [octets for _, octets in found][-3:] == [AFTER] * 3
    assert len(found) >= 12
    for _, picture in camera.pictures:  # and it can be written again
        replace(picture / "file", AFTER)
        assert [path.name for path in picture.iterdir()] == ["file"]


def fifo(path: Path) -> None:
    os.mkfifo(path)


INTRUDERS: list[tuple[Callable[[Path], object], str]] = [
    (fifo, "not a regular file"),
    (lambda path: path.mkdir(), "not a regular file"),
    (lambda path: path.symlink_to("/dev/zero"), "a symbolic link"),
    (lambda path: path.symlink_to(path), "a symbolic link"),
    (lambda path: path.write_bytes(bytes((2 << 20) + 1)), "more than 2 MiB"),
]


@pytest.mark.parametrize(("make", "why"), INTRUDERS)
def test_what_is_no_file_of_ours(
    tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    make(tmp_path / "file")
    with pytest.raises(DescriptorError, match=why):
        read_regular_untrusted(tmp_path / "file", 2 << 20, "directory")


def test_a_device(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        (tmp_path / "zero").open("rb").close()
    except PermissionError:  # not root, or a folder without devices
        return
    with pytest.raises(DescriptorError, match="not a regular file"):
        read_regular_untrusted(tmp_path / "zero", 9)


def test_what_fits_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"123456789")
    assert read_regular_untrusted(tmp_path / "file", 9) == b"123456789"
    with pytest.raises(FileNotFoundError):
        read_regular_untrusted(tmp_path / "other", 9)


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    """Also against the same process: it is the opened file that holds it."""
    path = tmp_path / ".lock"
    at_once = fcntl.LOCK_EX | fcntl.LOCK_NB
    with locked(path), path.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, at_once)
    with path.open("rb") as other:  # given back at its end
        fcntl.flock(other, at_once)


def test_a_lock_that_cannot_be(tmp_path: Path) -> None:
    with (
        pytest.raises(CannotCreateError, match="No such file"),
        locked(tmp_path / "a/b"),
    ):
        pass
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotCreateError), locked(tmp_path / ".lock"):
        pass
    assert not (tmp_path / "elsewhere").exists()
