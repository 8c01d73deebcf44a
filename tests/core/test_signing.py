# SPDX-License-Identifier: MIT
"""Signing: several people, several machines, any order, the same octets."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import sign
from mesh.core.descriptor import Descriptor
from mesh.core.document import Document, armour, check_untrusted, to_octets
from mesh.core.root import VERSION_MAX, SignedRoot, majority, succeeds
from mesh.core.roster import NO_HASH, entry_of
from mesh.core.signing import draft, merge, sign_document
from mesh.errors import DirectoryError, NotPermittedError
from tests.descriptors import DAY, NOW, identity_of, signed
from tests.directories import (
    MEMBERS,
    SIGNERS,
    directory,
    drafted,
    forged,
    members,
    public_of,
    publics,
    root,
    roster_of,
    signatures_of,
    signed_by,
)

FIRST = directory()
DRAFT = drafted()
HANDOVER = drafted(FIRST, signers=("bob", "cid", "dan"))


# Drafts


def test_the_first_draft() -> None:
    made = drafted(pairs=[("mix@bravo.test", "bravo"), ("mix@alpha.test", "alpha")])
    roster = made.roster
    assert made.signatures == made.roots[0].signatures == ()
    assert made.root == root(1, SIGNERS, majority(3))
    assert (roster.version, roster.root_version, roster.predecessor) == (1, 1, NO_HASH)
    assert roster.issued % DAY == 0
    assert 0 <= NOW - roster.issued < DAY
    assert roster.not_after - roster.issued == 60 * DAY
    assert roster.entries == tuple(entry_of(node) for node in members())
    assert roster.pairs == (("mix@alpha.test", "alpha"), ("mix@bravo.test", "bravo"))
    assert check_untrusted(made) == members()


def test_the_next_draft() -> None:
    made = drafted(FIRST, now=NOW + 5 * DAY, days=7, nodes=members(not_after=2**31))
    assert made.roots == FIRST.roots
    assert made.roster.version == 2
    assert made.roster.predecessor == FIRST.roster.hash
    assert made.roster.not_after == made.roster.issued + 7 * DAY


@given(st.permutations(members()), st.permutations(SIGNERS))
def test_a_draft_is_the_same_whatever_the_order(
    nodes: list[Descriptor], signers: list[str]
) -> None:
    assert drafted(nodes=nodes, signers=signers) == DRAFT


@pytest.mark.parametrize(
    ("changes", "made"),
    [
        ({}, (1, SIGNERS, 2)),
        ({"signers": SIGNERS[::-1]}, (1, SIGNERS, 2)),
        ({"signers": SIGNERS, "threshold": 2}, (1, SIGNERS, 2)),
        ({"threshold": 3}, (2, SIGNERS, 3)),
        ({"signers": ("bob", "cid", "dan")}, (2, ("bob", "cid", "dan"), 2)),
        ({"signers": (*SIGNERS, "dan")}, (2, (*SIGNERS, "dan"), 3)),
        ({"signers": ("dan",), "threshold": 1}, (2, ("dan",), 1)),
    ],
)
def test_other_signers_are_another_root(
    changes: dict[str, Any], made: tuple[int, tuple[str, ...], int]
) -> None:
    found = drafted(FIRST, **changes)
    assert found.root == root(*made)
    assert found.roots[0] == FIRST.roots[0]
    assert found.roster.root_version == len(found.roots) == made[0]
    assert found.roster.root == found.root.hash


def test_a_threshold_stays_what_it_was_until_somebody_changes_it() -> None:
    before = directory(threshold=3, by=SIGNERS)
    assert drafted(before).root.threshold == 3
    assert drafted(before, signers=SIGNERS).root.threshold == 3


def test_after_the_last_version_only_a_new_root_begins_again() -> None:
    end = forged(FIRST, version=VERSION_MAX, predecessor=b"x" * 32)
    with pytest.raises(DirectoryError, match="no version is left"):
        drafted(end)
    made = drafted(end, signers=("dan",)).roster
    assert (made.version, made.root_version, made.predecessor) == (1, 2, NO_HASH)


LATE = signed("alpha", not_before=int(NOW) + 1, not_after=int(NOW) + DAY)


@pytest.mark.parametrize(
    ("nodes", "changes", "why"),
    [
        (None, {"network": None}, "needs a network and its signers"),
        (None, {"threshold": 4}, "threshold"),
        (None, {"signers": ()}, "not 1 to 64 keys"),
        (None, {"days": 0}, "validity"),
        (None, {"days": 367}, "validity"),
        ([], {}, "not 1 to 20000 nodes"),
        (members(network="x"), {}, "alpha is of the network x, not main"),
        ([LATE], {}, "alpha is not valid now"),
        (members(), {"now": NOW + 2 * DAY}, "alpha is not valid now"),
        ([*members(), signed("alpha", seed="x")], {}, "each once"),
        ([*members(), signed("zulu", seed="alpha")], {}, "alpha and zulu have one key"),
        (None, {"pairs": [("x@y.z", "alpha")]}, "alpha does not say that it serves"),
        (None, {"pairs": [("mix@alpha.test", "bravo")]}, "bravo does not say"),
        (None, {"pairs": [("mix@alpha.test", "zulu")]}, "zulu does not say"),
    ],
)
def test_what_cannot_be_drafted(
    nodes: list[Descriptor] | None, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(DirectoryError, match=why):
        drafted(nodes=nodes, **changes)


def test_one_address_for_two() -> None:
    nodes = [signed(name, serves=("@both.test",)) for name in MEMBERS]
    pairs = [("@both.test", "alpha"), ("@both.test", "bravo")]
    with pytest.raises(DirectoryError, match="addresses are not sorted, each once"):
        drafted(nodes=nodes, pairs=pairs)


def test_one_link_key_for_two() -> None:
    theft = signed("bravo", link_keys=signed("alpha").link_keys)
    with pytest.raises(DirectoryError, match="alpha and bravo have one key"):
        drafted(nodes=[signed("alpha"), theft])


def test_a_first_one_without_signers() -> None:
    with pytest.raises(DirectoryError, match="needs a network and its signers"):
        draft(None, members(), now=NOW, network="main")


# Signatures


def test_a_signer_signs_roster_and_root() -> None:
    made = sign_document(DRAFT, identity_of("ann"))
    assert made.signatures == signatures_of(DRAFT.roster, ["ann"])
    assert [key for key, _ in made.roots[0].signatures] == [public_of("ann")]
    check_untrusted(made)


def test_signing_again_changes_nothing() -> None:
    made = sign_document(DRAFT, identity_of("ann"))
    assert sign_document(made, identity_of("ann")) == made
    assert sign_document(FIRST, identity_of("ann")) == FIRST


def test_a_root_that_has_enough_is_left_alone() -> None:
    made = sign_document(FIRST, identity_of("cid"))
    assert made.roots == FIRST.roots
    assert len(made.signatures) == 3


@pytest.mark.parametrize(
    ("who", "roster", "of_root"),
    [("ann", False, True), ("bob", True, True), ("dan", True, True)],
)
def test_who_signs_what_at_a_handover(who: str, roster: bool, of_root: bool) -> None:
    made = sign_document(HANDOVER, identity_of(who))
    assert (public_of(who) in dict(made.signatures)) == roster
    assert (public_of(who) in dict(made.roots[-1].signatures)) == of_root
    assert made.roots[0] == FIRST.roots[0]


def test_who_is_no_signer() -> None:
    for document in (DRAFT, FIRST, HANDOVER):
        with pytest.raises(NotPermittedError, match="no signer's"):
            sign_document(document, identity_of("eve"))
    done = signed_by(HANDOVER, "bob", "cid")
    assert succeeds(done.roots[1], done.roots[0].root)
    with pytest.raises(NotPermittedError):
        sign_document(done, identity_of("ann"))


@pytest.mark.parametrize("operation", [sign_document, lambda d, _: merge([d])])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (forged(FIRST, ("ann", "eve")), "no signer"),
        (replace(DRAFT, boxes=DRAFT.boxes[::-1]), "of somebody else"),
    ],
)
def test_nobody_signs_or_merges_what_does_not_hold(
    operation: Any, wrong: Document, why: str
) -> None:
    with pytest.raises(DirectoryError, match=why):
        operation(wrong, identity_of("ann"))


def test_nobody_signs_two_nodes_with_one_key() -> None:
    theft = signed("bravo", link_keys=signed("alpha").link_keys)
    nodes = [signed("alpha"), theft]
    wrong = replace(
        DRAFT, roster=roster_of(nodes), boxes=tuple(node.box for node in nodes)
    )
    with pytest.raises(DirectoryError, match="bravo has another node's key"):
        sign_document(wrong, identity_of("ann"))


# Merging


PIECES = [sign_document(HANDOVER, identity_of(who)) for who in ("ann", "bob", "dan")]


def test_merged_in_any_order_and_any_groups() -> None:
    a, b, c = PIECES
    found = {to_octets(merge(order)) for order in permutations(PIECES)}
    found |= {
        to_octets(merge([merge([a, b]), c])),
        to_octets(merge([a, merge([b, c])])),
    }
    found |= {to_octets(merge([a, b, c, a, b, merge(PIECES), HANDOVER]))}
    assert len(found) == 1
    whole = merge(PIECES)
    assert {key for key, _ in whole.signatures} == set(publics(["bob", "dan"]))
    assert succeeds(whole.roots[1], whole.roots[0].root)
    assert armour(whole) == armour(merge([whole]))


def renewed(node: Descriptor, serial: int, **changes: Any) -> Descriptor:
    other = replace(node, serial=serial, **changes)
    message = b"mesh/1 descriptor\0" + other.statement
    return replace(other, signature=sign(identity_of(node.name), message))


@given(st.lists(st.tuples(*[st.integers(7, 9)] * 3), min_size=1, max_size=4))
def test_of_each_node_the_newest_descriptor(
    serials: list[tuple[int, int, int]],
) -> None:
    copies = [
        replace(
            DRAFT,
            boxes=tuple(
                renewed(node, serial).box
                for node, serial in zip(members(), row, strict=True)
            ),
        )
        for row in serials
    ]
    found = check_untrusted(merge(copies))
    assert [node.serial for node in found] == [
        max(column) for column in zip(*serials, strict=True)
    ]


def test_two_descriptors_of_one_serial_merge_alike() -> None:
    alpha, *others = members()
    rest = tuple(node.box for node in others)
    one, two = (
        replace(DRAFT, boxes=(renewed(alpha, 8, klass=klass).box, *rest))
        for klass in (3, 4)
    )
    assert merge([one, two]) == merge([two, one])


def test_different_directories_do_not_merge() -> None:
    for other in (
        drafted(days=59),
        drafted(FIRST),
        drafted(threshold=3),
        replace(HANDOVER, roots=(*FIRST.roots, SignedRoot(root(2, "xyz", 2)))),
    ):
        with pytest.raises(DirectoryError, match="different directories"):
            merge([HANDOVER if len(other.roots) == 2 else DRAFT, other])


def test_merging_nothing() -> None:
    with pytest.raises(DirectoryError, match="nothing to merge"):
        merge([])
