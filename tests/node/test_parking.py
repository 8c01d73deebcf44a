# SPDX-License-Identifier: MIT
"""One task parks, anybody wakes it."""

import trio
from trio.testing import MockClock

from mesh.node.parking import Parking


async def test_wake_lets_the_parked_task_go_on(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    parking, woken = Parking(), []

    async def sleeper() -> None:
        for number in range(2):
            await parking.park()
            woken.append(number)

    parking.wake()  # nobody is there: nothing is kept
    nursery.start_soon(sleeper)
    await trio.sleep(1)
    assert not woken
    parking.wake()
    parking.wake()  # it goes on already
    await trio.sleep(1)
    assert woken == [0]
    parking.wake()
    await trio.sleep(1)
    assert woken == [0, 1]


async def test_a_cancelled_wait_is_over(autojump_clock: MockClock) -> None:
    parking = Parking()
    with trio.move_on_after(1) as scope:
        await parking.park()
    assert scope.cancelled_caught
    parking.wake()  # and wakes nobody
    with trio.move_on_after(1) as scope:
        await parking.park()
    assert scope.cancelled_caught
