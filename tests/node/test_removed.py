# SPDX-License-Identifier: MIT
"""What stays of those who were taken off the list."""

import os
from pathlib import Path

import pytest

from mesh.errors import DescriptorError
from mesh.node.removed import (
    Note,
    read_distrusted,
    read_withheld,
    withhold,
    write_distrusted,
)
from tests.descriptors import DAY, NOW

ONE, OTHER = bytes(range(32)), bytes(32)


def test_withheld_for_a_month_and_then_forgotten(tmp_path: Path) -> None:
    path = tmp_path / ".removed"
    path.write_text("nonsense\n2000-01-01 old@else.test\n2100-01-01 no address\n")
    withhold(path, ["list@else.test", "@bravo.test"], NOW)
    found = read_withheld(path)
    assert sorted(found) == ["@bravo.test", "list@else.test"]
    assert all(NOW + 30 * DAY <= until <= NOW + 31 * DAY for until in found.values())
    withhold(path, ["mix@carol.test"], NOW + 40 * DAY)
    assert list(read_withheld(path)) == ["mix@carol.test"]


def test_distrusted(tmp_path: Path) -> None:
    path = tmp_path / ".distrusted"
    assert read_distrusted(path) == {}
    write_distrusted(path, {ONE: "bravo", OTHER: "carol"})
    assert read_distrusted(path) == {ONE: "bravo", OTHER: "carol"}
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(f"bravo {ONE.hex()}\nx 00\n {OTHER.hex()}\ny {'g' * 64}\n\n")
    assert read_distrusted(path) == {ONE: "bravo"}


def test_what_lies_in_their_place_is_nobody_or_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "octets").write_bytes(os.urandom(999))
    for name in ("octets", "none"):
        assert read_withheld(tmp_path / name) == {}
        assert read_distrusted(tmp_path / name) == {}
    for name in ("fifo", "loop"):
        with pytest.raises(DescriptorError, match=name):
            read_withheld(tmp_path / name)
        with pytest.raises(DescriptorError, match=name):
            read_distrusted(tmp_path / name)


def test_a_note_goes_on_counting_while_it_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / ".distrusted"
    note = Note(path, read_distrusted)
    assert not note.poll()
    write_distrusted(path, {ONE: "bravo"})
    assert note.poll()
    assert not note.poll()
    assert note.value == {ONE: "bravo"}
    path.unlink()
    path.mkdir()
    assert note.poll()
    assert note.value == {ONE: "bravo"}
    assert note.mistake
    assert ".distrusted: not a regular file" in note.mistake
    path.rmdir()
    assert note.poll()
    assert note.value == {}
    assert not str(note.mistake or "")
