# SPDX-License-Identifier: MIT
"""Fetching directories: from whom, in what places, and what liars can do about it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.frames import NO_HEAD, Head, Part
from mesh.core.pursuit import (
    COPIES_MAX,
    FAILED_SECONDS,
    FETCHES_MAX,
    PROGRESS_MAX_LEN,
    PROGRESS_SECONDS,
    REFUSED_MAX,
    RETURN_SECONDS,
    SETTLED_MAX,
    SLOWEST_SHARE,
    UNTIMELY_SECONDS,
    Pursuit,
    Wish,
)

PACE = 4080.0
NO_COPY = bytes(16)
COPY = b"c" * 16
LEAST = int(PACE * PROGRESS_SECONDS / SLOWEST_SHARE)


def head(version: int, fork: str = "") -> Head:
    return Head(version, f"{version}{fork}".encode().ljust(32)[:32])


OURS, NEXT = head(7), head(8)
A, B, C, D, E = (name * 32 for name in (b"a", b"b", b"c", b"d", b"e"))


def make(ours: Head = OURS) -> Pursuit:
    return Pursuit(ours)


def asked(pursuit: Pursuit) -> dict[bytes, Head]:
    return {peer: wish.head for peer, wish in pursuit.wishes.items()}


def part(
    which: Head, offset: int, octets: bytes, total: int, copy: bytes = COPY
) -> Part:
    return Part(which, copy, total, offset, octets)


def whole(pursuit: Pursuit, peer: bytes, piece: Part) -> bytes | None:
    octets = pursuit.part(peer, piece)
    return None if octets is None else bytes(octets)


# what is wanted


@pytest.mark.parametrize(
    ("theirs", "wanted"),
    [
        (head(8), True),
        (head(2**64 - 1), True),
        (head(7, "fork"), True),
        (head(7), False),
        (head(6), False),
        (NO_HEAD, False),
    ],
)
def test_a_later_version_is_wanted_and_another_of_ours(
    theirs: Head, wanted: bool
) -> None:
    pursuit = make()
    pursuit.heard(A, theirs, PACE, 0)
    assert bool(pursuit.wishes.get(A)) is wanted


def test_nobody_s_first_directory_comes_by_a_link() -> None:
    pursuit = make(NO_HEAD)
    pursuit.heard(A, NEXT, PACE, 0)
    assert pursuit.wishes.get(A) is None
    pursuit.adopted(OURS, 1)
    assert pursuit.wishes.get(A) == Wish(NEXT, NO_COPY, 0)


def test_it_is_wanted_no_more_when_it_came_from_elsewhere() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.adopted(NEXT, 1)
    assert not asked(pursuit)
    assert pursuit.part(A, part(NEXT, 0, b"x", 1)) is None


def test_it_is_wanted_no_more_from_whom_has_another_now() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.part(A, part(NEXT, 0, b"xx", 9))
    pursuit.heard(A, head(9), PACE, 1)
    assert pursuit.wishes.get(A) == Wish(head(9), NO_COPY, 0)


def test_one_head_is_fetched_from_one_peer() -> None:
    pursuit = make()
    for peer in (A, B, C):
        pursuit.heard(peer, NEXT, PACE, 0)
    assert asked(pursuit) == {A: NEXT}


def test_who_has_no_link_is_asked_for_nothing() -> None:
    pursuit = make()
    for peer in (A, B):
        pursuit.heard(peer, NEXT, PACE, 0)
    pursuit.left(B, 1)
    pursuit.tick(PROGRESS_SECONDS)
    assert not asked(pursuit)


def test_what_is_said_again_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    monkeypatch.setattr(pursuit, "_arrange", None)
    for now in range(99):
        pursuit.heard(A, NEXT, PACE, now)


# octets


@given(st.integers(1, 300), st.data())
def test_pieces_that_overlap_or_come_twice_make_the_whole_once(
    length: int, data: st.DataObject
) -> None:
    whole = bytes(n % 251 for n in range(length))
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    came = []
    starts = data.draw(st.lists(st.integers(0, length - 1), max_size=8))
    for start in [*starts, *range(0, length, 10)]:
        piece = whole[start : start + 20]
        octets = pursuit.part(A, part(NEXT, start, piece, length))
        if octets is not None:
            came.append(bytes(octets))
    assert came == [whole]
    assert pursuit.wishes.get(A) is None


def test_what_was_not_asked_for_changes_nothing() -> None:
    pursuit = make()
    assert pursuit.part(A, part(NEXT, 0, b"x", 1)) is None
    pursuit.heard(A, NEXT, PACE, 0)
    assert pursuit.part(B, part(NEXT, 0, b"x", 1)) is None
    assert pursuit.part(A, part(head(9), 0, b"x", 1)) is None
    assert pursuit.part(A, part(NEXT, 3, b"x", 9)) is None
    assert pursuit.wishes.get(A) == Wish(NEXT, NO_COPY, 0)
    pursuit.part(A, part(NEXT, 0, b"xx", 9))
    assert pursuit.part(A, part(NEXT, 3, b"x", 9)) is None
    assert pursuit.part(A, part(NEXT, 2, b"x", 9, b"other copy".ljust(16))) is None
    assert pursuit.wishes.get(A) == Wish(NEXT, COPY, 2)


def test_it_goes_on_at_its_octet_when_the_peer_comes_back() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.part(A, part(NEXT, 0, b"abc", 9))
    pursuit.left(A, 1)
    pursuit.heard(A, NEXT, PACE, 5)
    assert pursuit.wishes.get(A) == Wish(NEXT, COPY, 3)
    assert whole(pursuit, A, part(NEXT, 3, b"defghi", 9)) == b"abcdefghi"


def test_it_begins_anew_with_another_copy_some_times() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    copies = [bytes([number + 1]) * 16 for number in range(COPIES_MAX)]
    for copy in copies:
        pursuit.part(A, part(NEXT, 0, b"ab", 9, copy))
        assert pursuit.wishes.get(A) == Wish(NEXT, copy, 2)
    pursuit.part(A, part(NEXT, 0, b"ab", 9, b"x" * 16))
    assert pursuit.wishes.get(A) == Wish(NEXT, copies[-1], 2)


def test_a_total_that_shrinks_ends_it_early_and_is_judged() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.part(A, part(NEXT, 0, b"abc", 900))
    assert whole(pursuit, A, part(NEXT, 3, b"d", 4)) == b"abcd"
    pursuit.judged(A, NEXT, 1, good=False)
    assert not asked(pursuit)


# what it was worth


def test_what_was_good_is_wanted_from_nobody() -> None:
    pursuit = make()
    fork = head(7, "fork")
    pursuit.heard(A, fork, PACE, 0)
    assert whole(pursuit, A, part(fork, 0, b"x", 1)) == b"x"
    pursuit.heard(B, fork, PACE, 0)
    assert not asked(pursuit)  # while it is being judged
    pursuit.judged(A, fork, 1, good=True)
    assert not asked(pursuit)


def test_what_was_refused_is_not_asked_for_again_from_that_peer() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.part(A, part(NEXT, 0, b"x", 1))
    pursuit.judged(A, NEXT, 1, good=False)
    pursuit.left(A, 2)
    pursuit.heard(A, NEXT, PACE, 1e6)
    assert not asked(pursuit)
    pursuit.heard(B, NEXT, PACE, 1e6)
    assert asked(pursuit) == {B: NEXT}
    pursuit.heard(A, head(9), PACE, 1e6)
    assert asked(pursuit) == {A: head(9), B: NEXT}


def test_it_may_be_asked_for_again_when_ours_is_another() -> None:
    pursuit = make(head(5))
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.part(A, part(NEXT, 0, b"x", 1))
    pursuit.judged(A, NEXT, 1, good=False)
    pursuit.adopted(OURS, 1 + 2 * FAILED_SECONDS)
    assert asked(pursuit) == {A: NEXT}


def test_who_failed_is_asked_for_nothing_for_a_while_that_doubles() -> None:
    pursuit = make()
    now = 0.0
    waits = []
    for version in range(8, 28):
        pursuit.heard(A, head(version), PACE, now)
        start = now
        while not asked(pursuit):
            now += FAILED_SECONDS
            pursuit.tick(now)
        waits.append((now - start) / FAILED_SECONDS)
        pursuit.part(A, part(head(version), 0, b"x", 1))
        pursuit.judged(A, head(version), now, good=False)
    assert waits[:6] == [0, 2, 4, 8, 16, 32]
    assert waits[-1] == 1024
    assert len(pursuit._peers[A].refused) == REFUSED_MAX


def test_who_was_good_has_a_clean_slate() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.part(A, part(NEXT, 0, b"x", 1))
    pursuit.judged(A, NEXT, 0, good=False)
    pursuit.heard(A, head(9), PACE, 1e5)
    pursuit.part(A, part(head(9), 0, b"x", 1))
    pursuit.judged(A, head(9), 1e5, good=True)
    assert pursuit._peers[A].failures == 0


def test_what_is_remembered_is_bounded() -> None:
    pursuit = make()
    for number in range(2 * SETTLED_MAX):
        fork = head(7, f"fork {number}")
        pursuit.heard(A, fork, PACE, number)
        assert whole(pursuit, A, part(fork, 0, b"x", 1)) == b"x"
        pursuit.judged(A, fork, number, good=True)
    assert len(pursuit._settled) == SETTLED_MAX


def test_what_our_own_disk_could_not_take_is_fetched_again_later() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    assert whole(pursuit, A, part(NEXT, 0, b"x", 1)) == b"x"
    pursuit.put_off(A, 1)
    assert not asked(pursuit)
    pursuit.tick(1 + FAILED_SECONDS)
    assert asked(pursuit) == {A: NEXT}
    assert not pursuit._peers[A].failures


def test_what_is_not_of_this_time_is_asked_for_again_in_an_hour_of_anybody() -> None:
    pursuit = make()
    for peer in (A, B):
        pursuit.heard(peer, NEXT, PACE, 0)
    assert whole(pursuit, A, part(NEXT, 0, b"x", 1)) == b"x"
    pursuit.untimely(A, NEXT, 1)
    assert not asked(pursuit)
    pursuit.heard(C, head(9), PACE, 2)
    assert asked(pursuit) == {C: head(9)}
    pursuit.heard(C, NEXT, PACE, 3)
    pursuit.tick(UNTIMELY_SECONDS)
    assert not asked(pursuit)
    pursuit.tick(1 + UNTIMELY_SECONDS)
    assert asked(pursuit) == {A: NEXT}
    assert not pursuit._peers[A].failures


# progress


def test_no_octets_in_ten_minutes_is_a_failure() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.heard(B, NEXT, PACE, 0)
    pursuit.tick(PROGRESS_SECONDS - 1)
    assert asked(pursuit) == {A: NEXT}
    pursuit.tick(PROGRESS_SECONDS)
    assert asked(pursuit) == {B: NEXT}


@pytest.mark.parametrize(("came", "goes_on"), [(LEAST, True), (LEAST - 1, False)])
def test_less_than_its_share_in_ten_minutes_is_a_failure(
    came: int, goes_on: bool
) -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    for round_ in range(1, 4):
        wish = pursuit.wishes.get(A)
        assert wish
        octets = bytes(LEAST if round_ < 3 else came)
        pursuit.part(A, part(NEXT, wish.offset, octets, 10**9))
        pursuit.tick(round_ * PROGRESS_SECONDS)
    assert bool(asked(pursuit)) is goes_on


def test_a_fast_class_on_a_slow_line_is_no_failure() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, 4096 * 4080.0, 0)
    pursuit.part(A, part(NEXT, 0, bytes(PROGRESS_MAX_LEN), 10**9))
    pursuit.tick(PROGRESS_SECONDS)
    assert asked(pursuit) == {A: NEXT}


def test_to_begin_again_and_again_is_no_progress() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    now = 0.0
    while asked(pursuit):
        now += PROGRESS_SECONDS / 2
        copy = int(now).to_bytes(16, "big")
        pursuit.part(A, part(NEXT, 0, bytes(LEAST + 1), 10**9, copy))
        pursuit.tick(now)
        assert now < 10 * PROGRESS_SECONDS


def test_to_begin_again_is_no_step_back() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.part(A, part(NEXT, 0, bytes(9 * LEAST), 10**9))
    pursuit.tick(PROGRESS_SECONDS)
    pursuit.part(A, part(NEXT, 0, bytes(LEAST), 10**9, b"other copy".ljust(16)))
    pursuit.tick(2 * PROGRESS_SECONDS)
    assert asked(pursuit) == {A: NEXT}


def test_a_document_that_is_being_judged_is_not_slow() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.part(A, part(NEXT, 0, b"x", 1))
    pursuit.heard(A, head(9), PACE, 0)
    pursuit.tick(10 * PROGRESS_SECONDS)
    pursuit.judged(A, NEXT, 10 * PROGRESS_SECONDS, good=True)
    assert pursuit._peers[A].failures == 0


# places


def test_three_at_once_and_no_more() -> None:
    pursuit = make()
    for number, peer in enumerate((A, B, C, D), 8):
        pursuit.heard(peer, head(number), PACE, 0)
    assert asked(pursuit) == {A: head(8), B: head(9), C: head(10)}
    assert len(asked(pursuit)) == FETCHES_MAX
    pursuit.part(A, part(head(8), 0, b"x", 1))
    assert D not in asked(pursuit)  # what is being judged has its place
    pursuit.judged(A, head(8), 1, good=False)
    assert asked(pursuit) == {B: head(9), C: head(10), D: head(11)}


def test_who_is_away_keeps_its_place_for_a_minute() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.left(A, 10)
    pursuit.heard(B, NEXT, PACE, 11)
    assert asked(pursuit) == {A: NEXT}
    pursuit.tick(10 + RETURN_SECONDS)
    assert asked(pursuit) == {B: NEXT}
    pursuit.left(C, 20)  # never heard


def test_what_is_being_judged_is_fetched_from_nobody_else() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    assert whole(pursuit, A, part(NEXT, 0, b"x", 1)) == b"x"
    pursuit.left(A, 10)
    pursuit.heard(B, NEXT, PACE, 10 + 2 * RETURN_SECONDS)
    assert not asked(pursuit)
    pursuit.judged(A, NEXT, 11 + 2 * RETURN_SECONDS, good=True)


def test_who_stays_away_gives_its_place_up() -> None:
    pursuit = make()
    pursuit.heard(A, NEXT, PACE, 0)
    pursuit.left(A, 10)
    pursuit.tick(PROGRESS_SECONDS)
    assert not asked(pursuit)


def test_who_has_failed_makes_room() -> None:
    pursuit = make()
    liars = (A, B, C)
    for number, liar in enumerate(liars):
        pursuit.heard(liar, head(90 + number), PACE, 0)
        pursuit.part(liar, part(head(90 + number), 0, b"x", 1))
        pursuit.judged(liar, head(90 + number), 0, good=False)
        pursuit.heard(liar, head(95 + number), PACE, 1e5)
    assert asked(pursuit).keys() == set(liars)
    pursuit.heard(D, NEXT, PACE, 1e5)
    assert asked(pursuit)[D] == NEXT
    pursuit.heard(E, NEXT, PACE, 1e5)
    assert len(asked(pursuit)) == FETCHES_MAX


def test_what_more_peers_have_takes_the_place_of_what_one_has() -> None:
    pursuit = make()
    for number, liar in enumerate((A, B, C)):
        pursuit.heard(liar, head(90 + number), PACE, 0)
    pursuit.heard(D, NEXT, PACE, 1)
    assert D not in asked(pursuit)
    pursuit.heard(E, NEXT, PACE, 2)
    assert asked(pursuit)[D] == NEXT


def test_what_is_being_judged_makes_no_room() -> None:
    pursuit = make()
    for number, liar in enumerate((A, B, C)):
        pursuit.heard(liar, head(90 + number), PACE, 0)
        pursuit.part(liar, part(head(90 + number), 0, b"x", 1))
    for honest in (D, E):
        pursuit.heard(honest, NEXT, PACE, 1)
    assert not asked(pursuit)
    pursuit.judged(B, head(91), 2, good=False)
    assert asked(pursuit) == {D: NEXT}


def test_three_liars_do_not_keep_an_honest_one_out() -> None:
    """Whatever they announce, drip or send: the honest one's comes within hours."""
    for seed in range(30):
        chance = random.Random(seed)  # noqa: S311  # repeats
        pursuit = make()
        liars = [A, B, C]
        now, done = 0.0, False
        version = 100
        while not done:
            now += 60
            assert now < 8 * 3600
            for liar in liars:
                if chance.random() < 0.3:
                    version += chance.randrange(5)
                    pursuit.heard(liar, head(version, liar.decode()), PACE, now)
                wish = pursuit.wishes.get(liar)
                if wish and chance.random() < 0.5:
                    octets = bytes(chance.choice([1, LEAST // 4, LEAST]))
                    end = wish.offset + len(octets)
                    total = end if chance.random() < 0.05 else 10**9
                    if pursuit.part(liar, part(wish.head, wish.offset, octets, total)):
                        pursuit.judged(liar, wish.head, now, good=False)
            pursuit.heard(D, NEXT, PACE, now)
            wish = pursuit.wishes.get(D)
            if wish:
                octets = bytes(30 * 4080)  # half of a minute's cells
                done = bool(pursuit.part(D, part(NEXT, wish.offset, octets, 2_000_000)))
            pursuit.tick(now)
            assert len(pursuit._fetches) <= FETCHES_MAX
