# SPDX-License-Identifier: MIT
"""The writer: jobs in order, a full disk forgiven, any other failure final."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from mesh.errors import IoError, SpoolFullError
from mesh.node.writer import Writer


@asynccontextmanager
async def started() -> AsyncIterator[Writer]:
    writer = Writer()
    writer.start()
    yield writer
    await writer.stop()


def fail(error: BaseException) -> None:
    raise error


async def test_jobs_run_in_order_in_one_other_thread() -> None:
    ran: list[tuple[int, int]] = []
    heard: list[tuple[BaseException | None, int]] = []
    async with started() as writer:
        for number in range(20):
            writer.submit(
                lambda number=number: ran.append((number, threading.get_ident())),  # type: ignore[misc]
                lambda _, error: heard.append((error, threading.get_ident())),
            )
        assert not heard
    # stop() has delivered everything.
    here = threading.get_ident()
    assert heard == [(None, here)] * 20
    assert [number for number, _ in ran] == list(range(20))
    assert here not in {ident for _, ident in ran}


async def test_a_call_gives_the_result_even_when_cancelled() -> None:
    async with started() as writer:
        assert await writer.call(lambda: 42) == 42
        with trio.CancelScope() as scope:
            scope.cancel()
            assert await writer.call(lambda: 43) == 43


async def test_who_calls_after_the_stop_waits_for_its_own_end(
    autojump_clock: MockClock,
) -> None:
    """Else a node whose spool ended first, as a failing disk has it, would never end."""
    async with started() as writer:
        pass
    with trio.move_on_after(1) as patience:
        await writer.call(lambda: 42)
    assert patience.cancelled_caught


async def test_a_full_disk_is_forgiven() -> None:
    async with started() as writer:
        with pytest.raises(SpoolFullError):
            await writer.call(lambda: fail(SpoolFullError("full")))
        assert await writer.call(lambda: 1) == 1


@pytest.mark.parametrize(
    ("error", "seen"), [(OSError("gone"), IoError), (KeyError("bug"), KeyError)]
)
async def test_after_a_failure_nothing_runs(
    error: BaseException, seen: type[BaseException]
) -> None:
    async with started() as writer:
        for job in (lambda: fail(error), lambda: None):
            with pytest.raises(seen):
                await writer.call(job)


def test_a_loop_that_has_ended_is_nobody_to_tell() -> None:
    writer = Writer()
    go = threading.Event()

    async def leave() -> None:
        writer.start()
        writer.submit(go.wait, lambda _, __: None)

    trio.run(leave)
    go.set()
    writer._thread.join(10)
    assert not writer._thread.is_alive()
