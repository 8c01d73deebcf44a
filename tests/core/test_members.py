# SPDX-License-Identifier: MIT
"""Which descriptor stands: whatever nodes say, in whatever order, alone or at once.

test_trusted.py has the rules one by one (R13, R14, R15); here they meet chance.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import sign
from mesh.core.descriptor import Descriptor
from mesh.core.members import Member, Members, check_entry, owners_of_keys, settle
from mesh.core.roster import Roster, entry_of
from mesh.errors import DirectoryError
from tests.descriptors import identity_of, signed
from tests.directories import members, roster_of

ALPHA, BRAVO, CHARLIE = SEEN = members()
ROSTER = roster_of(SEEN, pairs=(("mix@alpha.test", "alpha"), ("x@y.z", "alpha")))
START = settle(ROSTER, SEEN, {})
KEYS = [*(node.link_keys[0] for node in SEEN), b"new".ljust(32), b"newer".ljust(32)]


def renewed(node: Descriptor, serial: int, *keys: bytes) -> Descriptor:
    """Signed anew by its own node, with these keys or its old one."""
    other = replace(node, serial=serial, link_keys=keys or node.link_keys)
    message = b"mesh/1 descriptor\0" + other.statement
    return replace(other, signature=sign(identity_of(node.name), message))


def standing(found: Members) -> list[Descriptor]:
    return [member.descriptor for member in found.by_identity.values()]


def test_what_signers_saw_stands() -> None:
    entries = ROSTER.entries
    served = frozenset({"mix@alpha.test", "x@y.z"})
    assert START.by_identity == {
        ALPHA.identity: Member(entries[0], ALPHA, served),
        BRAVO.identity: Member(entries[1], BRAVO),
        CHARLIE.identity: Member(entries[2], CHARLIE),
    }
    assert START.liars == frozenset()
    assert START.believed == {node.identity: node for node in SEEN}


def test_two_that_signers_saw_with_one_key() -> None:
    thief = renewed(BRAVO, 7, *ALPHA.link_keys)
    roster = roster_of([ALPHA, thief, CHARLIE])
    with pytest.raises(DirectoryError, match="bravo has another node's key"):
        settle(roster, [ALPHA, thief, CHARLIE], {})
    with pytest.raises(DirectoryError, match="bravo has another node's key"):
        settle(roster, [None, thief, CHARLIE], {ALPHA.identity: ALPHA})
    with pytest.raises(DirectoryError, match="bravo has another node's key"):
        owners_of_keys(roster, [ALPHA, thief, None])


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (replace(ALPHA, name="adam"), "of somebody else"),
        (replace(ALPHA, network="x"), "of somebody else"),
        (replace(ALPHA, identity=BRAVO.identity), "of somebody else"),
        (replace(ALPHA, serial=6), "older than what was signed"),
        (replace(ALPHA, klass=4), "not what was signed"),
    ],
)
def test_what_an_entry_does_not_stand_for(other: Descriptor, why: str) -> None:
    with pytest.raises(DirectoryError, match=f"the descriptor of alpha is .*{why}"):
        check_entry(entry_of(ALPHA), other, "main")
    assert START.renewed(ROSTER, [replace(other, serial=other.serial)]) is START
    known = {ALPHA.identity: other}
    assert standing(settle(ROSTER, SEEN, known)) == SEEN


def test_a_later_one_stands_and_is_looked_at_quickly() -> None:
    for keys in ((), (KEYS[3],), (KEYS[3], *ALPHA.link_keys)):
        newer = renewed(ALPHA, 8, *keys)
        found = START.renewed(ROSTER, [newer])
        assert standing(found) == [newer, BRAVO, CHARLIE]
        assert found.by_identity[ALPHA.identity].addresses == {
            "mix@alpha.test",
            "x@y.z",
        }
        assert found.renewed(ROSTER, [newer, ALPHA]) is found


def test_a_strangers_is_nothing() -> None:
    assert START.renewed(ROSTER, [signed("delta")]) is START
    assert START.renewed(ROSTER, []) is START


def test_a_key_that_two_come_with_at_once() -> None:
    both = [renewed(ALPHA, 8, KEYS[3]), renewed(BRAVO, 8, KEYS[3])]
    for order in permutations(both):
        found = START.renewed(ROSTER, order)
        assert standing(found) == SEEN
        assert found.liars == {"alpha", "bravo"}
        fresh = settle(ROSTER, [*both, CHARLIE], {})
        assert standing(fresh) == [*both, CHARLIE]
        doubts = [member.doubted for member in fresh.by_identity.values()]
        assert doubts == [True, True, False]
        assert fresh.believed == {CHARLIE.identity: CHARLIE}


def test_a_doubted_one_stands_when_the_other_lets_go() -> None:
    both = [renewed(ALPHA, 8, KEYS[3]), renewed(BRAVO, 8, KEYS[3])]
    fresh = settle(ROSTER, [*both, CHARLIE], {})
    found = fresh.renewed(ROSTER, [renewed(BRAVO, 9, KEYS[4])])
    assert standing(found) == [both[0], renewed(BRAVO, 9, KEYS[4]), CHARLIE]
    assert not any(member.doubted for member in found.by_identity.values())
    assert fresh.renewed(ROSTER, [CHARLIE]) is fresh


def test_a_liar_is_told_until_it_says_something_else() -> None:
    found = START.renewed(ROSTER, [renewed(BRAVO, 8, *ALPHA.link_keys)])
    assert standing(found) == SEEN
    assert found.renewed(ROSTER, [renewed(ALPHA, 8)]).liars == {"bravo"}
    assert found.renewed(ROSTER, [renewed(BRAVO, 8)]).liars == frozenset()


def test_what_was_hidden_is_refused_when_it_shows() -> None:
    thief = renewed(BRAVO, 7, *ALPHA.link_keys)
    roster = roster_of([ALPHA, thief, CHARLIE])
    both = [renewed(ALPHA, 8, KEYS[3]), renewed(BRAVO, 8, KEYS[3])]
    fresh = settle(roster, [*both, CHARLIE], {})
    assert fresh.renewed(roster, [ALPHA, thief]) is fresh


OFFERS = st.builds(
    renewed,
    st.sampled_from(SEEN),
    st.integers(8, 11),
    st.sampled_from(KEYS),
)
BATCHES = st.lists(st.lists(OFFERS, max_size=3), max_size=5)


def check(found: Members, before: Members) -> None:
    """What holds whatever happened."""
    keys = [key for node in found.believed.values() for key in node.link_keys]
    assert len(set(keys)) == len(keys)
    assert list(found.by_identity) == [node.identity for node in SEEN]
    for who, node in before.believed.items():
        assert found.by_identity[who].descriptor.serial >= node.serial
        assert not found.by_identity[who].doubted


@given(BATCHES)
def test_nothing_goes_back_and_no_key_is_twos(
    batches: Sequence[list[Descriptor]],
) -> None:
    found = START
    for batch in batches:
        before, found = found, found.renewed(ROSTER, batch)
        check(found, before)


@given(OFFERS, st.lists(OFFERS, max_size=3))
def test_the_quick_way_is_the_long_one(
    first: Descriptor, batch: list[Descriptor]
) -> None:
    quick = START.renewed(ROSTER, [first])
    if not quick.liars:
        slow = replace(quick, liars=frozenset({"nobody"}))
        one, other = quick.renewed(ROSTER, batch), slow.renewed(ROSTER, batch)
        assert one.by_identity == other.by_identity
        assert one.liars == other.liars - {"nobody"}
        again = settle(ROSTER, [None] * 3, one.believed)
        assert again.by_identity == one.by_identity


@given(
    st.permutations([renewed(node, 8, KEYS[3 + n % 2]) for n, node in enumerate(SEEN)])
)
def test_who_comes_first_keeps_a_new_key(order: list[Descriptor]) -> None:
    found = START
    for one in order:
        found = found.renewed(ROSTER, [one])
    holders = {key: node for node in reversed(order) for key in node.link_keys}
    for key, node in holders.items():
        assert key in found.by_identity[node.identity].descriptor.link_keys


def test_a_roster_of_many_is_settled_one_by_one() -> None:
    roster: Roster = roster_of(SEEN)
    found = settle(roster, SEEN, {})
    for serial in range(8, 20):
        found = found.renewed(roster, [renewed(ALPHA, serial)])
    assert found.by_identity[ALPHA.identity].descriptor.serial == 19
