# SPDX-License-Identifier: MIT
"""The private halves of one-time keys: always one in each slot, and old ones gone."""

import os
from pathlib import Path

import pytest

from mesh.core.crypto import Key, x25519_public
from mesh.core.drop import SLOTS
from mesh.errors import CannotCreateError, IoError
from mesh.node.onetime import BLOCK_LEN, OneTimeKeys
from tests.disk import full_disk
from tests.harness import FixedEntropy
from tests.node.dropping import few_slots, make_keys, wrapping


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "whole" not in request.node.name:
        few_slots(monkeypatch)


def test_keys_are_kept(tmp_path: Path) -> None:
    first = make_keys(tmp_path)
    ones = [first.one(slot) for slot in range(8)]
    assert first.new == set(range(8))
    first.close()
    again = make_keys(tmp_path, "other")
    assert [again.one(slot) for slot in range(8)] == ones
    assert again.new == set()
    for slot in range(8):
        assert x25519_public(again.private(slot)) == ones[slot].public
    assert len({one.id for one in ones} | {one.public for one in ones}) == 16
    again.close()
    assert (tmp_path / "drop.keys").stat().st_mode & 0o777 == 0o600


def test_a_key_is_destroyed_by_the_next(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    before = (tmp_path / "drop.keys").read_bytes()
    ones = [keys.one(slot) for slot in range(8)]
    fresh = {slot: keys.draw(slot) for slot in (5, 1, 2)}
    keys.write(fresh)
    assert keys.one(1) == ones[1]
    keys.adopt(fresh)
    assert keys.one(1) == fresh[1].one != ones[1]
    keys.close()
    after = (tmp_path / "drop.keys").read_bytes()
    for slot in range(8):
        place = slice(slot * BLOCK_LEN, (slot + 1) * BLOCK_LEN)
        assert (before[place] == after[place]) == (slot not in fresh)
    again = make_keys(tmp_path, "again")
    assert [again.one(slot) for slot in (1, 2, 5)] == [fresh[s].one for s in (1, 2, 5)]
    assert [again.one(slot) for slot in (0, 3, 4)] == [ones[s] for s in (0, 3, 4)]
    again.close()


def test_no_private_half_lies_open(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    octets = (tmp_path / "drop.keys").read_bytes()
    for slot in range(8):
        assert keys.private(slot).unsafe_bytes() not in octets
        assert keys.one(slot).public not in octets
    keys.close()


def test_damage_costs_one_key(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    ones = [keys.one(slot) for slot in range(8)]
    keys.close()
    file = tmp_path / "drop.keys"
    octets = bytearray(file.read_bytes())
    octets[3 * BLOCK_LEN : 3 * BLOCK_LEN + 512] = bytes(512)
    file.write_bytes(octets)
    keys = make_keys(tmp_path, "mended")
    assert keys.new == {3}
    assert [s for s in range(8) if keys.one(s) != ones[s]] == [3]
    keys.close()
    octets[0:BLOCK_LEN], octets[BLOCK_LEN : 2 * BLOCK_LEN] = (
        octets[BLOCK_LEN : 2 * BLOCK_LEN],
        octets[0:BLOCK_LEN],
    )
    file.write_bytes(octets[: 5 * BLOCK_LEN + 100])
    keys = make_keys(tmp_path, "moved and cut")
    assert keys.new == {0, 1, 3, 5, 6, 7}
    keys.close()


def test_another_spool_key_opens_nothing(tmp_path: Path) -> None:
    make_keys(tmp_path).close()
    other = Key.from_bytes(b"o" * 32)
    keys = OneTimeKeys.open(tmp_path / "drop.keys", other, FixedEntropy("o"))
    assert keys.new == set(range(8))
    keys.close()


def test_disks_that_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotCreateError, match="No such file"):
        make_keys(tmp_path / "nowhere")
    (tmp_path / "drop.keys").symlink_to("elsewhere")
    with pytest.raises(CannotCreateError):
        make_keys(tmp_path)
    (tmp_path / "drop.keys").unlink()
    with full_disk(), pytest.raises(IoError, match=r"drop.keys: File too large"):
        make_keys(tmp_path)
    keys = make_keys(tmp_path)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error", fd)

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(IoError, match="Input/output"):
        keys.write({1: keys.draw(1)})
    keys.close()
    monkeypatch.setattr(os, "fchmod", lambda fd, _: fail(fd))
    with pytest.raises(IoError, match="Input/output"):
        make_keys(tmp_path)


def test_the_whole_file_has_a_block_a_slot(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    assert (tmp_path / "drop.keys").stat().st_size == SLOTS * BLOCK_LEN
    assert len({keys.one(slot).id for slot in range(SLOTS)}) == SLOTS
    assert wrapping() == wrapping()
    keys.close()
