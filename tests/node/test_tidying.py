# SPDX-License-Identifier: MIT
"""Rows go as fast as they die, the WAL stays short, and no room costs a turn."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mesh.errors import SpoolFullError
from mesh.node import tidying
from mesh.node.groups import Groups
from mesh.node.tidying import Tidying
from mesh.node.writer import Writer

SALT, ENTRY, HEAD = bytes(11), bytes(12) + b"\0\0\x10\0", bytes(1024)


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Groups]:
    made = Groups(tmp_path / "spool.db")
    for number in range(1, 201):
        made.insert(number, SALT, ENTRY, HEAD, bytes(4096))
    yield made
    made.close()


def rows(groups: Groups) -> list[int]:
    return [row.id for row in groups.scan()]


async def test_a_turn_deletes_all_there_is_but_no_more_than_it_may(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer()
    writer.start()
    failures: list[BaseException] = []
    tidy = Tidying(groups, writer, failures.append)
    tidy.dead.extend(range(1, 191))
    monkeypatch.setattr(tidying, "DELETE_MAX", 128)
    await tidy.delete(190)
    assert rows(groups) == list(range(129, 201))
    await tidy.delete(62)
    assert rows(groups) == list(range(191, 201))
    assert not tidy.dead
    await tidy.delete(0)
    await writer.stop()
    assert not failures


async def test_without_room_they_are_deleted_later(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer()
    writer.start()
    tidy = Tidying(groups, writer, lambda _: None)
    tidy.dead.extend(range(1, 101))

    def full(_: object) -> None:
        raise SpoolFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(groups, "delete", full)
        await tidy.delete(100)
    assert list(tidy.dead) == list(range(1, 101))
    await tidy.delete(100)
    assert rows(groups) == list(range(101, 201))
    await writer.stop()


async def test_what_was_emptied_later_stays(groups: Groups) -> None:
    writer = Writer()
    writer.start()
    tidy = Tidying(groups, writer, lambda _: None)
    tidy.dead.extend(range(1, 151))
    await tidy.delete(90)
    assert rows(groups) == list(range(91, 201))
    assert list(tidy.dead) == list(range(91, 151))
    await writer.stop()


async def test_a_checkpoint_that_fails_is_told_but_for_want_of_room(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [SpoolFullError("no room"), OSError("gone")]
    failures: list[BaseException] = []
    heard = trio.Event()

    def failed(error: BaseException) -> None:
        failures.append(error)
        heard.set()

    def fail(*, last: bool) -> None:
        assert not last
        raise errors.pop(0)

    writer = Writer()
    writer.start()
    groups.checkpoint(last=True)
    monkeypatch.setattr(groups, "checkpoint", fail)
    tidy = Tidying(groups, writer, failed)
    tidy.wrote(1)
    tidy.turn()
    assert len(errors) == 2  # something came since the last turn
    tidy.turn()
    tidy.wrote(tidying.CHECKPOINT_OCTETS + 1)
    await heard.wait()
    assert len(failures) == 1
    assert "gone" in str(failures[0])
    await writer.stop()


async def test_the_wal_is_about_as_long_as_it_is_reckoned(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a start after a crash would read hundreds of megabytes of small groups."""
    groups.checkpoint(last=True)
    assert groups.wal_octets() == 0
    monkeypatch.setattr(tidying, "CHECKPOINT_OCTETS", 1 << 40)
    writer = Writer()
    writer.start()
    tidy = Tidying(groups, writer, lambda _: None)
    for number in range(201, 242):
        octets = number % 7 * 20_000
        groups.insert(number, SALT, ENTRY, HEAD, bytes(octets))
        tidy.wrote(octets)
    assert 0.8 < groups.wal_octets() / tidy.reckoned < 1.2
    tidy.dead.extend(range(101, 242))
    await tidy.delete(len(tidy.dead))
    assert 0.5 < groups.wal_octets() / tidy.reckoned < 1.1
    await writer.stop()


async def test_what_a_crash_left_in_the_wal_counts(groups: Groups) -> None:
    writer = Writer()
    writer.start()
    left = groups.wal_octets()
    assert left > 200 * 2 * 32_768
    tidy = Tidying(groups, writer, lambda _: None)
    assert tidy.reckoned == left
    tidy.turn()
    tidy.turn()  # nothing came since
    assert tidy.reckoned == 0
    await writer.stop()
    groups.insert(201, SALT, ENTRY, HEAD, bytes(4096))
    assert groups.wal_octets() == left  # begun anew, not longer
