# SPDX-License-Identifier: MIT
"""Some steps of each operation cancelled; all of them: scripts/cancel --all.

And what finds the leaks is tried itself, on operations that leave something.
"""

import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mesh.core.crypto import Key
from tests.node.cancelling import Operation, Some, Trial, run_one
from tests.node.operations import OPERATIONS

CUTS = 2
"""Of an operation, spread evenly over its steps."""
pytestmark = pytest.mark.usefixtures("small", "quick")


@pytest.mark.parametrize("name", OPERATIONS)
def test_cancelled_it_leaves_nothing(name: str) -> None:
    assert run_one(OPERATIONS[name], Some(CUTS, list(OPERATIONS).index(name)))


Kept = list[object]
"""What an operation has until it tidies up: the one that is cancelled does not."""


async def leave_task(world: trio.Nursery, _kept: Kept) -> None:
    scope = trio.CancelScope()

    async def stay() -> None:
        with scope:
            await trio.sleep_forever()

    world.start_soon(stay)
    await trio.sleep(1)
    scope.cancel()


async def leave_file(_world: trio.Nursery, _kept: Kept) -> None:
    number = os.open("/dev/null", os.O_RDONLY)
    await trio.sleep(1)
    os.close(number)


async def leave_key(_world: trio.Nursery, kept: Kept) -> None:
    kept.append(Key.from_bytes(bytes(32)))
    await trio.sleep(1)
    kept.clear()


async def leave_child(_world: trio.Nursery, kept: Kept) -> None:
    child = subprocess.Popen(  # noqa: ASYNC220  # it is not waited for, that is it
        ["/bin/cat"], stdin=subprocess.DEVNULL
    )
    kept.append(child)
    await trio.sleep(1)
    child.wait()


async def leave_promise(_world: trio.Nursery, kept: Kept) -> None:
    kept.append("promise")
    await trio.sleep(1)
    kept.remove("promise")


@pytest.mark.parametrize(
    ("leave", "said"),
    [
        (leave_task, "tasks: more"),
        (leave_file, "files: more"),
        (leave_key, "keys of"),
        (leave_child, "children: more"),
        (leave_promise, "a broken promise"),
    ],
)
def test_what_is_left_is_found(
    leave: Callable[[trio.Nursery, Kept], Awaitable[None]], said: str
) -> None:
    kept: Kept = []

    @asynccontextmanager
    async def world(_folder: Path) -> AsyncIterator[Trial]:
        async with trio.open_nursery() as nursery:

            async def act() -> None:
                await leave(nursery, kept)

            async def check(_cut: bool) -> None:
                assert "promise" not in kept, "a broken promise"

            yield Trial(act, check)
            nursery.cancel_scope.cancel()

    try:
        with pytest.raises(BaseException) as raised:  # noqa: PT011  # a group of one
            run_one(Operation(world))
        error: BaseException = raised.value
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        assert said in str(error)
        assert "step 1" in str(error)
    finally:
        for child in kept:
            if isinstance(child, subprocess.Popen):
                child.wait()
