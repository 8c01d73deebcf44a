# SPDX-License-Identifier: MIT
"""A new link key: each step of the switch as a crash leaves it, and the old key's end."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mesh.core.crypto import Key, x25519_public
from mesh.errors import CannotCreateError, IoError, TryLaterError
from mesh.node.keys import (
    LOCK_NAME,
    create_missing,
    key_path,
    line_of,
    load_link_keys,
)
from mesh.node.rotation import (
    AGAIN_SECONDS,
    DAY_SECONDS,
    OVERLAP_RUNNING_SECONDS,
    OVERLAP_SECONDS,
    Rotation,
    end,
    look,
    rotate,
    take_up,
    tidy,
)
from mesh.node.whole import locked
from tests.descriptors import NOW
from tests.disk import forbidden_folder, full_disk
from tests.harness import FixedEntropy

RAN = 5_000
"""Seconds for which nodes had run on this spool."""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    create_missing(folder, FixedEntropy("alpha"))
    return folder


def change(state: Path, seed: str = "new", now: float = NOW, **named: bool) -> Rotation:
    return rotate(state, FixedEntropy(seed), now, **named)


def new_key(seed: str = "new") -> Key:
    return FixedEntropy(seed).key()


def holding(folder: Path, key: Key) -> list[str]:
    """Names of files that hold this key's octets."""
    octets = written(key)
    return [p.name for p in sorted(folder.iterdir()) if octets in p.read_bytes()]


def written(key: Key) -> bytes:
    """A key's own octets as its file has them."""
    return line_of("link", key).split()[-1][:42]


# What is in force


def test_two_keys_newest_first(state: Path) -> None:
    (old,) = load_link_keys(state)
    rotation = change(state)
    assert load_link_keys(state) == [new_key(), old]
    assert rotation == Rotation(x25519_public(new_key()), int(NOW))
    assert look(state) == rotation
    assert holding(state, old) == ["link-before.key"]
    assert holding(state, new_key()) == ["link.key"]
    for name in ("link.key", "link-before.key"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600


def test_not_while_two_are_in_force(state: Path) -> None:
    until = change(state).until
    assert until == NOW + OVERLAP_SECONDS
    keys = load_link_keys(state)
    for again in (False, True):
        with pytest.raises(TryLaterError, match="2027-01-29 08:00:00Z") as caught:
            change(state, "third", NOW + 20 * DAY_SECONDS, again=again)
        assert caught.value.exit_code == 75
    assert load_link_keys(state) == keys


def test_not_within_thirty_days_but_for_again(state: Path) -> None:
    change(state)
    end(state)
    with pytest.raises(TryLaterError, match=r"2027-02-14 08:00:00Z, or say --again"):
        change(state, "third", NOW + AGAIN_SECONDS - 1)
    change(state, "third", NOW + AGAIN_SECONDS)
    end(state)
    change(state, "fourth", NOW + AGAIN_SECONDS + 1, again=True)
    end(state)
    change(state, "fifth", NOW - 1)  # the clock was wrong: that date says nothing
    assert load_link_keys(state) == [new_key("fifth"), new_key("fourth")]


def test_a_key_that_came_from_elsewhere_was_not_rotated(state: Path) -> None:
    change(state)
    end(state)
    key_path(state, "link").unlink()
    create_missing(state, FixedEntropy("restored"))
    assert look(state) is None
    change(state, "next", NOW + 1)


# The overlap


def test_an_overlap_lasts_a_fortnight_and_a_day_of_running(state: Path) -> None:
    change(state)
    rotation = take_up(state, NOW + 60, RAN)
    assert rotation is not None
    assert rotation == look(state)
    late, ran = rotation.until, RAN + OVERLAP_RUNNING_SECONDS
    assert rotation.is_over(late, ran)
    assert not rotation.is_over(late - 1, ran)
    assert not rotation.is_over(late, ran - 1)
    assert not change_back(rotation).is_over(late, ran)
    for later in (RAN, RAN + 9_999):  # once is enough, whoever restarts
        assert take_up(state, NOW + 99, later) == rotation


def change_back(rotation: Rotation) -> Rotation:
    """The same, taken up by nobody."""
    return Rotation(rotation.public, rotation.began)


def test_with_one_key_there_is_nothing_to_take_up(state: Path) -> None:
    assert take_up(state, NOW, RAN) is None
    change(state)
    end(state)
    assert take_up(state, NOW, RAN) is None


def test_another_spool_counts_afresh(state: Path) -> None:
    change(state)
    take_up(state, NOW, RAN)
    again = take_up(state, NOW, RAN - 1)
    assert again is not None
    assert again.taken_up == RAN - 1


@pytest.mark.parametrize(
    "octets",
    [
        None,
        b"",
        b"rubbish",
        b"\x94\x02\xc4\x00\x00\x00",
        b"\x94\x01\xc4\x00\x00\x00",
        b"\x91\x01",
        bytes(5_000),
    ],
)
def test_what_nobody_knows_of_begins_now(state: Path, octets: bytes | None) -> None:
    change(state)
    path = state / "rotation"
    path.unlink()
    if octets is not None:
        path.write_bytes(octets)
    with pytest.raises(TryLaterError, match="2027-01-30"):
        change(state, "third", NOW + DAY_SECONDS)
    began = take_up(state, NOW + DAY_SECONDS, RAN)
    assert began == Rotation(x25519_public(new_key()), int(NOW) + DAY_SECONDS, RAN)
    assert began == look(state)


# The old key's end


def test_the_old_key_is_off_the_disk_file(state: Path) -> None:
    (old,) = load_link_keys(state)
    change(state)
    length = (state / "link-before.key").stat().st_size
    with (state / "link-before.key").open("rb") as file:  # the file, whatever its name
        assert written(old) in file.read()
        end(state)
        file.seek(0)
        assert file.read() == bytes(length)
        assert os.fstat(file.fileno()).st_nlink == 0
    assert holding(state, old) == []
    assert load_link_keys(state) == [new_key()]
    end(state)
    assert load_link_keys(state) == [new_key()]
    assert sorted(path.name for path in state.glob("link*")) == ["link.key"]


def test_a_key_that_lies_elsewhere_is_overwritten_there(
    state: Path, tmp_path: Path
) -> None:
    elsewhere = key_path(state, "link").rename(tmp_path / "far")
    key_path(state, "link").symlink_to(elsewhere)
    (old,) = load_link_keys(state)
    change(state)
    assert load_link_keys(state) == [new_key(), old]
    end(state)
    assert load_link_keys(state) == [new_key()]
    assert not elsewhere.read_bytes().strip(b"\0")


# Every instant


def steps(state: Path, work: Callable[[], object], album: "Album") -> None:
    """Do the work, and copy the state before each of its steps and after the last."""
    with album.watching(state):
        work()
    album.take(state, "the end")


@dataclass
class Album:
    """The state as a killed process leaves it, and as a power cut may."""

    folder: Path
    moments: list[tuple[str, Path]] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)

    def synced(self, state: Path) -> None:
        """All of it is on the disk."""
        self.names = {p.name: p.stat().st_ino for p in state.iterdir()}
        self.contents = {p.stat().st_ino: p.read_bytes() for p in state.iterdir()}

    def take(self, state: Path, step: str) -> None:
        names = {p.name: p.stat().st_ino for p in state.iterdir()}
        now = {p.stat().st_ino: p.read_bytes() for p in state.iterdir()}
        unsynced = {
            inode for inode, octets in now.items() if octets != self.octets(inode)
        }
        self.copy(f"killed before {step}", names, now)
        self.copy(f"power cut before {step}", self.names, self.contents)
        for torn in unsynced & self.contents.keys():
            half = now[torn][:20] + self.contents[torn][20:]
            self.copy(f"torn before {step}", names, {**now, torn: half})
        for lost in unsynced - self.contents.keys():
            self.copy(f"empty before {step}", names, {**now, lost: b""})
        for name in names.keys() | self.names.keys():
            was = self.names.get(name)
            if names.get(name) != was:
                undone = {n: i for n, i in names.items() if n != name}
                undone |= {} if was is None else {name: was}
                self.copy(f"{name} as before {step}", undone, {**self.contents, **now})

    def assert_durable(self, state: Path) -> None:
        """No power cut could undo it."""
        assert self.names == {p.name: p.stat().st_ino for p in state.iterdir()}
        for path in state.glob("link*"):
            assert self.contents[path.stat().st_ino] == path.read_bytes()

    def octets(self, inode: int) -> bytes | None:
        return self.contents.get(inode)

    def copy(self, step: str, names: dict[str, int], now: dict[int, bytes]) -> None:
        """Names of one file stay names of one file."""
        target = self.folder / str(len(self.moments))
        target.mkdir(parents=True)
        first: dict[int, Path] = {}
        for name, inode in sorted(names.items()):
            if inode in first:
                os.link(first[inode], target / name)
                continue
            first[inode] = target / name
            (target / name).write_bytes(now.get(inode, b""))
            (target / name).chmod(0o600)
        self.moments.append((step, target))

    @contextmanager
    def watching(self, state: Path) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            busy = False

            def watch(call: str) -> None:
                real = getattr(os, call)

                def watched(first: Any, *args: Any, **named: Any) -> Any:
                    nonlocal busy
                    if busy:
                        return real(first, *args, **named)
                    busy = True
                    path = first
                    if isinstance(first, int):
                        path = Path(f"/proc/self/fd/{first}").readlink()
                    self.take(state, f"{call} {Path(path).name}")
                    try:
                        result = real(first, *args, **named)
                    finally:
                        busy = False
                    if call == "fsync" and Path(path) == state:
                        found = {p.name: p.stat().st_ino for p in state.iterdir()}
                        self.names = found
                    elif call == "fsync":
                        inode = os.fstat(first).st_ino
                        self.contents[inode] = Path(path).read_bytes()
                    return result

                patch.setattr(os, call, watched)

            for call in ("link", "rename", "replace", "unlink", "fsync", "pwrite"):
                watch(call)
            yield


def test_each_instant_of_the_switch(state: Path, tmp_path: Path) -> None:
    """Whatever ends it, the old key is in force, the new one beside it or not at all."""
    (old,) = load_link_keys(state)
    album = Album(tmp_path / "album")
    album.synced(state)
    steps(state, lambda: change(state), album)
    album.assert_durable(state)
    assert len(album.moments) > 20
    found = set()
    for step, folder in album.moments:
        keys = load_link_keys(folder)
        assert keys in ([old], [new_key(), old]), step
        found.add(len(keys))
        with locked(folder / LOCK_NAME):
            tidy(folder)
        assert load_link_keys(folder) == keys, step
        assert holding(folder, new_key()) == ["link.key"][: len(keys) - 1], step
        if len(keys) == 1:  # it did not happen: the next one does
            change(folder, "third", NOW + 1)
            assert load_link_keys(folder) == [new_key("third"), old], step
        else:
            rotation = take_up(folder, NOW, RAN)
            assert rotation is not None
            assert rotation.began == NOW, step
            end(folder)
            assert load_link_keys(folder) == [new_key()], step
    assert found == {1, 2}


def test_each_instant_of_the_end(state: Path, tmp_path: Path) -> None:
    """Whatever ends it, the new key is in force; the old one whole or not at all."""
    (old,) = load_link_keys(state)
    change(state)
    album = Album(tmp_path / "album")
    album.synced(state)
    inode = (state / "link-before.key").stat().st_ino
    steps(state, lambda: end(state), album)
    album.assert_durable(state)
    assert not album.contents[inode].strip(b"\0")
    assert len(album.moments) > 10
    found = set()
    for step, folder in album.moments:
        keys = load_link_keys(folder)
        assert keys in ([new_key(), old], [new_key()]), step
        found.add(len(keys))
        with locked(folder / LOCK_NAME):
            tidy(folder)
        assert load_link_keys(folder) in (keys, [new_key()]), step
        end(folder)
        assert load_link_keys(folder) == [new_key()], step
        assert holding(folder, old) == [], step
        change(folder, "third", NOW + AGAIN_SECONDS)
    assert found == {1, 2}


def test_each_instant_of_tidying_after_half_a_rename(
    state: Path, tmp_path: Path
) -> None:
    """A file system without a journal may keep both names of the old key."""
    change(state)
    os.link(state / "link-before.key", state / "link-dead.key")
    album = Album(tmp_path / "album")
    album.synced(state)
    steps(state, lambda: tidy(state), album)
    album.assert_durable(state)
    for step, folder in album.moments:
        assert load_link_keys(folder)[0] == new_key(), step


def test_what_is_in_force_is_never_overwritten(state: Path) -> None:
    """A name of the key in force, where one of a dead key belongs."""
    (old,) = load_link_keys(state)
    for name in ("link-dead.key", "link-next.key", "link-before.key"):
        os.link(key_path(state, "link"), state / name)
        tidy(state)
        assert load_link_keys(state) == [old]
        assert not (state / name).exists()


# Disks that refuse


def test_a_full_disk_changes_nothing(state: Path) -> None:
    keys = load_link_keys(state)
    (state / LOCK_NAME).touch()
    with full_disk(), pytest.raises(IoError, match="File too large"):
        change(state)
    assert load_link_keys(state) == keys
    change(state)
    assert load_link_keys(state) == [new_key(), *keys]


def test_a_folder_that_may_not_be_written() -> None:
    refusal = pytest.raises(CannotCreateError, match="Permission denied")
    with forbidden_folder() as folder, refusal:
        change(folder)


def test_what_lies_where_the_lock_belongs(state: Path) -> None:
    (state / LOCK_NAME).mkdir()
    with pytest.raises(CannotCreateError):
        change(state)


def test_what_cannot_be_read_stops_it(state: Path) -> None:
    (state / "rotation").mkdir()
    with pytest.raises(IoError, match="rotation: Is a directory"):
        change(state)
    (state / "rotation").rmdir()
    (state / "link-next.key").mkdir()
    with pytest.raises(IoError, match="link-next"):
        change(state)


def test_a_folder_that_became_read_only(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted", "link.key")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(CannotCreateError, match=r"link\.key: Operation not"):
        change(state)
