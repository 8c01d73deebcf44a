# SPDX-License-Identifier: MIT
"""Counts that survive a restart, whatever the clock says after it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh.core.encoding import encode
from mesh.errors import ConfigError
from mesh.node.counters import (
    BLOCK,
    RETIRED_MAX,
    OwnCounter,
    PeerCounters,
    replace_file,
)

A, B = b"a" * 32, b"b" * 32


def test_ours_only_grow_also_when_the_clock_went_back(tmp_path: Path) -> None:
    path = tmp_path / "counter"
    first = OwnCounter(path, 10**18)
    drawn = [first.next() for _ in range(3)]
    assert drawn == sorted(set(drawn))
    assert drawn[0] >= 10**18
    second = OwnCounter(path, 5)
    assert second.next() > drawn[-1]
    third = OwnCounter(path, 10**18 + 9 * BLOCK)
    assert third.next() > 10**18 + 9 * BLOCK


def test_a_peer_s_last_one_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    counters = PeerCounters(path)
    assert counters.last == {}
    counters.save(counters.prove(A, 7))
    counters.save(counters.prove(B, 9))
    counters.save(counters.prove(A, 3))  # an older proof changes nothing
    assert PeerCounters(path).last == {A: 7, B: 9}


def test_what_was_not_proven_is_not_durable(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    counters = PeerCounters(path)
    counters.last[A] = 99  # as the gate notes a hello
    counters.save(counters.prove(B, 1))
    assert PeerCounters(path).last == {B: 1}


def test_keys_that_peers_have_changed_are_left_out_some_time(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    counters = PeerCounters(path)
    counters.prove(A, 7)
    longest = 0
    for number in range(RETIRED_MAX + 5):
        key = b"%032d" % number
        longest = max(longest, len(counters.prove(key, 1)))
        del counters.last[key]
    assert longest > 36 * RETIRED_MAX
    counters.save(counters.prove(B, 9))
    found = PeerCounters(path).last
    assert (found[A], found[B], len(found) < 9) == (7, 9, True)


def test_a_damaged_file_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "counters"
    path.write_bytes(b"\xff\xff")
    with pytest.raises(ConfigError, match="counters"):
        PeerCounters(path)


@pytest.mark.parametrize("odd", [None, 7, [7], [[A]], [[A, "x"]], [["x", 1]]])
def test_rows_of_another_shape_count_for_nothing(tmp_path: Path, odd: object) -> None:
    path = tmp_path / "counters"
    path.write_bytes(encode(odd))  # type: ignore[arg-type]
    assert PeerCounters(path).last == {}
    assert OwnCounter(path, 5).next() > 5


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


@contextmanager
def no_room_beside(code: int = errno.ENOSPC) -> Iterator[None]:
    """Within it no file can be made; those that are there keep their room."""
    real = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            raise OSError(code, os.strerror(code))
        return real(path, flags, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mesh.node.counters.os.open", refuse)
        yield


def test_a_full_disk_neither_stops_a_start_nor_a_known_peer(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "counter", tmp_path / "counters"
    first = OwnCounter(ours, 10**18).next()
    counters = PeerCounters(theirs)
    counters.save(counters.prove(A, 10**18))
    with no_room_beside():
        assert OwnCounter(ours, 10**18).next() > first
        counters.save(counters.prove(A, 10**18 + 1))
    assert OwnCounter(ours, 10**18).next() > first + BLOCK
    assert PeerCounters(theirs).last == {A: 10**18 + 1}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_what_is_not_durable_is_an_error(tmp_path: Path, code: int) -> None:
    path = tmp_path / "counters"
    counters = PeerCounters(path)
    with no_room_beside(code), pytest.raises(OSError, match=os.strerror(code)):
        counters.save(counters.prove(A, 10**18))
    counters.save(counters.prove(A, 10**18))
    longer = counters.prove(B, 10**18)
    with no_room_beside(code), pytest.raises(OSError, match=os.strerror(code)):
        counters.save(longer)
    assert PeerCounters(path).last == {A: 10**18}


def test_a_disk_that_fails_in_another_way_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"one")
    with no_room_beside(errno.EIO), pytest.raises(OSError, match="error"):
        replace_file(path, b"two")
    assert path.read_bytes() == b"one"


def test_a_write_that_is_cut_short_goes_on(tmp_path: Path) -> None:
    real = os.pwrite
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "mesh.node.copies.os.pwrite",
            lambda fd, data, offset: real(fd, data[:2], offset),
        )
        replace_file(tmp_path / "file", b"seven octets")
    assert (tmp_path / "file").read_bytes() == b"seven octets"
