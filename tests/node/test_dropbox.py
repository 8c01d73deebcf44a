# SPDX-License-Identifier: MIT
"""The drop folder's files: hostile things under every name that the node looks at."""

import errno
import fcntl
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.drop import (
    MAIL_LEN_MIN,
    OneTime,
    key_name,
    mail_name,
    pack_key,
    parse_key_untrusted,
    temp_name,
)
from mesh.errors import CannotCreateError, IoError
from mesh.node.dropbox import DropBox, Found
from tests.disk import NOBODY, forbidden_folder, full_disk, unprivileged

ONE = OneTime(b"i" * 16, b"p" * 32)
KEY, MAIL, TEMP = key_name(7), mail_name(ONE.id), temp_name(ONE.id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "drop"


@pytest.fixture
def box(folder: Path) -> Iterator[DropBox]:
    made = DropBox(folder, 4 * MAIL_LEN_MIN, None)
    yield made
    made.close()


def put(path: Path, what: str) -> None:
    """Put something under this name."""
    match what:
        case "bare folder":
            path.mkdir()
        case "link":
            path.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                here = Path.cwd()
                os.chdir(path.parent)
                sock.bind(path.name)
                os.chdir(here)
        case "folder":
            (path / "x").mkdir(parents=True)
        case "empty":
            path.touch()
        case "odd":
            path.write_bytes(bytes(MAIL_LEN_MIN + 1))
        case "huge":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "mail":
            path.write_bytes(bytes(MAIL_LEN_MIN))


THINGS = ["nothing", "link", "fifo", "socket", "folder", "bare folder", "empty", "odd"]
THINGS += ["huge", "mail"]


def test_the_folder_is_made_for_us_alone(folder: Path, box: DropBox) -> None:
    assert box.changed_at() == folder.stat().st_mtime_ns
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o3770)
    DropBox(folder, 1, None).close()
    assert folder.stat().st_mode & 0o7777 == 0o3770


def test_a_folder_that_cannot_be_or_is_not_ours(folder: Path) -> None:
    folder.touch()
    with pytest.raises(CannotCreateError, match=r"see to \[local\] drop"):
        DropBox(folder, 1, None)
    with forbidden_folder() as place, pytest.raises(CannotCreateError):
        DropBox(place / "drop", 1, None)
    if os.geteuid() == 0:
        with (
            forbidden_folder() as place,
            pytest.raises(CannotCreateError, match="another user"),
        ):
            DropBox(place, 1, None)


@pytest.mark.parametrize("what", THINGS)
def test_what_lies_under_a_message_s_name(
    folder: Path, box: DropBox, what: str
) -> None:
    put(folder / MAIL, what)
    expected = {"nothing": Found.LATER, "mail": Found.MAIL}
    found, octets = box.read(ONE)
    assert found is expected.get(what, Found.JUNK)
    assert octets == (bytes(MAIL_LEN_MIN) if what == "mail" else b"")
    assert box.look([(7, ONE)]) == (([7], []) if what != "nothing" else ([], []))
    box.remove(ONE)
    assert box.look([(7, ONE)]) == ([], [])
    assert Path("/etc/passwd").exists()
    kept = list(folder.iterdir())
    assert [path.name[:5] for path in kept] == ["junk."] * (what == "folder")


def test_who_may_not_submit(folder: Path, box: DropBox) -> None:
    put(folder / MAIL, "mail")
    for uids, found in (
        (frozenset({os.geteuid()}), Found.MAIL),
        (frozenset({NOBODY}), Found.JUNK),
    ):
        other = DropBox(folder, 4 * MAIL_LEN_MIN, uids)
        assert other.read(ONE)[0] is found
        other.close()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder of the user that the tests become when they are root."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)


def test_a_file_that_its_owner_keeps_from_us(shared: Path) -> None:
    put(shared / MAIL, "mail")
    for mode, found in (
        (0o644, Found.MAIL),
        (0o400, Found.JUNK),
        (0o000, Found.JUNK),
    ):
        (shared / MAIL).chmod(mode)
        with unprivileged():
            box = DropBox(shared, 4 * MAIL_LEN_MIN, None)
            if os.geteuid() == NOBODY or not mode:
                assert box.read(ONE)[0] is found
            box.close()


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access list as the kernel keeps it: (tag, permissions, whose)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_file_that_a_list_keeps_from_us(shared: Path) -> None:
    put(shared / MAIL, "mail")
    (shared / MAIL).chmod(0o644)
    none = 0xFFFFFFFF
    entries = ((1, 6, none), (2, 0, NOBODY), (4, 4, none), (16, 4, none), (32, 4, none))
    try:
        os.setxattr(shared / MAIL, "system.posix_acl_access", acl(*entries))
    except OSError:
        pytest.skip("no access lists here")
    assert (shared / MAIL).stat().st_mode & 0o777 == 0o644
    with unprivileged():
        box = DropBox(shared, 4 * MAIL_LEN_MIN, None)
        assert box.read(ONE) == (Found.JUNK, b"")
        box.close()


def test_what_may_not_even_be_looked_at(
    folder: Path, box: DropBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own file system, mounted on a folder under a message's name."""
    put(folder / MAIL, "folder")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        for call in ("open", "lstat", "rename"):
            patch.setattr(os, call, refuse)
        assert box.look([(7, ONE)]) == ([7], [])
        assert box.read(ONE) == (Found.JUNK, b"")
        box.remove(ONE)


def test_what_this_machine_keeps_from_us_stays(
    folder: Path, box: DropBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder / MAIL, "mail")

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    (folder / MAIL).chmod(0o644)
    assert box.read(ONE) == (Found.LATER, b"")
    (folder / MAIL).unlink()
    assert box.read(ONE) == (Found.LATER, b"")


def test_what_cannot_be_read_stays(
    folder: Path, box: DropBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder / MAIL, "mail")

    def fail(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    for call in ("read", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            assert box.read(ONE) == (Found.LATER, b"")
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", fail)
        assert not box.is_published(7, ONE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(OSError, match="Input"):
            box.withdraw(7)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(IoError):
            box.sync()
    box.sync()
    assert (folder / MAIL).exists()


def test_a_message_that_shrinks_while_it_is_read(
    folder: Path, box: DropBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder / MAIL, "mail")
    monkeypatch.setattr(os, "read", lambda _fd, _length: b"")
    assert box.read(ONE) == (Found.MAIL, b"")  # and it will not open


@pytest.mark.parametrize("what", THINGS)
def test_whatever_is_in_the_way_a_key_is_published(
    folder: Path, box: DropBox, what: str
) -> None:
    for name in (KEY, "new.0007"):
        put(folder / name, what)
    assert not box.is_published(7, ONE)
    box.publish(7, ONE)
    assert box.is_published(7, ONE)
    assert not box.is_published(7, ONE._replace(id=b"j" * 16))
    file = folder / KEY
    assert parse_key_untrusted(file.read_bytes()) == ONE
    assert file.stat().st_mode & 0o777 == 0o644
    assert file.stat().st_mtime == 0
    assert not (folder / "new.0007").exists()


@pytest.mark.parametrize("what", THINGS)
def test_whatever_lies_there_a_key_is_withdrawn(
    folder: Path, box: DropBox, what: str
) -> None:
    put(folder / KEY, what)
    assert box.withdraw(7)
    assert not os.path.lexists(folder / KEY)


def test_a_locked_key_stays(folder: Path, box: DropBox) -> None:
    box.publish(7, ONE)
    put(folder / TEMP, "mail")
    with (folder / KEY).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not box.withdraw(7)
        assert not box.withdraw(7, by_force=False)
        box.remove_abandoned(7, ONE)
        assert (folder / KEY).exists()
        assert (folder / TEMP).exists()
        assert box.look([(7, ONE)]) == ([], [7])
    box.remove_abandoned(7, ONE)
    assert not (folder / TEMP).exists()
    assert box.withdraw(7)
    box.remove_abandoned(7, ONE)


def test_a_locked_key_goes_by_force(folder: Path, box: DropBox) -> None:
    box.publish(7, ONE)
    with (folder / KEY).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert box.withdraw(7, by_force=True)
        assert not (folder / KEY).exists()


def test_a_key_that_cannot_be_taken_away_is_not_said_to_be(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a sender would seal to what is destroyed next."""
    with unprivileged():
        box = DropBox(shared, 4 * MAIL_LEN_MIN, None)
        box.publish(7, ONE)
    for mode in (0o644, 0o000):
        (shared / KEY).chmod(mode)
        shared.chmod(0o555)
        with unprivileged(), pytest.raises(OSError, match="busy"):
            box.withdraw(7)
        assert (shared / KEY).exists()
        shared.chmod(0o700)
    with unprivileged():
        assert box.withdraw(7)
    assert not (shared / KEY).exists()
    (shared / KEY).mkdir()

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    for call in ("open", "lstat", "rename"):  # a user's file system, mounted on it
        monkeypatch.setattr(os, call, refuse)
    assert box.withdraw(7)
    monkeypatch.undo()
    box.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_stranger_s_key_that_we_may_not_read_holds_up_nothing(shared: Path) -> None:
    (shared / KEY).write_bytes(pack_key(ONE))
    (shared / KEY).chmod(0)
    with unprivileged():
        box = DropBox(shared, 4 * MAIL_LEN_MIN, None)
        assert box.withdraw(7)
        box.close()
    assert not (shared / KEY).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_stranger_s_key_is_none_and_his_lock_means_nothing(
    folder: Path, box: DropBox
) -> None:
    (folder / KEY).write_bytes(pack_key(ONE))
    os.chown(folder / KEY, NOBODY, NOBODY)
    assert not box.is_published(7, ONE)
    with (folder / KEY).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert box.withdraw(7)


def test_no_room_for_a_key(box: DropBox) -> None:
    with full_disk(), pytest.raises(OSError, match="No space left"):
        box.publish(7, ONE)
    assert not box.is_published(7, ONE)


def test_the_folders_own_name_is_on_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink())
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    for _ in range(2):  # whoever made it may have ended before its fsync
        DropBox(folder, MAIL_LEN_MIN, None).close()
    assert synced == [folder.parent, folder.parent]
