# SPDX-License-Identifier: MIT
"""What becomes of a directory that somebody offers: every row of the header's table."""

import pytest

from mesh.core.adoption import (
    Offer,
    Outcome,
    Verdict,
    check_draft,
    judge_untrusted,
    letters,
    released,
)
from mesh.core.document import Document
from mesh.core.trusted import Trusted, begin_untrusted
from mesh.errors import DirectoryError, ExpiredError, ForkError, OlderError
from tests.descriptors import NOW, signed
from tests.directories import directory, drafted, forged, members

NONE = Trusted("main")
FIRST = directory()
OTHERS = directory(signers=("dan", "eve"), by=("dan", "eve"))


def held(document: Document = FIRST) -> Trusted:
    return begin_untrusted(document, "main", NOW)


def judge(trusted: Trusted, offer: Offer) -> tuple[Verdict, Trusted]:
    return judge_untrusted(trusted, offer, [], NOW)


def test_the_first_needs_an_operator() -> None:
    with pytest.raises(DirectoryError, match=r"no directory is in force: compare .*"):
        judge(NONE, Offer(FIRST))
    assert judge(NONE, Offer(FIRST, typed=True)) == (Verdict.ADOPTED, held())


def test_what_an_error_makes_of_an_offer() -> None:
    assert Verdict.of(ForkError("")) is Verdict.FORK
    assert Verdict.of(OlderError("")) is Verdict.OLDER
    assert Verdict.of(ExpiredError("")) is Verdict.UNTIMELY
    assert Verdict.of(DirectoryError("")) is Verdict.REFUSED


def test_the_fingerprint_is_of_one_of_its_roots() -> None:
    fingerprint = FIRST.root.fingerprint
    spelled = fingerprint.lower().replace(" ", "-")
    assert letters(spelled) == letters(fingerprint)
    for trusted in (NONE, held()):
        judge(trusted, Offer(FIRST, True, spelled))
        with pytest.raises(DirectoryError, match="has this fingerprint"):
            judge(trusted, Offer(FIRST, True, OTHERS.root.fingerprint))


def test_the_next_from_anybody() -> None:
    newer = directory(FIRST, members("alpha", serial=8))
    for offer in (
        Offer(newer),
        Offer(newer, True),
        Offer(newer, True, "x"[:0] or None),
    ):
        verdict, trusted = judge(held(), offer)
        assert verdict is Verdict.ADOPTED
        assert trusted.head == newer.head
    assert judge(held(), Offer(FIRST)) == (Verdict.SAME, held())


def test_what_we_know_of_its_nodes_already_is_taken_over() -> None:
    later = signed("alpha", serial=12)
    newer = directory(FIRST)
    for trusted, offer in ((NONE, Offer(FIRST, True)), (held(), Offer(newer))):
        _, found = judge_untrusted(trusted, offer, [later, signed("zoe")], NOW)
        assert found.members[later.identity].descriptor == later


def test_the_same_with_newer_descriptors() -> None:
    later = signed("alpha", serial=12)
    fresh = held().renewed([later]).current
    assert fresh is not None
    verdict, trusted = judge(held(), Offer(fresh))
    assert verdict is Verdict.RENEWED
    assert trusted.members[later.identity].descriptor == later


def test_older_and_forked() -> None:
    second = directory(FIRST)
    with pytest.raises(OlderError):
        judge(held(second), Offer(FIRST))
    with pytest.raises(ForkError):
        judge(held(second), Offer(directory(FIRST, members("alpha", "bravo"))))


def test_beginning_again_needs_a_fingerprint_that_was_typed() -> None:
    fingerprint = OTHERS.root.fingerprint
    for offer in (
        Offer(OTHERS),
        Offer(OTHERS, typed=True),
        Offer(OTHERS, False, fingerprint),
    ):
        assert not offer.begins(held())
        with pytest.raises(DirectoryError, match="another root than ours"):
            judge(held(), offer)
    offer = Offer(OTHERS, True, fingerprint)
    assert offer.begins(held())
    assert judge(held(), offer) == (Verdict.ADOPTED, held(OTHERS))


def test_an_outcome_says_whether_something_is_new() -> None:
    changed = [verdict for verdict in Verdict if Outcome(verdict).changed]
    assert changed == [Verdict.ADOPTED, Verdict.RENEWED]


SECOND = drafted(FIRST)
OTHER_SECOND = drafted(FIRST, members("alpha"))


def check(trusted: Trusted, document: Document, signed: Document | None = None) -> None:
    check_draft(trusted, document, NOW, signed.head if signed else None)


def test_what_a_signer_may_sign() -> None:
    handed_over = drafted(FIRST, signers=("dan",))
    for trusted, document, before in (
        (NONE, FIRST, None),
        (NONE, FIRST, FIRST),
        (held(), FIRST, OTHERS),
        (held(), SECOND, FIRST),
        (held(), SECOND, SECOND),
        (held(), handed_over, OTHER_SECOND),
        (held(), drafted(SECOND), SECOND),
        (held(), drafted(OTHER_SECOND), SECOND),
    ):
        check(trusted, document, before)


@pytest.mark.parametrize(
    ("document", "before", "why"),
    [
        (drafted(nodes=members(network="x"), network="x"), None, "of the network x"),
        (forged(SECOND, not_after=int(NOW) - 1), None, "expired"),
        (OTHERS, None, "other signers than the one in force"),
        (drafted(drafted(nodes=members("alpha"))), None, "follows another version 1"),
        (drafted(nodes=members("alpha")), None, "version 1 is in force here"),
        (OTHER_SECOND, SECOND, "signed another one of this version"),
        (SECOND, drafted(SECOND), "signed another one of this version, or a later"),
    ],
)
def test_what_a_signer_may_not_sign(
    document: Document, before: Document | None, why: str
) -> None:
    with pytest.raises(DirectoryError, match=why):
        check(held(), document, before)


def test_what_is_released() -> None:
    """The addresses of a node that left, also one whose name another has now; pairs."""
    nodes = [
        signed("alpha", serves=("list@else.test", "mix@alpha.test", "x@else.test")),
        *members("bravo", "charlie"),
    ]
    pairs = (("list@else.test", "alpha"), ("x@else.test", "alpha"))
    before = directory(nodes=nodes, pairs=pairs)
    nodes = [nodes[0], signed("bravo", seed="other")]
    after = directory(before, nodes, pairs=pairs[:1])
    old, new = held(before), held(after)
    assert released(old, new) == {"mix@bravo.test", "mix@charlie.test", "x@else.test"}
    assert released(old, old) == released(NONE, new) == set()
    assert released(new, NONE) == {"list@else.test", "mix@alpha.test", "mix@bravo.test"}
