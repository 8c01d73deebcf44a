# SPDX-License-Identifier: MIT
"""The n-1 alarm: whose beats count, for how long, and what holds when they miss."""

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
    MISSING,
    ON_THE_WAY_CELLS,
    ON_THE_WAY_SECONDS,
    TICKS_MAX,
    Alarm,
    long_enough,
)
from mesh.core.clock import period_of
from mesh.core.crypto import Key, SystemEntropy
from tests.harness import FixedEntropy

TICK = 10.0
FAST = 1 / 64
LINKS = {"bravo": FAST}


def alarm(tick: float = TICK, *, release: bool = True, key: bytes = b"k" * 32) -> Alarm:
    return Alarm(Key.from_bytes(key), FixedEntropy(), tick, release=release)


def sent(one: Alarm, now: float, links: dict[str, float] = LINKS) -> list[bytes]:
    """What goes out by now; one beat a link at the least, since all are long due."""
    for peer in one._peers.values():
        peer.due = now
    return [content for _, content in one.beats(now, links)]


def returned(one: Alarm, now: float, links: dict[str, float] = LINKS) -> None:
    for content in sent(one, now, links):
        assert one.came_untrusted(content, now + 0.1)


def armed(now: float, *, release: bool = True) -> Alarm:
    one = alarm(release=release)
    returned(one, now)
    return one


WINDOW = alarm().window(FAST)


def test_nothing_is_held_before_the_first_beat_came_back() -> None:
    one = alarm()
    for now in range(0, 10**6, 10**5):
        sent(one, now)
        assert not one.holds(now)
    assert not one.is_armed


def test_it_is_said_when_no_beat_ever_comes_back() -> None:
    one = alarm()
    for now in range(100):
        assert not sent(one, now, {"bravo": DOWN})
    for now in range(IN_VAIN_MAX):
        sent(one, now)
    assert one.notices(100) == []
    sent(one, 101)
    [said] = one.notices(101)
    assert "do the peers list our address?" in said
    returned(one, 102)
    assert one.notices(103) == []


RATES = [period_of(klass) for klass in range(16)]


def said_of(tick: float, *periods: float) -> list[str]:
    """What it says, links of these periods being up, before and after beats came."""
    one = alarm(tick)
    links = {str(number): period for number, period in enumerate(periods)}
    sent(one, 0.0, links)
    said = one.notices(0.0)
    returned(one, 1.0, links)
    assert one.notices(2.0) == said
    return said


def test_it_is_said_when_ticks_are_short_for_the_links() -> None:
    """The defaults: by the time it holds the pool has emptied."""
    assert said_of(TICK, *[1.0] * 4) == [
        "[pool] tick_seconds: the n-1 alarm comes up to 20 ticks late: "
        "have 65 at least for these links"
    ]
    assert said_of(120.0, *[1.0] * 4) == said_of(TICK, *[FAST] * 4) == []


@pytest.mark.parametrize("period", RATES)
def test_who_does_as_it_says_hears_no_more_of_it(period: float) -> None:
    enough = long_enough([period])
    assert said_of(enough, period) == []
    assert alarm(enough).ticks_late([period]) == TICKS_MAX
    [said] = said_of(max(0.25, enough - 1), period)
    assert f"{TICKS_MAX + 1} ticks late" in said or enough < 10
    assert f" {enough} at least" in said
    assert 1 < enough <= 3600  # what node.toml takes


@given(st.sampled_from(RATES), st.floats(0.25, 3600))
def test_it_is_said_beyond_so_many_ticks_and_of_no_less(
    period: float, tick: float
) -> None:
    is_late = alarm(tick).window(period) > TICKS_MAX * tick
    assert bool(said_of(tick, period)) is is_late


@pytest.mark.parametrize(
    ("slow", "fast", "is_said"),
    [(1, 0, True), (1, 1, True), (1, 2, False), (2, 2, True), (2, 3, False)],
)
def test_the_link_that_counts_is_the_median_one(
    slow: int, fast: int, *, is_said: bool
) -> None:
    """While half of them are heard nothing holds: of two the slower one is waited for."""
    periods = [1.0] * slow + [FAST] * fast
    assert bool(said_of(TICK, *periods)) is is_said
    links = {str(number): period for number, period in enumerate(periods)}
    one = alarm()
    returned(one, 0.0, links)
    late = one.late(periods)
    assert not one.holds(late)
    assert one.holds(late + 0.1)


def test_links_that_are_not_up_have_no_ticks_that_are_short() -> None:
    one = alarm()
    sent(one, 0.0, {"a": 1.0})
    assert len(one.notices(0.0)) == 1
    sent(one, 1.0, {"a": DOWN, "b": FAST})
    assert one.notices(1.0) == []
    sent(one, 2.0, {"a": DOWN})
    assert one.notices(2.0) == []


def test_that_ticks_are_short_says_nothing_of_when_beats_come() -> None:
    """It is of node.toml and the links' rates alone: the same in an alarm and without."""
    one = alarm()
    links = {"a": 1.0}
    sent(one, 0.0, links)
    [before] = one.notices(0.0)
    returned(one, 1.0, links)
    later = 1.0 + one.window(1.0)
    assert [before] == one.notices(later)
    [still, missing] = one.notices(later + 1)
    assert still == before
    assert missing.endswith("mail for port 25 waits")


def test_it_holds_when_the_last_beat_is_no_longer_fresh() -> None:
    one = armed(100.0)
    assert one.notices(101.0) == []
    assert not one.holds(100.0 + WINDOW)
    assert one.holds(100.0 + WINDOW + 0.1)
    [said] = one.notices(100.0 + WINDOW + 7)
    assert said.endswith("mail for port 25 waits")
    returned(one, 200.0)
    assert not one.holds(200.2)


def test_freshness_counts_from_the_sending() -> None:
    """A link that is held back for an hour and let go then brings nothing fresh."""
    one = armed(0.0)
    late = [content for at in range(1, 100) for content in sent(one, at)]
    later = WINDOW + 99.5
    for content in late:
        assert one.came_untrusted(content, later)
    assert one.holds(later)
    [content] = sent(one, later)
    assert one.came_untrusted(content, later + WINDOW)
    assert not one.holds(later + WINDOW)
    assert one.holds(later + WINDOW + 0.1)


def test_a_late_beat_arms_nothing_and_keeps_nobody_counted() -> None:
    one = alarm()
    [content] = sent(one, 0.0)
    assert one.came_untrusted(content, WINDOW + 0.1)
    assert not one.is_armed
    assert one._peers["bravo"].heard == -math.inf


def test_beats_that_pass_one_another_count_by_the_newest() -> None:
    one = alarm()
    [older], [newer] = sent(one, 0.0), sent(one, 9.0)
    assert one.came_untrusted(newer, 9.1)
    assert one.came_untrusted(older, 9.2)
    assert not one.holds(9.0 + WINDOW)
    assert one.holds(9.1 + WINDOW)


def test_a_slow_link_that_comes_up_makes_no_beat_of_another_fresh_again() -> None:
    one = armed(0.0)
    [content] = sent(one, 1.0)
    slow = {"bravo": FAST, "slow": 8.0}
    sent(one, 2.0, slow)
    assert one.came_untrusted(content, 1.0 + WINDOW + 1)
    assert one.holds(1.0 + WINDOW + 1)


def test_a_slow_peer_does_not_make_the_others_late() -> None:
    links = {"a": FAST, "b": FAST, "c": FAST, "slow": 8.0}
    one = alarm()
    returned(one, 0.0, links)
    assert one.window(8.0) > 400
    assert not one.holds(WINDOW)
    assert one.holds(WINDOW + 0.2)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 50])
def test_half_of_those_that_count_must_be_heard(count: int) -> None:
    """Who cuts links and leaves the target's own one alone needs half of all."""
    links = dict.fromkeys(map(str, range(count)), FAST)
    one = alarm()
    returned(one, 0.0, links)
    now = WINDOW + 1
    for heard, content in enumerate(sent(one, now, links)):
        assert one.holds(now) == (2 * heard < count)
        assert one.came_untrusted(content, now)
    assert not one.holds(now)


def test_whose_link_was_cut_counts_for_as_long_as_a_hold_and_with_keep_for_ever() -> (
    None
):
    cut = {"a": DOWN, "b": DOWN, "own": FAST}
    for release in (True, False):
        one = alarm(release=release)
        returned(one, 0.0, dict.fromkeys(cut, FAST))
        returned(one, HOLD_SECONDS, cut)
        assert one.holds(HOLD_SECONDS + 0.05)
        returned(one, HOLD_SECONDS + 1, cut)
        assert one.holds(HOLD_SECONDS + 1.2) is not release


def test_who_was_removed_does_not_count() -> None:
    one = alarm()
    returned(one, 0.0, {"a": FAST, "b": FAST, "c": FAST})
    returned(one, WINDOW + 1, {"a": FAST})
    assert not one.holds(WINDOW + 2)


def test_who_never_brought_one_back_does_not_count() -> None:
    """It may be no peer that gives back what is ours."""
    one = alarm()
    returned(one, 0.0)
    later = dict.fromkeys(["bravo", "x", "y", "z"], FAST)
    sent(one, WINDOW, later)
    returned(one, WINDOW, LINKS)
    sent(one, WINDOW + 1, later)
    assert not one.holds(WINDOW + 2)


def test_a_beat_counts_once() -> None:
    one = armed(0.0)
    [content] = sent(one, 1.0)
    assert one.came_untrusted(content, 1.1)
    assert one.came_untrusted(content, 2.0)  # no mail all the same
    assert one._peers["bravo"].heard == 1.1


@pytest.mark.parametrize("release", [True, False])
def test_after_the_longest_hold_it_is_as_the_operator_chose(*, release: bool) -> None:
    one = armed(0.0, release=release)
    since = WINDOW + 1
    assert one.holds(since)
    assert one.holds(since + HOLD_SECONDS - 1)
    assert one.holds(since + HOLD_SECONDS) is not release
    [said] = one.notices(since + HOLD_SECONDS + 1)
    assert said.endswith("nobody is held any more" if release else "waits")
    now = since + HOLD_SECONDS + 10
    returned(one, now)
    assert not one.holds(now + 1)
    assert one.holds(now + WINDOW + 1)  # for another HOLD_SECONDS


def test_a_late_beat_does_not_begin_a_new_hold() -> None:
    """Or who lets one in now and then, each too late, would hold mail for ever."""
    one = armed(0.0)
    since = WINDOW + 1
    assert one.holds(since)
    [content] = sent(one, since)
    assert one.came_untrusted(content, since + WINDOW + 1)
    assert not one.holds(since + HOLD_SECONDS)


def test_only_ours_count() -> None:
    one, other = alarm(), alarm(key=b"o" * 32)
    [foreign] = sent(other, 0.0)
    [content] = sent(one, 0.0)
    assert len(content) == BEAT_LEN
    for wrong in (
        foreign,
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
    [content] = sent(alarm(), 0.0)
    one = Alarm(Key.from_bytes(b"k" * 32), SystemEntropy(), TICK)
    assert one.came_untrusted(content, 0.1)
    assert not one.is_armed


@given(
    st.sampled_from([8.0, 1.0, FAST, 1 / 4096]), st.sampled_from([0.25, 10.0, 3600.0])
)
def test_beats_cost_a_link_little_and_a_tick_has_some(
    period: float, tick: float
) -> None:
    one = alarm(tick)
    interval = one.interval(period)
    assert interval >= tick / BEATS_A_TICK
    assert interval >= CELLS_A_BEAT * period
    assert interval <= max(tick, CELLS_A_BEAT * period)
    lost = one.window(period) - LOST_MAX * interval
    assert math.isclose(lost, ON_THE_WAY_SECONDS + ON_THE_WAY_CELLS * period)
    counts = dict.fromkeys("ab", 0)
    now = 0.0
    while now < 100 * interval:
        for name, _ in one.beats(now, dict.fromkeys("ab", period)):
            counts[name] += 1
        now = one.next_due(now) + interval / 1000
    for count in counts.values():
        assert 98 <= count <= 102


def test_without_links_it_looks_again_after_a_while() -> None:
    one = alarm()
    assert one.beats(7.0, {}) == []
    assert one.next_due(7.0) == 7.0 + TICK / BEATS_A_TICK


def test_what_was_sent_is_not_remembered_for_ever() -> None:
    one = alarm()
    for at in range(5000):
        sent(one, at)
    assert len(one._sent) <= WINDOW + TICK + 2


def test_a_restart_ends_no_alarm() -> None:
    """Links are cut, the ticks hold, and the operator starts the node anew."""
    old = armed(0.0)
    assert old.heard() == ["bravo"]
    for release in (True, False):
        one = Alarm(
            Key.from_bytes(b"k" * 32), FixedEntropy(), TICK, release=release,
            before=old.heard(),
        )  # fmt: skip
        assert one.holds(1000.0)  # before anybody has asked for a beat
        one.beats(1001.0, {"bravo": DOWN})
        assert one.holds(1000.0 + HOLD_SECONDS - 1)
        assert one.holds(1000.0 + HOLD_SECONDS) != release
        assert one.heard() == ["bravo"]


def test_after_a_restart_one_peer_of_many_is_not_enough() -> None:
    names = [f"peer{n}" for n in range(10)]
    one = Alarm(Key.from_bytes(b"k" * 32), FixedEntropy(), TICK, before=names)
    links = {name: FAST if name == "peer0" else DOWN for name in names}
    assert one.holds(0.0)
    returned(one, 1.0, links)
    assert one.holds(2.0)
    half = {name: FAST if number < 5 else DOWN for number, name in enumerate(names)}
    returned(one, 3.0, half)
    assert not one.holds(4.0)


def test_who_was_removed_meanwhile_holds_up_nobody() -> None:
    one = Alarm(Key.from_bytes(b"k" * 32), FixedEntropy(), TICK, before=["gone"])
    one.beats(0.0, LINKS)
    assert not one.holds(1.0)
    assert one.heard() == []


def test_a_link_that_comes_up_after_the_longest_hold_begins_no_new_one() -> None:
    """A peer that no longer counts, counts again with a beat."""
    for up_first in (True, False):
        one = armed(0.0)
        one.beats(1.0, LINKS if up_first else {"bravo": DOWN})
        late = HOLD_SECONDS + WINDOW + 2
        assert one.holds(WINDOW + 1)
        assert not one.holds(late)
        one.beats(late, {"bravo": DOWN})
        assert one.heard() == []
        one.beats(late + 1, LINKS)
        assert not one.holds(late + 2)
        returned(one, late + 3)
        assert one.heard() == ["bravo"]
        assert one.holds(late + 4 + WINDOW)


def test_a_peer_whose_link_is_up_counts_however_long_it_is_silent() -> None:
    """So that the operator is told that nobody is held any more."""
    one = armed(0.0)
    for now in range(0, int(2 * HOLD_SECONDS), 600):
        one.beats(now, LINKS)
        one.holds(now)
    assert one.heard() == ["bravo"]
    assert not one.holds(2 * HOLD_SECONDS)
    assert one.notices(2 * HOLD_SECONDS) == [f"{MISSING}: nobody is held any more"]
