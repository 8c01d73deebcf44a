# SPDX-License-Identifier: MIT
"""What a guard stops, what it lets through, and what it says."""

import pytest
import trio
import trio.testing

from mesh.errors import (
    IoError,
    LocalProtocolError,
    SpoolCorruptError,
    SpoolFullError,
)
from mesh.node.guard import Guard

SECRET = "who@secret.example"


@pytest.mark.parametrize(
    "bug",
    [
        RuntimeError(SECRET),
        OSError(5, SECRET),
        MemoryError(),
        UnicodeError(SECRET),
        AssertionError(),
        LocalProtocolError(SECRET),
        SpoolFullError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET), ExceptionGroup("", [KeyError(1)])]),
    ],
    ids=repr,
)
def test_a_bug_is_counted_and_goes_no_further(bug: Exception) -> None:
    guard, ended = Guard(), []
    with guard(lambda: ended.append(1)):
        raise bug
    with guard():
        raise bug
    assert guard.bugs == 2
    assert ended == [1]
    (line,) = guard.notices()
    assert line.startswith("2 connections or deliveries ended by a bug, ")
    assert " at test_guard.py:" in line or " at an unknown place" in line
    assert SECRET not in line
    assert not [o for o in vars(guard).values() if isinstance(o, BaseException)]


class NotOursError(BaseException):
    pass


@pytest.mark.parametrize(
    "other",
    [
        IoError("the disk"),
        SpoolCorruptError("the disk"),
        KeyboardInterrupt(),
        SystemExit(),
        NotOursError(),
        BaseExceptionGroup("", [NotOursError()]),
        ExceptionGroup("", [IoError("the disk")]),
    ],
    ids=repr,
)
def test_what_is_no_bug_goes_on(other: BaseException) -> None:
    guard, ended = Guard(), []
    with (
        pytest.raises(type(other)) as raised,
        guard(lambda: ended.append(1)),
    ):
        raise other
    assert raised.value is other
    assert (guard.bugs, ended, guard.notices()) == (0, [], [])


def test_of_a_group_the_bug_stays_and_the_rest_goes_on() -> None:
    guard, disk = Guard(), IoError("the disk")
    with pytest.raises(ExceptionGroup) as raised, guard():
        raise ExceptionGroup("", [RuntimeError(SECRET), ExceptionGroup("", [disk])])
    assert guard.bugs == 1
    (inner,) = raised.value.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert inner.exceptions == (disk,)


def test_an_end_that_fails_ends_all_the_same() -> None:
    guard = Guard()

    def end() -> None:
        raise KeyError(SECRET)

    with guard(end):
        raise RuntimeError(SECRET)
    assert guard.bugs == 2
    assert "KeyError at test_guard.py:" in guard.notices()[0]


async def test_cancelled_beside_a_bug() -> None:
    """A task group in the connection ends with both; the outer scope gets its own."""
    guard = Guard()

    async def breaks() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError(SECRET)

    with trio.CancelScope() as outer:
        with guard():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(breaks)
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                outer.cancel()
        raise AssertionError("it went on")
    assert outer.cancelled_caught
    assert guard.bugs == 1
