# SPDX-License-Identifier: MIT
"""The n-1 alarm: whose beats count, for how long, and what holds when none comes."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.alarm import (
    BEAT_LEN,
    BEATS_A_TICK,
    CELLS_A_BEAT,
    DOWN,
    HOLD_SECONDS,
    IN_VAIN_MAX,
    LOST_MAX,
    ON_THE_WAY_CELLS,
    ON_THE_WAY_SECONDS,
    Alarm,
)
from mesh.core.crypto import Key, SystemEntropy
from tests.harness import FixedEntropy

TICK = 10.0
LINKS = {"bravo": 1 / 64, "charlie": 1 / 64}


def alarm(tick: float = TICK, *, release: bool = True, key: bytes = b"k" * 32) -> Alarm:
    return Alarm(Key.from_bytes(key), FixedEntropy(), tick, release=release)


def round_trip(one: Alarm, now: float, took: float = 0.1) -> None:
    sent = one.beat(now, LINKS)
    assert sent is not None
    assert one.came_untrusted(sent[1], now + took)


def armed(now: float, *, release: bool = True) -> Alarm:
    one = alarm(release=release)
    round_trip(one, now)
    return one


def test_nothing_is_held_before_the_first_beat_came_back() -> None:
    one = alarm()
    for now in range(0, 10**6, 10**5):
        one.beat(now, LINKS)
        assert not one.holds(now)
    assert not one.is_armed


def test_it_is_said_when_no_beat_ever_comes_back() -> None:
    one = alarm()
    for now in range(100):
        one.beat(now, {"bravo": DOWN})
    for now in range(IN_VAIN_MAX):
        one.beat(now, LINKS)
    assert one.notices(100) == []
    one.beat(101, LINKS)
    [said] = one.notices(101)
    assert "do the peers list our address?" in said
    round_trip(one, 102)
    assert one.notices(103) == []


def test_it_holds_when_the_last_beat_is_no_longer_fresh() -> None:
    one = armed(100.0)
    assert one.is_armed
    assert one.notices(101.0) == []
    assert not one.holds(100.0 + one.window)
    assert one.holds(100.0 + one.window + 0.1)
    [said] = one.notices(100.0 + one.window + 7)
    assert said == "no heartbeat came back for 7 s: mail for port 25 waits"
    round_trip(one, 200.0)
    assert not one.holds(200.2)


def test_freshness_counts_from_the_sending() -> None:
    """A link that is held back for an hour and let go then brings nothing fresh."""
    one = armed(0.0)
    beats = [one.beat(at, LINKS) for at in range(1, 100)]
    later = one.window + 99.5
    for each in beats:
        assert each is not None
        assert one.came_untrusted(each[1], later)
    assert one.holds(later)
    on_the_way = one.beat(later, LINKS)
    assert on_the_way is not None
    assert one.came_untrusted(on_the_way[1], later + one.window)
    assert not one.holds(later + one.window)
    assert one.holds(later + one.window + 0.1)


def test_a_beat_counts_once() -> None:
    one = armed(0.0)
    sent = one.beat(1.0, LINKS)
    assert sent is not None
    assert one.came_untrusted(sent[1], 1.1)
    heard = dict(one._heard)
    assert one.came_untrusted(sent[1], 50.0)  # no mail all the same
    assert one._heard == heard


@pytest.mark.parametrize("release", [True, False])
def test_after_the_longest_hold_it_is_as_the_operator_chose(*, release: bool) -> None:
    one = armed(0.0, release=release)
    since = one.window + 1
    assert one.holds(since)
    assert one.holds(since + HOLD_SECONDS - 1)
    assert one.holds(since + HOLD_SECONDS) is not release
    [said] = one.notices(since + HOLD_SECONDS + 1)
    assert said.endswith("nobody is held any more" if release else "waits")
    now = since + HOLD_SECONDS + 10
    round_trip(one, now)
    assert not one.holds(now + 1)
    assert one.holds(now + one.window + 1)  # for another HOLD_SECONDS


def test_a_late_beat_does_not_begin_a_new_hold() -> None:
    """Or who lets one in now and then, each too late, would hold mail for ever."""
    one = armed(0.0)
    since = one.window + 1
    assert one.holds(since)
    sent = one.beat(since, LINKS)
    assert sent is not None
    assert one.came_untrusted(sent[1], since + one.window + 1)
    assert not one.holds(since + HOLD_SECONDS)


def test_only_ours_count() -> None:
    one, other = alarm(), alarm(key=b"o" * 32)
    foreign = other.beat(0.0, LINKS)
    mine = one.beat(0.0, LINKS)
    assert foreign is not None
    assert mine is not None
    name, content = mine
    assert name in LINKS
    assert len(content) == BEAT_LEN
    for wrong in (
        foreign[1],
        b"",
        content[:-1],
        content + b"x",
        b"x" + content[1:],
        content[:-3] + b"z" + content[-2:],
        content[:-3] + b"\xff" + content[-2:],
        content[:40] + bytes([content[40] ^ 1]) + content[41:],
    ):
        assert not one.came_untrusted(wrong, 0.1)
    assert not one.is_armed
    assert one.came_untrusted(content, 0.1)


@given(st.binary(max_size=2 * BEAT_LEN))
def test_whatever_comes_is_mail(octets: bytes) -> None:
    one = alarm()
    assert not one.came_untrusted(octets, 0.0)
    header = b"Subject: mesh heartbeat\r\n\r\n"
    shaped = header + octets[: BEAT_LEN - len(header)].ljust(BEAT_LEN - len(header))
    assert not one.came_untrusted(shaped, 0.0)


def test_a_beat_of_an_earlier_life_is_no_mail_and_not_fresh() -> None:
    sent = alarm().beat(0.0, LINKS)
    assert sent is not None
    one = Alarm(Key.from_bytes(b"k" * 32), SystemEntropy(), TICK)
    assert one.came_untrusted(sent[1], 0.1)
    assert not one.is_armed


def test_each_peer_has_its_turn_and_nobody_knows_the_order() -> None:
    one = Alarm(Key.from_bytes(b"k" * 32), SystemEntropy(), TICK)
    links = dict.fromkeys("abcdefgh", 1.0)
    rounds = []
    for number in range(20):
        sent = [one.beat(number, links) for _ in links]
        names = [each[0] for each in sent if each]
        assert sorted(names) == sorted(links)
        rounds.append("".join(names))
    assert len(set(rounds)) > 15


def test_a_link_that_was_cut_has_its_turn_for_as_long_as_a_hold() -> None:
    """Who cuts all links but his own is heard half the time, of two."""
    one = alarm()
    up = {"bravo": 1 / 64, "mallory": 1 / 64}
    for at in (0.0, 1.0):
        sent = one.beat(at, up)
        assert sent is not None
        one.came_untrusted(sent[1], at + 0.1)
    cut = {"bravo": DOWN, "mallory": 1 / 64}
    turns = [one.beat(2.0 + at, cut) for at in range(20)]
    assert [each[0] for each in turns if each].count("bravo") == 10
    later = 2.0 + HOLD_SECONDS
    turns = [one.beat(later + at, cut) for at in range(1, 21)]
    assert {each[0] for each in turns if each} == {"mallory"}


def test_who_was_removed_has_no_turn() -> None:
    one = armed(0.0)
    assert one.beat(1.0, {}) is None
    assert one.beat(1.0, {"delta": DOWN}) is None
    assert not one._heard


@given(
    st.lists(st.sampled_from([8.0, 1.0, 1 / 64, 1 / 4096]), min_size=1, max_size=9),
    st.sampled_from([0.25, 10.0, 3600.0]),
)
def test_beats_cost_a_link_little_and_a_tick_has_some(
    periods: list[float], tick: float
) -> None:
    one = alarm(tick)
    one.beat(0.0, {str(number): period for number, period in enumerate(periods)})
    slowest = max(periods)
    assert one.interval >= tick / BEATS_A_TICK
    # A link's turn comes once in len(periods) beats.
    assert one.interval * len(periods) >= CELLS_A_BEAT * slowest - 1e-9
    assert one.interval <= max(tick, CELLS_A_BEAT * slowest)
    lost = one.window - LOST_MAX * one.interval
    assert math.isclose(lost, ON_THE_WAY_SECONDS + ON_THE_WAY_CELLS * slowest)


def test_what_was_sent_is_not_remembered_for_ever() -> None:
    one = alarm()
    for at in itertools.islice(itertools.count(), 5000):
        one.beat(float(at), LINKS)
    assert len(one._sent) <= one.window + 2
