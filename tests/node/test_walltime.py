# SPDX-License-Identifier: MIT
"""Which of the machine's clocks a node believes, step by step."""

from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from mesh.node.walltime import LOOK_SECONDS, STANDS_SECONDS, STEP_SECONDS, WallTime
from tests.harness import until

NOW = 1_800_000_000.0
HOUR = 3600.0
DAY = 86_400.0


@dataclass
class Machine:
    """A machine with two clocks, of which somebody may set one."""

    ran: float = 5_000.0
    ahead: float = 0.0
    believed: WallTime = field(init=False)

    def __post_init__(self) -> None:
        self.believed = WallTime(self.wall, lambda: self.ran)

    def wall(self) -> float:
        return NOW + self.ran + self.ahead

    def run(self, seconds: float) -> None:
        self.ran += seconds
        self.believed.look()

    @property
    def wrong(self) -> float:
        """By how much the node's time is another than the true one."""
        return self.believed() - NOW - self.ran


def test_the_start_is_believed_and_time_goes_on() -> None:
    machine = Machine(ahead=400 * DAY)
    assert machine.believed() == machine.wall()
    machine.ran += 77.0
    assert machine.believed() == machine.wall()
    machine.believed.look()
    assert machine.believed() == machine.wall()
    assert not machine.believed.notices


@pytest.mark.parametrize("step", [HOUR, -2 * HOUR, 400 * DAY, -400 * DAY])
def test_a_step_is_reported_and_not_believed(step: float) -> None:
    machine = Machine()
    machine.ahead = step
    assert machine.wrong == 0  # without a look nothing is heard of it
    for _ in range(100):
        machine.run(1)
        assert machine.wrong == 0
        (line,) = machine.believed.notices
        assert ("ahead of" if step > 0 else "behind") in line
    machine.ahead = 0.0
    machine.run(1)
    assert machine.wrong == 0
    assert not machine.believed.notices


def test_a_step_is_named_with_its_size() -> None:
    machine = Machine()
    machine.ahead = -2 * HOUR
    machine.run(1)
    assert "2:00:00 behind" in machine.believed.notices[0]


def test_a_small_difference_is_followed() -> None:
    machine = Machine()
    for ahead in (STEP_SECONDS, 0.0, -STEP_SECONDS):
        machine.ahead = ahead
        machine.run(1)
        assert machine.wrong == pytest.approx(ahead)
        assert not machine.believed.notices


def test_a_step_that_stands_for_a_day_is_believed() -> None:
    machine = Machine()
    machine.ahead = HOUR
    machine.run(1)
    for _ in range(23):
        machine.ahead += 10.0  # it drifts, and stays the same step
        machine.run(HOUR)
        assert machine.wrong == 0
    machine.run(STANDS_SECONDS - 23 * HOUR)
    assert machine.wrong == pytest.approx(HOUR + 230)
    assert not machine.believed.notices


def test_another_step_begins_its_own_day() -> None:
    machine = Machine()
    machine.ahead = HOUR
    machine.run(1)
    machine.run(STANDS_SECONDS - 1)
    machine.ahead = 400 * DAY
    machine.run(1)
    machine.run(STANDS_SECONDS - 1)
    assert machine.wrong == 0
    machine.run(1)
    assert machine.wrong == pytest.approx(400 * DAY)


def test_a_step_that_went_away_begins_anew() -> None:
    machine = Machine()
    for ahead in (HOUR, 0.0, HOUR):
        machine.ahead = ahead
        machine.run(STANDS_SECONDS - 1)
    assert machine.wrong == 0


@given(
    st.lists(
        st.tuples(st.floats(0.5, 900), st.floats(-500 * DAY, 500 * DAY)), max_size=8
    )
)
def test_within_a_day_no_clock_moves_it_far(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    for seconds, ahead in steps:
        machine.ahead = ahead
        machine.run(seconds)
        assert abs(machine.wrong) <= STEP_SECONDS * 1.1


@pytest.mark.parametrize("step", [STEP_SECONDS - 1, 1 - STEP_SECONDS, 30.0])
def test_many_small_steps_are_a_large_one(step: float) -> None:
    """A false time server that knows the rule moves a node's time by minutes a day."""
    machine = Machine()
    for look in range(1, 3_000):
        machine.ahead += step
        machine.run(64.0)
        days = look * 64.0 / DAY
        assert abs(machine.wrong) <= STEP_SECONDS * (1 + days) + 1e-3
    assert machine.believed.notices
    machine.ahead = machine.wrong  # put right
    machine.run(1)
    assert not machine.believed.notices


def test_a_clock_that_drifts_is_followed_for_ever() -> None:
    machine = Machine()
    for _ in range(3_000):
        machine.ahead += 3.0
        machine.run(HOUR)
        assert machine.wrong == pytest.approx(machine.ahead)


async def test_it_looks_each_second(autojump_clock: MockClock) -> None:
    machine = Machine()
    machine.ahead = 60.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.believed.run)
        await until(lambda: machine.wrong == 60.0, seconds=2 * LOOK_SECONDS)
        machine.ahead = 90.0
        await until(lambda: machine.wrong == 90.0, seconds=2 * LOOK_SECONDS)
        nursery.cancel_scope.cancel()
