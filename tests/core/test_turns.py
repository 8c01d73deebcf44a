# SPDX-License-Identifier: MIT
"""Turns against servers that do as they like: room, order, and nobody starves."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.retry import OUTSIDE
from mesh.core.turns import (
    CUT_SECONDS,
    FORGET_SECONDS,
    NETWORK_MAX,
    TURN_SECONDS,
    VISITS_MAX,
    Tick,
    Turns,
)
from tests.harness import FixedEntropy

TICK = 10.0


@dataclass
class World:
    """Domains that all have mail, whose servers end a visit when they like."""

    lasts: dict[str, float]
    """Domain -> seconds that a visit takes when nobody cuts it off."""
    networks: dict[str, str]
    turns: Turns = field(default_factory=lambda: Turns(FixedEntropy()))
    now: float = 0.0
    ends: dict[str, float] = field(default_factory=dict)
    """When each visit under way will end."""
    begun: dict[str, list[float]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def tick(self) -> Tick:
        for name in [name for name, end in self.ends.items() if end <= self.now]:
            self.end(name, failed=False)
        tick = self.turns.tick(self.now, self.lasts)
        for name in tick.cut:
            self.end(name, failed=True)
        for name in tick.begun:
            assert name not in self.ends
            self.begun.setdefault(name, []).append(self.now)
            self.ends[name] = self.now + self.lasts[name]
            if not self.turns.enter(name, self.networks[name]):
                self.refused.add(name)
                self.end(name, failed=False, tried=False)
        crowds = Counter(self.networks[name] for name in self.ends)
        assert self.turns.visited == len(self.ends) <= VISITS_MAX
        assert max(crowds.values(), default=0) <= NETWORK_MAX
        self.now += TICK
        return tick

    def end(self, name: str, *, failed: bool, tried: bool = True) -> None:
        del self.ends[name]
        self.turns.end(name, self.now, tried=tried, failed=failed)


def world(domains: dict[str, tuple[str, float]]) -> World:
    return World(
        {name: lasts for name, (_, lasts) in domains.items()},
        {name: network for name, (network, _) in domains.items()},
    )


FOR_EVER = 1e9
slow = st.sampled_from([0.0, 30.0, 90.0, 400.0, FOR_EVER])


@pytest.mark.usefixtures("repeats")
@given(st.lists(slow, min_size=1, max_size=8), st.integers(0, 200), st.integers(1, 200))
def test_nobody_starves(lasts: list[float], count: int, spread: int) -> None:
    """Hostile domains may fill all networks: who comes then waits his turn, no longer."""
    here = world(
        {
            f"h{n}": (f"n{n % spread}", lasts[n % len(lasts)])
            for n in range(count)
        }
    )  # fmt: skip
    for _ in range(7):
        here.tick()
    here.lasts["late"], here.networks["late"] = 0.0, "elsewhere"
    came = here.now
    rounds = count // VISITS_MAX + 1
    while "late" not in here.begun:
        here.tick()
        assert here.now - came <= rounds * (CUT_SECONDS + 3 * TICK)


@given(st.integers(0, 60))
def test_nobody_starves_beside_a_hostile_neighbour(count: int) -> None:
    here = world({f"h{n}": ("n", FOR_EVER) for n in range(count)})
    for _ in range(7):
        here.tick()
    here.lasts["late"], here.networks["late"] = 0.0, "n"
    came = here.now
    rounds = count // NETWORK_MAX + 2
    while not here.begun.get("late") or "late" in here.refused:
        here.refused.discard("late")
        here.tick()
        assert here.now - came <= rounds * (CUT_SECONDS + 3 * TICK)


def test_one_network_does_not_take_up_all_the_room() -> None:
    here = world({f"h{n}": ("n", FOR_EVER) for n in range(500)})
    here.lasts["other"], here.networks["other"] = 0.0, "elsewhere"
    for _ in range(12):
        here.tick()
    assert len(here.ends.keys() - {"other"}) == NETWORK_MAX
    assert len(here.begun["other"]) >= 2
    # A network that is known to be full is not looked up again and again.
    assert all(len(times) == 1 for name, times in here.begun.items() if name != "other")


@given(st.lists(slow, min_size=1, max_size=8), st.integers(1, 150))
def test_first_come_first_served(lasts: list[float], count: int) -> None:
    here = world({f"h{n:03}": (f"n{n}", lasts[n % len(lasts)]) for n in range(count)})
    order: list[str] = []
    while len(order) < count:
        order += [name for name in here.tick().begun if name not in order]
    assert order == sorted(order)


def test_nobody_is_hurried_while_there_is_room() -> None:
    here = world({f"h{n}": (f"n{n}", FOR_EVER) for n in range(VISITS_MAX)})
    for _ in range(100):
        tick = here.tick()
        assert not tick.hurried | tick.cut
    here.lasts["late"], here.networks["late"] = 0.0, "elsewhere"
    tick = here.tick()
    assert tick.cut == {"h0"}  # as many as are in line, the oldest first
    assert here.tick().begun == ["late"]


def test_who_had_his_turn_takes_no_more_before_he_is_cut_off() -> None:
    here = world({f"h{n}": (f"n{n}", FOR_EVER) for n in range(VISITS_MAX + 3)})
    began = here.now
    while not (tick := here.tick()).hurried:
        assert not tick.cut
    assert here.now - began == pytest.approx(TURN_SECONDS + TICK)
    assert tick.hurried == {"h0", "h1", "h2"}
    while not (tick := here.tick()).cut:
        pass
    assert here.now - began == pytest.approx(CUT_SECONDS + TICK)


def test_who_failed_rests_longer_each_time_and_begins_anew_in_the_end() -> None:
    turns = Turns(FixedEntropy())
    now, waits = 0.0, []
    for _ in range(6):
        assert turns.tick(now, ["a"]).begun == ["a"]
        turns.end("a", now, tried=True, failed=True)
        ended = now
        while not turns.tick(now, ["a"]).begun:
            now += 1.0
        turns.end("a", now, tried=False, failed=False)  # there was no room for it
        waits.append(now - ended)
    for wait, first in zip(waits, (300, 600, 1200, 2400, 4000, 4000), strict=True):
        assert 0.75 * first <= wait <= 1.25 * first + 1
    turns.tick(now, [])
    assert turns.known == 1
    turns.tick(now + FORGET_SECONDS + 1.25 * OUTSIDE.longest, [])
    assert turns.known == 0


def test_names_without_end_are_not_remembered_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever invents domains has them known no longer than there is room for that."""
    monkeypatch.setattr("mesh.core.turns.KNOWN_MAX", 500)
    turns = Turns(FixedEntropy())
    count, names = 0, [""]
    while count < 1500:
        names = [f"{n}.invalid" for n in range(count, count + VISITS_MAX)]
        count += VISITS_MAX
        for name in turns.tick(0.0, ["kept", *names]).begun:
            turns.end(name, 0.0, tried=True, failed=True)
        assert turns.known <= 500 + 2 * VISITS_MAX
    # Those that are forgotten are others than those that wait, or came last.
    assert turns.tick(0.0, ["kept", names[0], "0.invalid"]).begun == ["0.invalid"]


def test_a_success_ends_the_failures() -> None:
    turns = Turns(FixedEntropy())
    now = 0.0
    for failed in (True, True, False, True):
        while not turns.tick(now, ["a"]).begun:
            now += 1.0
        turns.end("a", now, tried=True, failed=failed)
    assert not turns.tick(now + 0.7 * OUTSIDE.first, ["a"]).begun
    assert turns.tick(now + 1.3 * OUTSIDE.first, ["a"]).begun


def test_who_leaves_the_line_comes_back_at_its_end() -> None:
    turns = Turns(FixedEntropy())
    full = [f"h{n}" for n in range(VISITS_MAX)]
    assert turns.tick(0, [*full, "a", "b"]).begun == full
    turns.tick(1, [*full, "b"])
    turns.tick(2, [*full, "a", "b"])
    turns.end("h0", 3, tried=True, failed=True)
    assert turns.tick(3, [*full, "a", "b"]).begun == ["b"]


def test_a_visit_may_go_on_to_another_network() -> None:
    turns = Turns(FixedEntropy())
    names = [f"h{n}" for n in range(NETWORK_MAX + 1)]
    assert turns.tick(0, names).begun == names
    assert all(turns.enter(name, "n") for name in names[:-1])
    assert not turns.enter(names[-1], "n")
    assert turns.enter(names[0], "m")
    assert turns.enter(names[-1], "n")
    assert turns.enter(names[-1], "n")


@pytest.mark.usefixtures("repeats")
def test_a_long_line_costs_little() -> None:
    """The node's cells leave by the same thread: as 25 looks at each name, at most."""
    turns = Turns(FixedEntropy())
    names = [f"exit:{n}.test" for n in range(20_000)]
    turns.tick(0, names)

    def seconds(job: Callable[[], object]) -> float:
        began = time.process_time()
        job()
        return time.process_time() - began

    ticks = [seconds(partial(turns.tick, 10.0 * n, names)) for n in range(1, 8)]
    looks = [seconds(lambda: {name: len(name) for name in names}) for _ in range(7)]
    assert min(ticks) < 25 * min(looks)
