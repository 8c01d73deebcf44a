# SPDX-License-Identifier: MIT
"""Ticks lie on a grid that nobody can move; who leaves is chance, and others move it not."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh.core.pool import HISTORY, SLICE, Crowd, Manner, Pool, Ticks
from tests.harness import FixedEntropy

periods = st.floats(0.001, 3600)
times = st.floats(0, 1e9)


@given(periods, times, times)
def test_every_tick_lies_on_the_grid(period: float, one: float, other: float) -> None:
    ticks = Ticks(period, FixedEntropy())
    first, second = sorted((ticks.after(one), ticks.after(other)))
    steps = (second - first) / period
    assert abs(steps - round(steps)) < 1e-4 * max(1.0, steps)
    assert one < ticks.after(one) <= one + period * 1.001 + 1e-6


@given(periods, times)
def test_ticks_follow_each_other(period: float, now: float) -> None:
    ticks = Ticks(period, FixedEntropy())
    for _ in range(20):
        tick = ticks.after(now)
        assert 0 < tick - now <= period * 1.001 + 1e-6
        now = tick


@pytest.mark.usefixtures("repeats")
def test_a_tick_is_not_its_own_successor() -> None:
    ticks = Ticks(0.1, FixedEntropy())
    now = 0.0
    for _ in range(10_000):
        assert ticks.after(now) > now
        now = ticks.after(now)
    assert 998 < now < 1002


def test_nodes_do_not_tick_together() -> None:
    first = {Ticks(10, FixedEntropy(str(seed))).after(0) for seed in range(50)}
    assert len(first) == 50
    assert all(0 < tick <= 10 for tick in first)


# who leaves

KINDS = ("timed", "binomial", "poisson")
PERIOD = 10.0
TARGETS = 2000


def pool_of(kind: str, seed: str = "", **values: float) -> Pool:
    return Pool(Manner(kind=kind, **values), FixedEntropy(kind + seed))


def leave(pool: Pool, now: float, *, hold: bool = False) -> list[tuple[int, str]]:
    return [one for some in pool.tick(now, hold=hold) for one in some]


def chance_of(kind: str) -> float:
    """The closed form: of leaving on a tick that is PERIOD after the last one."""
    return 1 - math.exp(-PERIOD / 20.0) if kind == "poisson" else 0.25


def departures(kind: str, seed: str, flood: Sequence[int], ticks: int) -> list[int]:
    """On which tick each of TARGETS leaves; flood[n] others come before tick n."""
    pool = pool_of(kind, seed, share=0.25, delay=20.0)
    leave(pool, 0.0)
    for target in range(TARGETS):
        pool.add(target, "out:x", b"honest", 0.0)
    other, gone = TARGETS, [0] * TARGETS
    for tick in range(1, ticks):
        for _ in range(flood[tick] if tick < len(flood) else 0):
            pool.add(other, "out:y", b"flooder", PERIOD * (tick - 1))
            other += 1
        for ref, _ in leave(pool, PERIOD * tick):
            if ref < TARGETS:
                gone[ref] = tick
    return gone


def is_geometric(gone: Sequence[int], share: float, ticks: int) -> bool:
    """Chi-square against share (1 - share)^(n - 1), at one in ten thousand or so."""
    seen = Counter(gone)
    score = 0.0
    for tick in range(1, ticks):
        expected = len(gone) * share * (1 - share) ** (tick - 1)
        score += (seen[tick] - expected) ** 2 / expected
    stayed = len(gone) * (1 - share) ** (ticks - 1)
    score += (seen[0] - stayed) ** 2 / stayed
    freedom = ticks - 1
    return score < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.usefixtures("repeats")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "flood", [(), (0, 4_000), (0, 0, 4_000), (0, *[400] * 9)], ids=str
)
def test_who_else_is_there_moves_nobodys_departure(
    kind: str, flood: Sequence[int]
) -> None:
    gone = departures(kind, str(flood), flood, 10)
    assert is_geometric(gone, chance_of(kind), 10)


FLOOD = 1_000_000
FLOODERS = 64
GROUP = 5_000
UNLIKELY = 1e-6


def is_by_chance(count: int, of: int, chance: float) -> bool:
    """Whether so many heads are no rarer, to their side, than UNLIKELY: exact."""

    def weight(heads: int) -> float:
        ways = (
            math.lgamma(of + 1) - math.lgamma(heads + 1) - math.lgamma(of - heads + 1)
        )
        return math.exp(
            ways + heads * math.log(chance) + (of - heads) * math.log1p(-chance)
        )

    lower = sum(map(weight, range(count + 1)))
    upper = sum(map(weight, range(count, of + 1)))
    return min(lower, upper) >= UNLIKELY


@pytest.mark.usefixtures("repeats")
@pytest.mark.parametrize(
    ("kind", "ticks"), [("timed", 3), ("binomial", 1), ("poisson", 1)]
)
def test_a_flood_of_a_million_moves_nobodys_departure(kind: str, ticks: int) -> None:
    """From all sources but one; that one's mail came before, amid and after it.

    The million is inside at once, and of each group of GROUP targets, on each tick, how
    many of those still inside leave is held against the closed form that holds without
    a flood, by the exact binomial tail.  (A `timed` pool draws without putting back: its
    counts vary by a hundredth less than that, so the test errs by passing.)  In the
    other kinds each has a coin of its own: one tick shows it.

    15 counts, each wrong at 2e-6: other draws would fail 3 times in 100,000, these do
    always the same.  A chance of 0.30 instead of 0.25 passes once in 1,000.
    """
    pool = pool_of(kind, "million", share=0.25, delay=20.0)
    leave(pool, 0.0)
    flood = iter(range(3 * GROUP, 3 * GROUP + FLOOD))
    for group in range(3):
        for target in range(GROUP):
            pool.add(group * GROUP + target, "out:x", b"honest", 0.0)
        for other in itertools.islice(flood, FLOOD // 2):
            pool.add(other, "out:y", b"%d" % (other % FLOODERS), 0.0)
    assert len(pool) == FLOOD + 3 * GROUP
    inside = dict.fromkeys(range(3), GROUP)
    for tick in range(1, ticks + 1):
        gone = Counter(ref // GROUP for ref, _ in leave(pool, PERIOD * tick))
        for group, count in inside.items():
            assert is_by_chance(gone[group], count, chance_of(kind)), (group, tick)
            inside[group] -= gone[group]


def test_a_million_s_test_can_tell() -> None:
    for share, is_so in ((0.25, True), (0.24, True), (0.30, False), (0.2, False)):
        assert is_by_chance(round(share * GROUP), GROUP, 0.25) is is_so
    assert [n for n in range(31) if not is_by_chance(n, 30, 0.5)] == [
        0,
        1,
        2,
        28,
        29,
        30,
    ]
    assert not is_by_chance(0, GROUP, 0.25)
    assert not is_by_chance(GROUP, GROUP, 0.25)


def test_this_test_can_tell() -> None:
    pool = pool_of("timed", share=0.25)
    hastened = [tick + (tick == 1) for tick in departures("timed", "", (), 10)]
    assert not is_geometric(hastened, 0.25, 10)
    assert not is_geometric(departures("timed", "", (), 10), 0.28, 10)
    assert len(pool) == 0


@given(st.integers(0, 300), st.sampled_from([0.01, 0.25, 0.5, 0.9, 1.0]))
def test_a_timed_pool_lets_its_share_go(inside: int, share: float) -> None:
    pool = pool_of("timed", f"{inside}", share=share)
    for ref in range(inside):
        pool.add(ref, "out:x", b"", 0.0)
    gone = leave(pool, 0.0)
    assert math.floor(inside * share) <= len(gone) <= math.ceil(inside * share)
    assert len(pool) == inside - len(gone)


def test_without_a_pool_all_leave() -> None:
    pool = pool_of("none")
    for ref in range(10):
        pool.add(ref, f"out:{ref % 3}", b"", 0.0)
    assert sorted(leave(pool, 0.0)) == [(ref, f"out:{ref % 3}") for ref in range(10)]
    assert leave(pool, 1.0) == []


def test_who_came_just_before_a_tick_has_waited_for_nothing() -> None:
    """`poisson`: the chance goes by its own time inside and not by the tick's length."""
    pool = pool_of("poisson", delay=20.0)
    leave(pool, 0.0)
    for ref in range(TARGETS):
        pool.add(ref, "out:x", b"", 9.0)
    expected = TARGETS * (1 - math.exp(-1.0 / 20.0))
    assert abs(len(leave(pool, 10.0)) - expected) < 4 * math.sqrt(expected)
    # From the second tick on it is the tick's length, whenever it came.
    expected = len(pool) * (1 - math.exp(-10.0 / 20.0))
    assert abs(len(leave(pool, 20.0)) - expected) < 4 * math.sqrt(expected)


@pytest.mark.usefixtures("repeats")
def test_the_order_is_drawn() -> None:
    firsts = Counter[int]()
    for seed in range(3000):
        pool = pool_of("none", str(seed))
        for ref in range(4):
            pool.add(ref, "out:x", b"", 0.0)
        gone = [ref for ref, _ in leave(pool, 0.0)]
        firsts[gone[0]] += 1
        firsts[4 + gone[-1]] += 1
    assert all(abs(count - 750) < 120 for count in firsts.values())
    assert len(firsts) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_stays_longer_than_the_longest_time(kind: str) -> None:
    pool = pool_of(kind, share=0.01, delay=1e6, max_delay=100.0)
    for ref in range(100):
        pool.add(ref, "out:x", b"", float(ref % 2))
    assert leave(pool, 99.0, hold=True) == []
    assert len(leave(pool, 99.9)) < 10
    left = len(pool)
    assert all(ref % 2 == 0 for ref, _ in leave(pool, 100.0, hold=True))
    assert left > len(pool) >= 40
    leave(pool, 101.0, hold=True)
    assert len(pool) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_who_comes_while_a_tick_is_at_work_waits_for_the_next(kind: str) -> None:
    pool = pool_of(kind, share=1.0, delay=1e-9)
    leave(pool, -1.0)
    old = 3 * SLICE
    for ref in range(old):
        pool.add(ref, "out:x", b"", 0.0)
    gone = []
    for number, some in enumerate(pool.tick(10.0)):
        gone += some
        if number < 3:
            assert some == []
            assert len(pool) + len(gone) <= old + 3
            pool.add(old + number, "out:y", b"", 10.0)
    assert sorted(gone) == [(ref, "out:x") for ref in range(old)]
    assert sorted(leave(pool, 20.0)) == [(old + n, "out:y") for n in range(3)]


def test_names_of_places_that_nobody_goes_to_are_forgotten() -> None:
    """A peer can think of a new domain for each message, and the pool is never empty."""
    pool = pool_of("timed", share=0.5)
    for ref in range(10 * SLICE):
        pool.add(ref, f"out:{ref}", b"peer", 0.0)
        if not ref % 100:
            leave(pool, float(ref))
    assert 0 < len(pool) < 200
    assert len(pool._known) < 2 * SLICE
    while len(pool):
        leave(pool, 0.0)
    pool.add(1, "out:x", b"peer", 0.0)
    pool.take_all()
    assert not pool._known


def test_whoever_is_taken_out_has_not_left() -> None:
    pool = pool_of("timed")
    for ref in range(10):
        pool.add(ref, "out:x", b"a", float(ref))
    assert sorted(pool.take_all()) == [(ref, float(ref)) for ref in range(10)]
    assert (len(pool), pool.take_all(), leave(pool, 20.0)) == (0, [], [])
    assert pool.crowd.nominal() == 0.0


@pytest.mark.parametrize("kind", ["none", *KINDS])
@pytest.mark.parametrize("share", [0.3, 1.0])
@settings(max_examples=10)
@given(inside=st.integers(1, 3 * SLICE), pause=st.integers(0, 8))
@example(inside=3 * SLICE, pause=3)
@example(inside=3 * SLICE, pause=4)
def test_in_the_middle_of_a_tick_all_can_be_taken_out(
    kind: str, share: float, inside: int, pause: int
) -> None:
    """Routes changed: nobody leaves by the old ones who was not told of, none is lost."""
    pool = pool_of(kind, share=share, delay=10.0)
    since = {ref: float(ref % 7) for ref in range(inside)}
    for ref, at in since.items():
        pool.add(ref, "out:x", b"a", at)
    tick = pool.tick(10.0)
    told = itertools.islice(tick, pause + 1)
    left = {ref for some in told for ref, _ in some}
    taken = dict(pool.take_all())
    assert taken == {ref: at for ref, at in since.items() if ref not in left}
    assert len(pool) == 0
    # Who comes back at once is on no tick that is at work already.
    pool.add(inside, "out:y", b"a", 9.0)
    assert [ref for some in tick for ref, _ in some] == []
    assert pool.take_all() == [(inside, 9.0)]
    assert pool.crowd.nominal() == 0.0


# how well it mixes


def entropy_of(rows: Sequence[tuple[int, int]]) -> float:
    """The definition, message by message: what each (came, inside) row's weigh.

    Of one that leaves at the last row: it is each of those inside alike; who was inside
    before is each of those that were inside then.
    """
    weights: list[float] = []
    for came, inside in rows:
        stay = (inside - came) / inside
        weights = [weight * stay for weight in weights] + [1 / inside] * came
    assert math.isclose(sum(weights), 1.0)
    return -sum(weight * math.log2(weight) for weight in weights if weight)


def ticks_of(*rows: tuple[dict[bytes, int], dict[bytes, int]]) -> Crowd:
    """Each row: who came, and who left before."""
    crowd = Crowd()
    for number, (came, left) in enumerate(rows):
        for source, count in left.items():
            for _ in range(count):
                crowd.went(source)
        for source, count in came.items():
            for _ in range(count):
                crowd.came(source)
        if number < len(rows) - 1:
            crowd.ticked()
    return crowd


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), max_size=20))
def test_the_bits_are_the_entropy_by_its_definition(
    moves: list[tuple[int, int]],
) -> None:
    crowd, inside = Crowd(), 1
    crowd.came(b"a")
    rows = [(1, 1)]
    for came, left in moves:
        crowd.ticked()
        left = min(left, inside - 1)
        for _ in range(left):
            crowd.went(b"a")
        for _ in range(came):
            crowd.came(b"a")
        inside += came - left
        rows.append((came, inside))
    assert math.isclose(crowd.nominal(), entropy_of(rows), abs_tol=1e-9)


def test_a_steady_pool_has_its_closed_form() -> None:
    """With a of n new at each tick: log2 a + h(a / n) / (a / n)."""
    came, inside = 25, 100
    crowd = ticks_of(
        ({b"a": inside}, {}), *[({b"a": came}, {b"a": came})] * (HISTORY - 1)
    )
    q = came / inside
    h = -q * math.log2(q) - (1 - q) * math.log2(1 - q)
    assert math.isclose(crowd.nominal(), math.log2(came) + h / q, rel_tol=1e-6)


def test_what_is_left_without_the_largest() -> None:
    crowd = ticks_of(({b"a": 4, b"b": 64, b"c": 16}, {}))
    assert math.isclose(crowd.nominal(), math.log2(84))
    assert math.isclose(crowd.robust(0), math.log2(84))
    assert math.isclose(crowd.robust(1), math.log2(20))
    assert math.isclose(crowd.robust(2), math.log2(4))
    assert crowd.robust(3) == crowd.robust(9) == 0.0


def test_only_own_decoys_are_a_guarantee() -> None:
    crowd = ticks_of(({b"a": 400, b"decoys": 7}, {}))
    assert math.isclose(crowd.guaranteed(b"decoys"), 3.0)
    assert crowd.guaranteed(b"none") == 0.0


def test_a_flooder_cannot_fill_the_robust_figure() -> None:
    quiet = ticks_of(({b"a": 5, b"b": 5}, {}), ({b"a": 1}, {b"b": 2}))
    flooded = ticks_of(
        ({b"a": 5, b"b": 5, b"x": 10_000}, {}), ({b"a": 1, b"x": 9000}, {b"b": 2})
    )
    assert math.isclose(flooded.robust(1), quiet.nominal())
    assert flooded.nominal() > quiet.nominal() + 5


def test_it_says_how_well_it_mixes() -> None:
    pool, none = pool_of("timed"), pool_of("none")
    assert pool.notices() == []
    for source in (b"a", b"a", b"b", b"b"):
        pool.add(1, "out:x", source, 0.0)
        none.add(1, "out:x", source, 0.0)
    assert none.notices() == []
    said = "port 25: 2 bits of mixing, 1 without the largest source, 0 guaranteed"
    assert pool.notices() == [said]


def test_an_empty_pool_hides_nobody() -> None:
    crowd = ticks_of(({b"a": 3}, {}), ({}, {b"a": 3}))
    assert crowd.nominal() == 0.0
    crowd.came(b"a")
    assert crowd.nominal() == 0.0
    assert Crowd().nominal() == 0.0


def test_what_a_change_of_routes_took_out_and_brought_back_counts_once() -> None:
    pool = pool_of("timed")
    for ref in range(16):
        pool.add(ref, "out:x", b"a", 0.0)
    leave(pool, 0.0, hold=True)
    for ref, since in pool.take_all():
        pool.add(ref, "out:x", b"a", since)
    assert math.isclose(pool.crowd.nominal(), 4.0)
