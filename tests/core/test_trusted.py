# SPDX-License-Identifier: MIT
"""The directory in force: each rule, by a directory that breaks it and nothing else.

The second half is TUF's conformance suite (theupdateframework/tuf-conformance) under its
own names, as far as its cases apply; `TUF` at the end has the rest, and why not.  Its
words here: a role's metadata is the roster, a target file is a node's descriptor.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import sign
from mesh.core.descriptor import Descriptor
from mesh.core.document import (
    Document,
    armour,
    from_octets_untrusted,
    parse_untrusted,
    to_octets,
)
from mesh.core.encoding import encode
from mesh.core.parts import join, split_untrusted
from mesh.core.root import VERSION_MAX, SignedRoot
from mesh.core.roster import NO_HASH, entry_of
from mesh.core.trusted import (
    AHEAD_SECONDS,
    WARN_SECONDS,
    Trusted,
    begin_untrusted,
    resume_untrusted,
)
from mesh.errors import DirectoryError, ExpiredError, ForkError, OlderError
from tests.descriptors import DAY, NOW, identity_of, link_key_of, signed
from tests.directories import (
    SIGNERS,
    directory,
    drafted,
    forged,
    members,
    root,
    roster_of,
    signatures_of,
    signed_by,
    signed_root,
)

ALPHA, BRAVO, CHARLIE = members()
V1 = directory()
V2 = directory(V1, days=61)
V3 = directory(V2, days=62)
OTHER_V2 = directory(V1, days=50)
HANDED = directory(V2, signers=("bob", "cid", "dan"), by=("bob", "cid"))
AFTER_HANDING = directory(HANDED, by=("cid", "dan"))
EXPIRES = V1.roster.not_after


def begun(document: Document = V1) -> Trusted:
    return begin_untrusted(document, "main", NOW)


T1 = begun()
T2 = T1.update_untrusted(V2, NOW)


def renewed(node: Descriptor, serial: int = 8, **changes: Any) -> Descriptor:
    """Signed anew by its own node, whatever it says."""
    other = replace(node, serial=serial, **changes)
    message = b"mesh/1 descriptor\0" + other.statement
    return replace(other, signature=sign(identity_of(node.name), message))


def boxed(document: Document, *nodes: Descriptor) -> Document:
    """The same directory with other descriptors following."""
    return replace(document, boxes=tuple(node.box for node in nodes))


def descriptors(trusted: Trusted) -> list[Descriptor]:
    return [member.descriptor for member in trusted.members.values()]


def refuses(
    trusted: Trusted,
    document: Document,
    why: str,
    now: float = NOW,
    kind: type[DirectoryError] = DirectoryError,
) -> None:
    with pytest.raises(DirectoryError, match=why) as caught:
        trusted.update_untrusted(document, now)
    assert caught.type is kind
    assert "\n" not in str(caught.value)


# Beginning


def test_without_a_directory() -> None:
    none = Trusted("main")
    assert (none.root, none.current, none.document) == (None, None, None)
    assert none.head == (0, NO_HASH)
    assert none.serials == {}
    assert none.notices(NOW) == []
    assert none.renewed([ALPHA]) is none


def test_nothing_but_an_operator_begins_one() -> None:
    refuses(Trusted("main"), V1, "no directory is in force")


def test_an_operator_begins_one() -> None:
    assert T1.root == V1.root
    assert T1.head == V1.head
    assert T1.current == V1
    assert descriptors(T1) == members()
    assert T1.serials == {node.identity: 7 for node in members()}
    assert list(T1.members) == [node.identity for node in members()]
    assert [member.entry for member in T1.members.values()] == [*V1.roster.entries]


def test_the_anchor_is_the_fingerprint_of_any_of_its_roots() -> None:
    for signed_one in AFTER_HANDING.roots:
        shown = signed_one.root.fingerprint
        for typed in (shown, shown.lower().replace(" ", "-"), shown.replace(" ", "")):
            assert begin_untrusted(AFTER_HANDING, "main", NOW, typed).document
    for wrong in ("", V1.root.fingerprint[:-1], "AAAA " * 8):
        with pytest.raises(DirectoryError, match="none of its roots") as caught:
            begin_untrusted(V1, "main", NOW, wrong)
        assert V1.root.fingerprint in str(caught.value)


@pytest.mark.parametrize(
    ("document", "network", "now", "why"),
    [
        (V1, "other", NOW, "of the network main: this node is of other"),
        (drafted(), "main", NOW, "root 1 is signed by too few"),
        (replace(V1, signatures=()), "main", NOW, "signed by 0 of 3, 2 needed"),
        (V1, "main", EXPIRES + 1, "expired"),
        (V1, "main", V1.roster.issued - AHEAD_SECONDS - 1, "in the future"),
        (boxed(V1, BRAVO, ALPHA, CHARLIE), "main", NOW, "of somebody else"),
    ],
)
def test_with_what_nobody_begins(
    document: Document, network: str, now: float, why: str
) -> None:
    with pytest.raises(DirectoryError, match=why):
        begin_untrusted(document, network, now)


def test_what_was_in_force_is_taken_up_again_even_expired() -> None:
    assert resume_untrusted(V1, "main") == T1
    foreign = directory(network="x", nodes=members(network="x"))
    for wrong, why in (
        (replace(V1, roots=(SignedRoot(V1.root),)), "root 1 is signed by too few"),
        (replace(V1, signatures=()), "2 needed"),
        (foreign, "of the network x: this node is of main"),
        (boxed(V1, BRAVO, ALPHA, CHARLIE), "of somebody else"),
    ):
        with pytest.raises(DirectoryError, match=why):
            resume_untrusted(wrong, "main")


# What an update brings


def test_an_update() -> None:
    assert T2.document == V2
    assert T2.update_untrusted(V3, NOW).head == V3.head
    assert T1.document == V1  # nothing is changed in place


def test_the_same_again_is_nothing_new() -> None:
    assert T1.update_untrusted(V1, NOW) is T1
    by_all = directory(by=SIGNERS)
    assert T1.update_untrusted(by_all, NOW) is T1


def test_the_same_with_newer_descriptors() -> None:
    newer = renewed(BRAVO)
    found = T1.update_untrusted(boxed(V1, ALPHA, newer, CHARLIE), NOW)
    assert descriptors(found) == [ALPHA, newer, CHARLIE]
    assert found.document == V1
    assert found.current == boxed(V1, ALPHA, newer, CHARLIE)
    assert found.update_untrusted(V1, NOW) is found


def test_the_same_is_taken_up_even_when_it_has_expired() -> None:
    found = T1.update_untrusted(boxed(V1, ALPHA, renewed(BRAVO), CHARLIE), EXPIRES + 1)
    assert found.serials[BRAVO.identity] == 8


def test_members_come_and_go() -> None:
    delta = signed("delta")
    other = directory(V1, nodes=[ALPHA, CHARLIE, delta])
    found = T1.update_untrusted(other, NOW)
    assert descriptors(found) == [ALPHA, CHARLIE, delta]


def test_pairs_and_hosts_are_the_signers_word() -> None:
    pairs = [("mix@alpha.test", "alpha")]
    found = begun(directory(pairs=pairs)).renewed(
        [renewed(ALPHA, serves=("x@else.test",), addresses=("else.test:1",))]
    )
    member = found.members[ALPHA.identity]
    assert member.descriptor.serial == 8
    assert member.addresses == {"mix@alpha.test"}
    assert member.entry.hosts == ("alpha.test",)
    assert found.members[BRAVO.identity].addresses == frozenset()


# Rule by rule (R1 and R2 have their places in test_document.py and test_roster.py)


def test_r3_another_network() -> None:
    refuses(T1, forged(V2, network="other"), "of the network other: this node is of")


def test_r4_roots_that_begin_elsewhere() -> None:
    other = directory(signers=("xenia", "yuri", "zoe"), by=("xenia", "yuri"))
    refuses(T1, other, "begins with another root")


def test_r4_another_root_of_a_number_that_we_hold() -> None:
    trusted = begun(HANDED)
    two = directory(V2, signers=("ann", "bob", "eve"), by=("ann", "bob"))
    refuses(trusted, two, "another root 2", kind=ForkError)
    thief = directory(V2, signers=("bob", "eve", "mal"), by=("bob", "eve"))
    refuses(trusted, thief, "root 2 is signed by too few")


def test_r5_a_handover_needs_both() -> None:
    assert T2.update_untrusted(HANDED, NOW).root == HANDED.root
    for by in (("ann", "bob"), ("bob", "dan"), ("cid",), ()):
        lone = signed_root(HANDED.root, by)
        document = replace(HANDED, roots=(*V2.roots, lone))
        refuses(T2, document, "root 2 is signed by too few")
        with pytest.raises(DirectoryError, match="root 2 is signed by too few"):
            begun(document)


def test_r5_two_handovers_at_once() -> None:
    third = directory(HANDED, signers=("cid", "dan", "eve"), by=("cid", "dan"))
    assert T1.update_untrusted(third, NOW).head == third.head
    skipped = replace(third, roots=(third.roots[0], third.roots[2]))
    with pytest.raises(DirectoryError, match="gap"):
        from_octets_untrusted(to_octets(skipped))


def test_r6_whoever_signs_must_be_asked() -> None:
    refuses(T1, forged(V2, (*SIGNERS, "eve")), "no signer")
    broken = replace(V2, signatures=V1.signatures)
    refuses(T1, broken, "the roster's signature of")
    stranger = signed_root(HANDED.root, ("bob", "cid", "eve"))
    refuses(T2, replace(HANDED, roots=(*V2.roots, stranger)), "no signer")


@pytest.mark.parametrize("by", [(), ("ann",), ("cid",)])
def test_r7_too_few(by: Sequence[str]) -> None:
    document = replace(V2, signatures=signatures_of(V2.roster, by))
    refuses(T1, document, rf"signed by {len(by)} of 3, 2 needed")


def test_r7_signed_by_those_that_handed_over() -> None:
    by_the_old = forged(HANDED, ("ann", "bob"))
    refuses(T2, by_the_old, "no signer")


def test_r8_older() -> None:
    refuses(T2, V1, "version 1 of root 1: version 2", kind=OlderError)
    trusted = begun(HANDED)
    refuses(trusted, V2, "of root 1: version 3 of root 2", kind=OlderError)
    higher = forged(V3, version=99)
    refuses(trusted, higher, "version 99 of root 1", kind=OlderError)


def test_r8_a_new_root_may_begin_versions_again() -> None:
    end = forged(V3, version=VERSION_MAX)
    trusted = T2.update_untrusted(end, NOW)
    assert trusted.update_untrusted(HANDED, NOW).head == HANDED.head


def test_r9_another_of_the_same_version() -> None:
    refuses(T2, OTHER_V2, "another version 2", kind=ForkError)


def test_r9_only_signers_make_a_fork() -> None:
    refuses(T2, replace(OTHER_V2, signatures=V2.signatures), "does not hold")


def test_r9_an_expired_fork_is_one_too() -> None:
    gone = forged(OTHER_V2, issued=0, not_after=DAY)
    refuses(T2, gone, "another version 2", kind=ForkError)


def test_r10_the_next_follows_another_than_ours() -> None:
    follows = directory(OTHER_V2)
    refuses(T2, follows, "version 3 follows another version 2", kind=ForkError)
    refuses(T1, forged(V2, predecessor=b"x" * 32), "follows another", kind=ForkError)


def test_r10_across_a_gap_or_a_new_root_nobody_can_check() -> None:
    assert T1.update_untrusted(V3, NOW).head == V3.head
    other = begun(OTHER_V2)
    assert other.update_untrusted(HANDED, NOW).head == HANDED.head


def test_r11_expired() -> None:
    end = V2.roster.not_after
    assert T1.update_untrusted(V2, end).head == V2.head
    refuses(T1, V2, "version 2 expired 2027-03-17", end + 1, kind=ExpiredError)


def test_r11_from_the_future() -> None:
    start = V2.roster.issued - AHEAD_SECONDS
    assert T1.update_untrusted(V2, start).head == V2.head
    why = "in the future: set this machine's clock"
    refuses(T1, V2, why, start - 1, kind=ExpiredError)


def test_r11_what_is_in_force_stays_so_when_it_expires() -> None:
    late = EXPIRES + 365 * DAY
    refuses(T1, V2, "expired", late, kind=ExpiredError)
    assert T1.update_untrusted(V1, late) is T1


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ((BRAVO, ALPHA, CHARLIE), "alpha is of somebody else"),
        ((renewed(ALPHA, name="adam"), BRAVO, CHARLIE), "alpha is of somebody else"),
        ((renewed(ALPHA, network="x"), BRAVO, CHARLIE), "alpha is of somebody else"),
        ((signed("alpha", seed="x"), BRAVO, CHARLIE), "alpha is of somebody else"),
    ],
)
def test_r12_descriptors_of_somebody_else(nodes: list[Descriptor], why: str) -> None:
    refuses(T1, boxed(V2, *nodes), why)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (renewed(ALPHA, 6), "alpha is older than what was signed"),
        (renewed(ALPHA, 7, klass=4), "alpha is not what was signed"),
        (replace(renewed(ALPHA), signature=ALPHA.signature), "alpha: the signature"),
    ],
)
def test_r13_descriptors_that_signers_did_not_see(node: Descriptor, why: str) -> None:
    refuses(T1, boxed(V2, node, BRAVO, CHARLIE), why)
    refuses(T1, boxed(V1, node, BRAVO, CHARLIE), why)


def test_r13_a_later_one_needs_its_own_signature_only() -> None:
    newer = renewed(ALPHA)
    found = T1.update_untrusted(boxed(V2, newer, BRAVO, CHARLIE), NOW)
    assert descriptors(found) == [newer, BRAVO, CHARLIE]


def test_r14_ours_stays_when_it_is_newer() -> None:
    ours = renewed(ALPHA, 9)
    trusted = T1.renewed([ours])
    for theirs in (ALPHA, renewed(ALPHA, 8), renewed(ALPHA, 9, klass=4)):
        found = trusted.update_untrusted(boxed(V2, theirs, BRAVO, CHARLIE), NOW)
        assert found.document is not None
        assert found.document.roster == V2.roster
        assert descriptors(found) == [ours, BRAVO, CHARLIE]
        current = found.current
        assert current is not None
        assert current.boxes[0] == ours.box


def test_r14_but_not_against_what_signers_saw() -> None:
    ours = renewed(ALPHA, 9)
    seen = renewed(ALPHA, 9, klass=4)
    other = directory(V1, nodes=[seen, BRAVO, CHARLIE])
    found = T1.renewed([ours]).update_untrusted(other, NOW)
    assert descriptors(found)[0] == seen


def test_r14_nor_for_a_node_of_another_name() -> None:
    adam = signed("adam", seed="alpha")
    other = directory(V1, nodes=[adam, BRAVO, CHARLIE])
    found = T1.renewed([renewed(ALPHA, 9)]).update_untrusted(other, NOW)
    assert descriptors(found) == [adam, BRAVO, CHARLIE]


def key_of(seed: str) -> bytes:
    return signed("alpha", link_keys=(signed(seed).link_keys[0],)).link_keys[0]


NEW_KEY = signed("nobody").link_keys[0]


def vouched(*nodes: Descriptor, before: Document = V1) -> Document:
    """What signers might sign whom our tools do not stop."""
    ordered = sorted(nodes, key=lambda node: node.name)
    changes = {"version": before.roster.version + 1, "predecessor": before.roster.hash}
    roster = roster_of(ordered, root=before.root.hash, **changes)
    made = Document(before.roots, roster, signatures_of(roster, SIGNERS[:2]), ())
    return boxed(made, *ordered)


def test_r15_two_that_signers_saw_with_one_key() -> None:
    thief = renewed(BRAVO, link_keys=ALPHA.link_keys)
    refuses(T1, vouched(ALPHA, thief, CHARLIE), "bravo has another node's key")
    with pytest.raises(DirectoryError, match="bravo has another node's key"):
        begun(replace(vouched(ALPHA, thief, CHARLIE)))
    thief = renewed(BRAVO, link_keys=(CHARLIE.identity,))
    refuses(T1, vouched(ALPHA, thief, CHARLIE), "bravo has another node's key")


def test_r15_a_liar_does_not_get_a_key_that_signers_saw() -> None:
    liar = renewed(BRAVO, link_keys=ALPHA.link_keys)
    for document in (V1, V2):
        found = T1.update_untrusted(boxed(document, ALPHA, liar, CHARLIE), NOW)
        assert descriptors(found) == members()
        assert found.liars == {"bravo"}
        assert not any(member.doubted for member in found.members.values())
    found = T1.renewed([liar])
    assert descriptors(found) == members()
    assert found.notices(NOW) == [
        "directory: bravo claims another node's key: ask the signers"
    ]


def test_r15_who_begins_with_a_lie_keeps_the_liars_addresses() -> None:
    liar = renewed(BRAVO, link_keys=ALPHA.link_keys)
    found = begun(boxed(V1, ALPHA, liar, CHARLIE))
    assert [member.doubted for member in found.members.values()] == [False, True, False]
    assert found.liars == {"bravo"}
    mended = found.renewed([BRAVO])
    assert descriptors(mended) == members()
    assert not any(member.doubted for member in mended.members.values())


def test_r15_a_liar_does_not_get_a_key_that_we_knew() -> None:
    rotated = renewed(ALPHA, link_keys=(NEW_KEY, *ALPHA.link_keys))
    liar = renewed(BRAVO, link_keys=(NEW_KEY,))
    known = T1.renewed([rotated])
    for document in (V1, V2):
        theirs = boxed(document, rotated, liar, CHARLIE)
        assert descriptors(known.update_untrusted(theirs, NOW)) == [
            rotated,
            BRAVO,
            CHARLIE,
        ]
    assert descriptors(known.renewed([liar])) == [rotated, BRAVO, CHARLIE]


def test_r15_what_two_claim_that_nobody_knew_counts_for_neither() -> None:
    rotated = renewed(ALPHA, link_keys=(NEW_KEY, *ALPHA.link_keys))
    liar = renewed(BRAVO, link_keys=(NEW_KEY,))
    found = T1.update_untrusted(boxed(V2, rotated, liar, CHARLIE), NOW)
    assert descriptors(found) == members()
    assert found.liars == {"alpha", "bravo"}
    fresh = begun(boxed(V1, rotated, liar, CHARLIE))
    assert [member.doubted for member in fresh.members.values()] == [True, True, False]
    honest = fresh.renewed([renewed(BRAVO, 9)])
    assert descriptors(honest) == [rotated, renewed(BRAVO, 9), CHARLIE]
    assert not any(member.doubted for member in honest.members.values())


def test_r15_what_we_knew_yields_to_the_signers() -> None:
    known = T1.renewed([renewed(BRAVO, link_keys=(NEW_KEY,))])
    seen = renewed(ALPHA, link_keys=(NEW_KEY,))
    found = known.update_untrusted(vouched(seen, BRAVO, CHARLIE), NOW)
    assert descriptors(found) == [seen, BRAVO, CHARLIE]
    assert found.liars == {"bravo"}


def test_r15_a_doubted_one_holds_no_key() -> None:
    liar = renewed(BRAVO, link_keys=ALPHA.link_keys)
    found = begun(boxed(V1, ALPHA, liar, CHARLIE))
    again = found.update_untrusted(boxed(V2, ALPHA, liar, CHARLIE), NOW)
    assert [member.doubted for member in again.members.values()] == [False, True, False]
    gone = renewed(ALPHA, link_keys=(NEW_KEY,))
    freed = found.update_untrusted(vouched(gone, BRAVO, CHARLIE), NOW)
    assert not any(member.doubted for member in freed.members.values())


def test_r15_hidden_by_a_later_descriptor_it_is_refused_when_it_shows() -> None:
    thief = renewed(BRAVO, link_keys=ALPHA.link_keys)
    document = vouched(ALPHA, thief, CHARLIE)
    hidden = boxed(document, ALPHA, renewed(BRAVO, 9), CHARLIE)
    trusted = T1.update_untrusted(hidden, NOW)
    doubted = boxed(document, ALPHA, renewed(BRAVO, 9, link_keys=(b"x" * 32,)), CHARLIE)
    assert trusted.update_untrusted(doubted, NOW) is trusted
    both = boxed(
        document,
        renewed(ALPHA, link_keys=(NEW_KEY,)),
        renewed(BRAVO, 9, link_keys=(NEW_KEY,)),
        CHARLIE,
    )
    unsure = T1.update_untrusted(both, NOW)
    assert unsure.members[BRAVO.identity].doubted
    assert unsure.renewed([ALPHA, thief]) is unsure


# Renewals that come alone


def test_a_renewal() -> None:
    newer = renewed(ALPHA)
    found = T1.renewed([newer])
    assert found.serials == {**T1.serials, ALPHA.identity: 8}
    assert found.head == T1.head
    assert found.renewed([newer]) is found
    assert found.renewed([]) is found
    assert T1.renewed([renewed(ALPHA, 9), newer]).serials[ALPHA.identity] == 9
    assert T1.renewed([newer, renewed(ALPHA, 9)]).serials[ALPHA.identity] == 9


@pytest.mark.parametrize(
    "other",
    [
        ALPHA,
        renewed(ALPHA, 6),
        renewed(ALPHA, 7, klass=4),
        renewed(ALPHA, name="adam"),
        renewed(ALPHA, network="x"),
        signed("delta"),
    ],
)
def test_what_is_no_renewal(other: Descriptor) -> None:
    assert T1.renewed([other]) is T1


def test_a_lie_stays_told_until_its_node_says_something_else() -> None:
    lied = T1.renewed([renewed(BRAVO, link_keys=ALPHA.link_keys)])
    assert lied.renewed([renewed(CHARLIE)]).liars == {"bravo"}
    assert lied.renewed([renewed(BRAVO)]).liars == frozenset()
    assert lied.update_untrusted(V2, NOW).liars == frozenset()


# What operators are told


@pytest.mark.parametrize(
    ("left", "line"),
    [
        (WARN_SECONDS + 1, None),
        (WARN_SECONDS, "expires in 14 days: ask the signers"),
        (DAY + 5, "expires in 1 day: ask the signers"),
        (5, "expires in less than a day: ask the signers"),
        (0, "expires in less than a day: ask the signers"),
        (-5, "expired less than a day ago and stays in force: ask the signers"),
        (-40 * DAY, "expired 40 days ago and stays in force: ask the signers"),
    ],
)
def test_the_end_is_near(left: float, line: str | None) -> None:
    lines = [f"directory: version 1 {line}"] if line else []
    assert T1.notices(EXPIRES - left) == lines


# Whatever comes in whatever order

SERIALS = st.integers(7, 10)
OFFERS = [V1, V2, V3, OTHER_V2, HANDED, AFTER_HANDING, directory(OTHER_V2), drafted()]


@given(
    st.sampled_from([V1, V2, OTHER_V2, HANDED]),
    st.lists(
        st.tuples(st.sampled_from(OFFERS), SERIALS, SERIALS, st.integers(0, 3)),
        max_size=8,
    ),
)
def test_nothing_ever_goes_back(
    first: Document, offers: list[tuple[Document, int, int, int]]
) -> None:
    trusted = begun(first)
    for document, alpha, bravo, key in offers:
        keys = ((key_of(f"node{key}"),), (NEW_KEY,))[key == 3]
        nodes = [
            renewed(ALPHA, alpha) if alpha > 7 else ALPHA,
            renewed(BRAVO, bravo, link_keys=keys) if bravo > 7 else BRAVO,
            CHARLIE,
        ]
        before = trusted
        try:
            trusted = trusted.update_untrusted(boxed(document, *nodes), NOW)
        except DirectoryError:
            continue
        assert trusted.head[0] >= before.head[0]
        assert (trusted.head == before.head) or trusted.head[0] > before.head[0]
        for who, serial in before.serials.items():
            assert trusted.serials[who] >= serial
        assert trusted.renewed(nodes).head == trusted.head
        held = [
            key
            for member in trusted.members.values()
            for key in member.descriptor.link_keys
            if not member.doubted
        ]
        assert len(set(held)) == len(held)
        assert (
            resume_untrusted(trusted.current or V1, "main").serials == trusted.serials
        )


# TUF's conformance suite, case by case.  test_basic.py


def test_basic_init_and_refresh() -> None:
    assert begun().update_untrusted(V2, NOW).head == V2.head


def test_invalid_initial_root() -> None:
    parts = split_untrusted(to_octets(V1), max_parts=99)
    statement = encode([1, "main", 2, V1.root.keys])
    octets = join([parts[0], join([statement, b""]), *parts[2:]])
    with pytest.raises(DirectoryError, match="damaged"):
        from_octets_untrusted(octets)


def test_unsigned_initial_root() -> None:
    (key, signature), other = V1.roots[0].signatures
    bad = bytes([signature[0] ^ 1]) + signature[1:]
    unsigned = SignedRoot(V1.root, ((key, bad), other))
    with pytest.raises(
        DirectoryError, match=r"the root's signature of .* does not hold"
    ):
        begun(replace(V1, roots=(unsigned,)))


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets"])
def test_unsigned_metadata(role: str) -> None:
    wrong = {
        "root": replace(HANDED, roots=(*V2.roots, signed_root(HANDED.root, ["cid"]))),
        "timestamp": replace(V3, signatures=()),
        "snapshot": replace(V3, signatures=V3.signatures[:1]),
        "targets": boxed(V3, replace(ALPHA, signature=bytes(64)), BRAVO, CHARLIE),
    }[role]
    refuses(T2, wrong, "too few|2 needed|signature does not hold")


def test_timestamp_content_changes() -> None:
    """TUF's client keeps what it has and says nothing; ours keeps it and says so."""
    refuses(T2, OTHER_V2, "another version 2", kind=ForkError)


test_timestamp_eq_versions_check = test_timestamp_content_changes


def test_basic_metadata_hash_support() -> None:
    changed = replace(V2.roster.entries[0], digest=b"x" * 32)
    entries = (changed, *V2.roster.entries[1:])
    refuses(T1, forged(V2, entries=entries), "alpha is not what was signed")


test_new_targets_hash_mismatch = test_basic_metadata_hash_support


def test_new_targets_version_mismatch() -> None:
    changed = replace(V2.roster.entries[0], serial=8)
    entries = (changed, *V2.roster.entries[1:])
    refuses(T1, forged(V2, entries=entries), "older than what was signed")


def test_custom_fields() -> None:
    """TUF carries fields that it does not know; we refuse them, and say what to do.

    A directory that says more than we read may say that somebody is out.
    """
    parts = split_untrusted(to_octets(V2), max_parts=99)
    for form, why in ((1, "damaged"), (2, "a root of a form .* upgrade it")):
        statement = encode((form, "main", 1, 2, V1.root.keys, "custom"))
        octets = join([parts[0], join([statement, b""]), *parts[2:]])
        with pytest.raises(DirectoryError, match=why):
            from_octets_untrusted(octets)


# test_expiration.py


def test_root_expired() -> None:
    """Our roots do not expire: they come with a roster that does, or not at all."""
    gone = forged(HANDED, ("bob", "cid"), issued=0, not_after=DAY)
    refuses(T2, gone, "expired", kind=ExpiredError)
    assert T2.update_untrusted(HANDED, NOW).root == HANDED.root


@pytest.mark.parametrize("document", [V2, V3, HANDED])
def test_timestamp_expired(document: Document) -> None:
    late = document.roster.not_after + 1
    refuses(T1, document, "expired", late, kind=ExpiredError)


test_snapshot_expired = test_targets_expired = test_timestamp_expired


def test_expired_metadata() -> None:
    """One that expired is what the next is measured by."""
    late = EXPIRES + 1
    assert T1.update_untrusted(V2, late).head == V2.head
    refuses(T1, forged(V2, predecessor=b"x" * 32), "follows", late, kind=ForkError)


def test_delegated_targets_expired() -> None:
    """A descriptor's own time is its user's question; the list is not refused for it."""
    gone = renewed(ALPHA, not_before=0, not_after=DAY)
    found = T1.update_untrusted(boxed(V2, gone, BRAVO, CHARLIE), NOW)
    assert not found.members[ALPHA.identity].descriptor.valid_at(NOW)


def test_expired_local_delegated_targets() -> None:
    assert not T1.members[ALPHA.identity].descriptor.valid_at(ALPHA.not_after + 1)


def test_expired_local_delegated_targets_updates() -> None:
    late = ALPHA.not_after + 1
    found = T1.renewed([renewed(ALPHA, not_after=late + DAY)])
    assert found.members[ALPHA.identity].descriptor.valid_at(late)


# test_file_download.py


def test_client_downloads_expected_file() -> None:
    assert T1.members[ALPHA.identity].descriptor.box == ALPHA.box


def test_repository_substitutes_target_file() -> None:
    refuses(T1, boxed(V2, renewed(ALPHA, 7, klass=4), BRAVO, CHARLIE), "not what was")


def test_multiple_changes_to_target() -> None:
    trusted = T1
    document = V1
    for serial in range(8, 18):
        node = signed("alpha", serial=serial, klass=serial % 5)
        document = directory(document, nodes=[node, BRAVO, CHARLIE])
        false = renewed(node, serial, insecure=("false",))
        refuses(trusted, boxed(document, false, BRAVO, CHARLIE), "not what was signed")
        if serial % 5 == 0:
            trusted = trusted.update_untrusted(document, NOW)
            assert descriptors(trusted)[0] == node


# test_keys.py


def rooted(keys: str, threshold: int, by: str, signers: str) -> Document:
    """V1's signers hand over to others; `by` sign the root with ann, bob, cid."""
    second = signed_root(root(2, keys, threshold), (*SIGNERS, *by))
    roster = replace(V2.roster, root_version=2, root=second.root.hash)
    roots = (*V1.roots, second)
    return Document(roots, roster, signatures_of(roster, signers), V2.boxes)


def test_root_has_keys_but_not_snapshot() -> None:
    document = rooted("abcde", 5, "abcde", "abcde")
    assert T1.update_untrusted(document, NOW).head == document.head
    refuses(T1, rooted("abcde", 5, "abcde", "abcd"), "signed by 4 of 5, 5 needed")


def test_snapshot_threshold() -> None:
    """More than there are keys: no such root parses."""
    wrong = rooted("abcde", 6, "abcde", "abcde")
    with pytest.raises(DirectoryError, match="threshold"):
        from_octets_untrusted(to_octets(wrong))
    refuses(T1, wrong, "too few")


def test_duplicate_keys_root() -> None:
    (key, signature) = V2.signatures[0]
    for twice in (((key, signature),) * 2, ((key, signature), (key, bytes(64)))):
        wrong = replace(V2, signatures=twice)
        with pytest.raises(DirectoryError, match="a key signed twice"):
            from_octets_untrusted(to_octets(wrong))
    refuses(T1, replace(V2, signatures=((key, signature),) * 2), "1 of 3, 2 needed")
    keys = (V1.root.keys[0], *V1.root.keys[:2])
    wrong_root = SignedRoot(replace(V1.root, keys=keys))
    with pytest.raises(DirectoryError, match="each once"):
        from_octets_untrusted(to_octets(replace(V1, roots=(wrong_root,))))


# test_quoting_issues.py


@pytest.mark.parametrize("role", ["?", "#", "/delegatedrole", "../delegatedrole"])
def test_unusual_role_name(role: str) -> None:
    """Names are file names elsewhere; these are none."""
    entry = replace(entry_of(ALPHA), name=role)
    roster = replace(V1.roster, entries=(entry, *V1.roster.entries[1:]))
    signatures = signatures_of(roster, SIGNERS)
    document = replace(V1, roster=roster, signatures=signatures)
    with pytest.raises(DirectoryError, match="against the rules"):
        from_octets_untrusted(to_octets(document))


# test_rollback.py


def test_new_timestamp_version_rollback() -> None:
    refuses(T2, V1, "version 2 of root 1 is in force", kind=OlderError)
    assert T2.document == V2


def test_simple_snapshot_rollback() -> None:
    """The list is new, what follows it is old: what we have stays."""
    trusted = T1.renewed([renewed(ALPHA)])
    found = trusted.update_untrusted(V2, NOW)
    assert found.serials[ALPHA.identity] == 8


@pytest.mark.parametrize("known", ["basic", "with hashes"])
def test_snapshot_rollback(known: str) -> None:
    """Signers who saw an old descriptor do not bring it back."""
    newer = renewed(ALPHA, 9)
    trusted = T1.renewed([newer])
    seen = renewed(ALPHA, 8) if known == "basic" else ALPHA
    other = directory(V1, nodes=[seen, BRAVO, CHARLIE])
    assert trusted.update_untrusted(other, NOW).serials[ALPHA.identity] == 9


test_targets_rollback = test_snapshot_rollback


def test_new_snapshot_version_mismatch() -> None:
    newer = signed("alpha", serial=8)
    other = directory(V1, nodes=[newer, BRAVO, CHARLIE])
    refuses(T1, boxed(other, ALPHA, BRAVO, CHARLIE), "older than what was signed")


@pytest.mark.parametrize("version", [100, 99_999, VERSION_MAX])
def test_new_timestamp_fast_forward_recovery(version: int) -> None:
    """Thieves of two keys drive the version up; the signers hand over, and go on."""
    trusted = T2.update_untrusted(forged(V3, version=version), NOW)
    assert trusted.head[0] & 0xFFFF_FFFF == version
    recovered = trusted.update_untrusted(HANDED, NOW)
    assert recovered.head == HANDED.head
    refuses(recovered, forged(V3, version=version), "root 2", kind=OlderError)


test_new_snapshot_fast_forward_recovery = test_new_timestamp_fast_forward_recovery


def test_new_targets_fast_forward_recovery() -> None:
    """A node's serial that a thief drove up: the signers list the node with a new key."""
    trusted = T1.renewed([renewed(ALPHA, (1 << 63) - 1)])
    again = signed("alpha", seed="alpha again", serial=1)
    other = directory(V1, nodes=[again, BRAVO, CHARLIE])
    assert descriptors(trusted.update_untrusted(other, NOW))[0] == again


# test_updater_key_rotations.py


@dataclass
class Md:
    """One version of a root: its keys, how many must sign, and who did."""

    keys: list[int]
    threshold: int
    sigs: list[int]
    res: bool = True


ABCDE = [0, 1, 2, 3, 4]
ROOT_ROTATION: dict[str, list[Md]] = {
    "1-of-1-key-rotation": [Md([1], 1, [1]), Md([2], 1, [2, 1]), Md([2], 1, [2])],
    "1-of-1-key-rotation-unused-signatures": [
        Md([1], 1, [1]),
        Md([2], 1, [3, 2, 1, 4], res=False),  # TUF passes over what we refuse (R6)
    ],
    "3-of-5-sign-with-different-keycombos": [
        Md(ABCDE, 3, [0, 2, 4]),
        Md(ABCDE, 3, [0, 4, 1]),
        Md(ABCDE, 3, [0, 1, 3]),
        Md(ABCDE, 3, [0, 1, 3]),
    ],
    "3-of-5-one-key-rotated": [
        Md(ABCDE, 3, [0, 2, 4]),
        Md([0, 1, 3, 4, 5], 3, [0, 4, 1]),
    ],
    "3-of-5-one-key-rotated-with-intermediate-step": [
        Md(ABCDE, 3, [0, 2, 4]),
        Md([0, 1, 3, 4, 5], 3, [0, 2, 4, 5]),
        Md([0, 1, 3, 4, 5], 3, [0, 4, 5]),
    ],
    "3-of-5-all-keys-rotated-with-intermediate-step": [
        Md(ABCDE, 3, [0, 2, 4]),
        Md([5, 6, 7, 8, 9], 3, [0, 2, 4, 5, 6, 7]),
        Md([5, 6, 7, 8, 9], 3, [5, 6, 7]),
    ],
    "1-of-3-threshold-increase-to-2-of-3": [
        Md([1, 2, 3], 1, [1]),
        Md([1, 2, 3], 2, [1, 2]),
    ],
    "2-of-3-threshold-decrease-to-1-of-3": [
        Md([1, 2, 3], 2, [1, 2]),
        Md([1, 2, 3], 1, [1, 2]),
        Md([1, 2, 3], 1, [1]),
    ],
    "1-of-2-threshold-increase-to-2-of-2": [Md([1], 1, [1]), Md([1, 2], 2, [1, 2])],
    "1-of-1-key-rotation-fail-not-signed-with-old-key": [
        Md([1], 1, [1]),
        Md([2], 1, [2], res=False),
    ],
    "1-of-1-key-rotation-fail-not-signed-with-new-key": [
        Md([1], 1, [1]),
        Md([2], 1, [1], res=False),
    ],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys": [
        Md(ABCDE, 3, [0, 2, 4]),
        Md([0, 1, 3, 4, 5], 3, [0, 2, 4], res=False),
    ],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys": [
        Md(ABCDE, 3, [0, 2, 4]),
        Md([0, 1, 3, 4, 5], 3, [0, 4, 5], res=False),
    ],
    "1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached": [
        Md([1, 2, 3], 1, [1]),
        Md([1, 2, 3], 2, [2], res=False),
    ],
    "2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-eached": [
        Md([1, 2, 3], 2, [1, 2]),
        Md([1, 2, 3], 1, [1], res=False),
    ],
}


def seeds(numbers: Sequence[int]) -> list[str]:
    return [f"key {number}" for number in numbers]


def made_of(versions: Sequence[Md]) -> Document:
    """All these roots, and a roster that enough of the last one's keys signed."""
    roots = tuple(
        signed_root(root(n, seeds(md.keys), md.threshold), seeds(md.sigs))
        for n, md in enumerate(versions, 1)
    )
    predecessor = b"x" * 32 if len(roots) > 1 else NO_HASH
    changes = {"root_version": len(roots), "root": roots[-1].root.hash}
    changes |= {"version": len(roots), "predecessor": predecessor}
    roster = roster_of(members(), **changes)
    by = seeds(versions[-1].keys[: versions[-1].threshold])
    return Document(roots, roster, signatures_of(roster, by), V1.boxes)


@pytest.mark.parametrize("name", ROOT_ROTATION)
def test_root_rotation(name: str) -> None:
    versions = ROOT_ROTATION[name]
    trusted = begun(made_of(versions[:1]))
    last = made_of(versions)
    if versions[-1].res:
        assert trusted.update_untrusted(last, NOW).root == last.root
        assert begun(last).root == last.root
        for n in range(1, len(versions) + 1):
            trusted = trusted.update_untrusted(made_of(versions[:n]), NOW)
        assert trusted.root == last.root
    else:
        refuses(trusted, last, "too few|no signer")
        assert trusted.root == made_of(versions[:1]).root


NON_ROOT_ROTATION = {
    "1-of-1-key-rotation": Md([2], 1, [2]),
    "1-of-1-key-rotation-unused-signatures": Md([1], 1, [3, 1, 4], res=False),  # R6
    "1-of-1-key-rotation-fail-not-signed-with-new-key": Md([2], 1, [1], res=False),
    "3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys": Md(
        [0, 1, 3, 4, 5], 3, [0, 2, 4], res=False
    ),
    "2-of-5-one-key-signature-mising-threshold-not-reached": Md(
        [0, 1, 3, 4, 5], 3, [0, 4], res=False
    ),
    "3-of-5-sign-first-combo": Md(ABCDE, 3, [0, 2, 4]),
    "3-of-5-sign-second-combo": Md(ABCDE, 3, [0, 4, 1]),
    "3-of-5-sign-third-combo": Md(ABCDE, 3, [0, 1, 3]),
    "3-of-5-sign-fourth-combo": Md(ABCDE, 3, [1, 2, 3]),
    "3-of-5-sign-fifth-combo": Md(ABCDE, 3, [2, 3, 4]),
}


@pytest.mark.parametrize("name", NON_ROOT_ROTATION)
def test_non_root_rotations(name: str) -> None:
    md = NON_ROOT_ROTATION[name]
    second = signed_root(
        root(2, seeds(md.keys), md.threshold), (*SIGNERS, *seeds(md.keys))
    )
    roster = replace(V2.roster, root_version=2, root=second.root.hash)
    signatures = signatures_of(roster, seeds(md.sigs))
    document = Document((*V1.roots, second), roster, signatures, V2.boxes)
    if md.res:
        assert T1.update_untrusted(document, NOW).head == document.head
    else:
        refuses(T1, document, "needed|no signer")


# test_static_repositories.py


def test_static_repository() -> None:
    """What was written once is read for ever."""
    path = Path(__file__).parent.parent / "vectors" / "directory.mesh"
    text = path.read_text(encoding="ascii")
    found = parse_untrusted(text, str(path))
    assert text.endswith(armour(found))
    trusted = begin_untrusted(found, "main", NOW)
    assert (len(found.roots), found.roster.version) == (2, 3)
    leaves = [member.descriptor.leaves for member in trusted.members.values()]
    assert leaves == [0, 1_800_003_600, 0]


NOT_HERE = {
    "test_implicit_refresh": "nothing is fetched on demand",
    "test_wrong_hashing_algorithm": "a key is 32 octets and says nothing of hashes",
    "test_client_downloads_expected_file_in_sub_dir": "nodes lie in no folders",
    "test_graph_traversal": "signers delegate to nobody",
    "test_targetfile_search": "signers delegate to nobody",
}
"""Cases of the suite that ask for what there is not."""

TUF = [
    "test_basic_init_and_refresh",
    "test_implicit_refresh",
    "test_invalid_initial_root",
    "test_unsigned_initial_root",
    "test_unsigned_metadata",
    "test_timestamp_content_changes",
    "test_basic_metadata_hash_support",
    "test_new_targets_version_mismatch",
    "test_custom_fields",
    "test_new_targets_hash_mismatch",
    "test_timestamp_eq_versions_check",
    "test_root_expired",
    "test_snapshot_expired",
    "test_targets_expired",
    "test_expired_metadata",
    "test_timestamp_expired",
    "test_delegated_targets_expired",
    "test_expired_local_delegated_targets",
    "test_expired_local_delegated_targets_updates",
    "test_client_downloads_expected_file",
    "test_client_downloads_expected_file_in_sub_dir",
    "test_repository_substitutes_target_file",
    "test_multiple_changes_to_target",
    "test_root_has_keys_but_not_snapshot",
    "test_wrong_hashing_algorithm",
    "test_snapshot_threshold",
    "test_duplicate_keys_root",
    "test_unusual_role_name",
    "test_simple_snapshot_rollback",
    "test_new_timestamp_version_rollback",
    "test_snapshot_rollback",
    "test_new_targets_fast_forward_recovery",
    "test_new_snapshot_fast_forward_recovery",
    "test_new_snapshot_version_mismatch",
    "test_new_timestamp_fast_forward_recovery",
    "test_targets_rollback",
    "test_graph_traversal",
    "test_targetfile_search",
    "test_root_rotation",
    "test_non_root_rotations",
    "test_static_repository",
]
"""The suite's cases, by name."""


@pytest.mark.parametrize("name", TUF)
def test_each_case_of_the_suite_is_here_or_has_a_reason(name: str) -> None:
    here: Callable[[], None] | None = getattr(sys.modules[__name__], name, None)
    assert (here is None) == (name in NOT_HERE)


def test_seeds_are_other_nodes() -> None:
    assert link_key_of("alpha") != link_key_of("alpha again")
    assert signed_by(drafted(), *SIGNERS[:2]) == V1
