# SPDX-License-Identifier: MIT
"""The shared directory's files: what lies in their place, and every instant of a write."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.core.document import Document, armour
from mesh.errors import IoError
from mesh.node.archive import EVIDENCE_MAX, Archive
from tests.descriptors import NOW, signed, text_of
from tests.directories import directory, members
from tests.disk import full_disk
from tests.node.pictures import Camera
from tests.node.registries import DAN, FIRST, SECOND

LONG = "x" * 999
DAN_LATER = directory(
    directory(DAN, by=("dan", "eve")), members("alpha"), by=("dan", "eve")
)


def begun(state: Path, document: Document = FIRST) -> Archive:
    archive = Archive(state)
    archive.begin(None, document)
    return archive


def in_force(state: Path) -> tuple[Document | None, list[str]]:
    trusted, mistakes = Archive(state).load("main", NOW)
    return trusted.document, mistakes


def test_nothing_is_there(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    assert in_force(tmp_path) == (None, [])
    assert archive.anchor() == ""
    assert archive.withheld() == {}
    assert archive.signed() == (0, b"")
    assert list(archive.descriptors_untrusted()) == []
    assert archive.evidence() == []
    assert list(tmp_path.iterdir()) == []


def test_begin_and_adopt(tmp_path: Path) -> None:
    archive = begun(tmp_path)
    assert in_force(tmp_path) == (FIRST, [])
    assert archive.anchor() == FIRST.root.fingerprint
    archive.adopt(SECOND, ["mix@else.test"], 0.0)
    assert in_force(tmp_path) == (SECOND, [])
    assert list(archive.withheld()) == ["mix@else.test"]
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["directory.mesh", "directory.copy"])
@pytest.mark.parametrize(
    ("put", "why"),
    [
        (lambda p: p.unlink(), "not there"),
        (lambda p: (p.unlink(), p.mkdir()), "not a regular file"),
        (lambda p: (p.unlink(), p.symlink_to("/dev/zero")), "a symbolic link"),
        (lambda p: p.write_text(""), "no directory in it"),
        (lambda p: p.write_text(armour(SECOND)[:-20]), "damaged"),
        (lambda p: p.write_bytes(bytes(50 << 20)), "more than 24 MiB"),
        (lambda p: p.write_text(armour(DAN_LATER)), "which nobody has adopted here"),
        (lambda p: p.write_text(armour(FIRST)), "version 2 of root 1 is in force"),
    ],
)
def test_whatever_lies_in_the_place_of_one_the_other_counts(
    tmp_path: Path, name: str, put: Callable[[Path], object], why: str
) -> None:
    archive = begun(tmp_path)
    archive.adopt(SECOND)
    put(tmp_path / name)
    document, mistakes = in_force(tmp_path)
    assert document == SECOND
    if name == "directory.copy" and "in force" in why:
        assert mistakes == []  # as a kill between the two leaves it
    else:
        (line,) = mistakes
        assert line.startswith(f"{tmp_path}/{name}")
        assert why in line


def test_both_of_another_network(tmp_path: Path) -> None:
    begun(tmp_path)
    trusted, mistakes = Archive(tmp_path).load("else", NOW)
    assert trusted.document is None
    assert mistakes == [
        f"{tmp_path}/directory.{which}: of the network main: this node is of else"
        for which in ("copy", "mesh")
    ]


def test_without_the_anchor_nothing_counts(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "directory.root").write_text(LONG * 2)
    document, mistakes = in_force(tmp_path)
    assert document is None
    assert "which nobody has adopted here" in mistakes[0]


def test_every_instant_of_adopting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    archive = begun(state)
    with monkeypatch.context() as patch:
        camera = Camera(state, tmp_path / "album", patch)
        archive.adopt(SECOND, ["mix@else.test"], 0.0)
    check(camera, FIRST, SECOND)
    withheld = [
        "mix@else.test" in Archive(at).withheld()
        for _, at in camera.pictures
        if in_force(at)[0] == SECOND
    ]
    assert len(withheld) > 3
    assert all(withheld)


def test_every_instant_of_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with monkeypatch.context() as patch:
        camera = Camera(state, tmp_path / "album", patch)
        begun(state)
    check(camera, None, FIRST)


@pytest.mark.parametrize("damaged", ["", "directory.mesh", "directory.copy"])
def test_every_instant_of_beginning_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    """With other signers, also where one of the two files does not hold."""
    state = tmp_path / "state"
    state.mkdir()
    archive = begun(state)
    if damaged:
        (state / damaged).write_text("rubbish")
    with monkeypatch.context() as patch:
        camera = Camera(state, tmp_path / "album", patch)
        archive.begin(FIRST, DAN, ["mix@else.test"])
    check(camera, FIRST, DAN)


def check(camera: Camera, old: Document | None, new: Document) -> None:
    """Old, then new, never neither; and whatever was left is written over."""
    found = [in_force(at)[0] for _, at in camera.pictures]
    assert all(document in (old, new) for document in found)
    assert found[0] == old
    assert found[-3:] == [new] * 3
    for _, at in camera.pictures[::3]:  # as a kill left them
        Archive(at).begin(old, new, ["mix@else.test"])
        assert in_force(at) == (new, [])
        assert not list(at.glob(".*.new"))


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    archive = begun(tmp_path)
    descriptor = signed("alpha")
    writes: list[Callable[[], object]] = [
        lambda: archive.begin(FIRST, DAN),
        lambda: archive.adopt(SECOND, ["mix@else.test"], 0.0),
        lambda: archive.shelve(descriptor),
        lambda: archive.keep_evidence(SECOND),
        lambda: archive.note_signed(1, bytes(32)),
    ]
    with full_disk():
        for write in writes:
            with pytest.raises(IoError, match="too large"):
                write()
    assert in_force(tmp_path) == (FIRST, [])
    assert archive.evidence() == []
    assert list(archive.descriptors_untrusted()) == []
    assert archive.signed() == (0, b"")


def test_the_shelf(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    alpha, bravo = signed("alpha", serial=9), signed("bravo")
    archive.shelve(signed("alpha"))
    archive.shelve(alpha)
    archive.shelve(bravo)
    assert set(archive.descriptors_untrusted()) == {alpha, bravo}
    assert archive.shelved() == {alpha.identity, bravo.identity}
    shelf = tmp_path / "descriptors"
    (shelf / "0.mesh").write_text("x")
    (shelf / f"{'0' * 64}.mesh").mkdir()
    (shelf / f"{bravo.identity.hex()}.mesh").write_text(text_of("bravo")[:-9])
    assert set(archive.descriptors_untrusted()) == {alpha}
    archive.unshelve([alpha.identity, bytes(32)])
    assert archive.shelved() == {bravo.identity, bytes(32)}


def test_the_evidence_is_bounded_and_kept_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.keep_evidence(FIRST, SECOND, FIRST)
    assert [path.name[:2] for path in archive.evidence()] == ["1-", "2-"]
    stamp = archive.stamp()
    archive.keep_evidence(FIRST, SECOND)
    assert archive.stamp() == stamp
    for n in range(EVIDENCE_MAX + 3):
        archive.keep_evidence(directory(FIRST, members("alpha", serial=20 + n)))
    assert len(archive.evidence()) == EVIDENCE_MAX
    (tmp_path / "evidence" / "note").touch()
    assert len(archive.evidence()) == EVIDENCE_MAX


def test_what_was_signed(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.note_signed(7, bytes(range(32)))
    assert archive.signed() == (7, bytes(range(32)))
    (tmp_path / "directory.signed").write_text("7 zz\n")
    assert archive.signed() == (0, b"")
