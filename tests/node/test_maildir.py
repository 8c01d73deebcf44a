# SPDX-License-Identifier: MIT
"""Files in a Maildir: modes, names, and a delivery that finds its own."""

import os
from pathlib import Path

import pytest

from mesh.node.maildir import Letter, deliver
from tests.disk import full_disk

NAME, OTHER = "0" * 32, "1" * 32


def letter(
    name: str = NAME, octets: bytes = b"x\n", *, repeated: bool = False
) -> Letter:
    return Letter(name, octets, repeated)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folders_and_files_are_the_owner_s_alone(tmp_path: Path) -> None:
    maildir = tmp_path / "Maildir"
    assert deliver(maildir, [letter(octets=b"a\nb\n")]) == 1
    assert names(maildir) == ["cur", "new", "tmp"]
    for folder in (maildir, *maildir.iterdir()):
        assert folder.stat().st_mode & 0o777 == 0o700
    file = maildir / "new" / NAME
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == b"a\nb\n"
    assert not names(maildir / "tmp")


def test_a_repeated_delivery_finds_its_file(tmp_path: Path) -> None:
    assert deliver(tmp_path, [letter()]) == 1
    again = letter(octets=b"not written\n", repeated=True)
    assert deliver(tmp_path, [again]) == 1
    assert (tmp_path / "new" / NAME).read_bytes() == b"x\n"
    (tmp_path / "new" / NAME).rename(tmp_path / "cur" / f"{NAME}:2,S")
    assert deliver(tmp_path, [again, letter(OTHER, repeated=True)]) == 2
    assert names(tmp_path / "new") == [OTHER]
    assert names(tmp_path / "cur") == [f"{NAME}:2,S"]


def test_what_a_crash_left_in_tmp_is_written_over(tmp_path: Path) -> None:
    deliver(tmp_path, [])
    (tmp_path / "tmp" / NAME).write_bytes(b"half")
    assert deliver(tmp_path, [letter()]) == 1
    assert (tmp_path / "new" / NAME).read_bytes() == b"x\n"
    assert not names(tmp_path / "tmp")


def test_what_was_written_before_the_disk_was_full_counts(tmp_path: Path) -> None:
    letters = [letter(), letter(OTHER, b"more than ten octets\n"), letter("2" * 32)]
    with full_disk():
        assert deliver(tmp_path, letters) == 1
    assert names(tmp_path / "new") == [NAME]
    assert not names(tmp_path / "tmp")
    repeated = [each._replace(repeated=True) for each in letters[1:]]
    assert deliver(tmp_path, repeated) == 2
    assert (tmp_path / "new" / OTHER).read_bytes() == b"more than ten octets\n"


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Watch fsync: the paths, as they come."""
    paths: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        paths.append(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    return paths


def test_a_folder_that_a_killed_process_made_becomes_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maildir = tmp_path / "Maildir"
    for folder in (maildir, maildir / "tmp", maildir / "new", maildir / "cur"):
        folder.mkdir()
    paths = synced(monkeypatch)
    assert deliver(maildir, [letter()]) == 1
    assert {str(tmp_path), str(maildir)} <= set(paths)
    del paths[:]
    assert deliver(maildir, [letter(OTHER)], is_known=True) == 1
    assert paths == [str(maildir / "tmp" / OTHER), str(maildir / "new")]


@pytest.mark.parametrize("at", [".", "tmp", "new"])
def test_what_cannot_be_a_folder_takes_nothing(tmp_path: Path, at: str) -> None:
    maildir = tmp_path / "Maildir"
    if at != ".":
        maildir.mkdir()
    (maildir / at).write_bytes(b"in the way")
    assert deliver(maildir, [letter()]) == 0


def test_no_link_in_tmp_leads_out(tmp_path: Path) -> None:
    deliver(tmp_path, [])
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "tmp" / NAME).symlink_to(victim)
    assert deliver(tmp_path, [letter()]) == 1
    assert victim.read_bytes() == b"mine"
    assert not os.path.islink(tmp_path / "new" / NAME)  # noqa: PTH114
