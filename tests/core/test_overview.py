# SPDX-License-Identifier: MIT
"""What eyes and programs see of a directory."""

from dataclasses import replace

from mesh.core.armour import fingerprint
from mesh.core.document import Document
from mesh.core.overview import (
    brief,
    changes,
    facts,
    is_complete,
    missing,
    signed_by,
    signers,
)
from tests.descriptors import DAY, NOW, signed
from tests.directories import directory, drafted, members, public_of
from tests.directories import signed_by as sign

SIGNERS = ("alpha", "bravo", "zoe")
ZOE = fingerprint(public_of("zoe"))
NODES = [
    signed("alpha", serves=("list@else.test", "mix@alpha.test")),
    *members("bravo", "charlie"),
]
PAIR = (("list@else.test", "alpha"),)
FIRST = directory(nodes=NODES, signers=SIGNERS, by=SIGNERS[:2], pairs=PAIR)


def test_in_brief() -> None:
    assert brief(FIRST, NOW) == {
        "version": 1,
        "root": FIRST.root.fingerprint,
        "signed_by": ["alpha", "bravo"],
        "needed": 2,
        "nodes": 3,
        "expires": "2027-03-16 00:00:00Z",
        "days_left": 59,
    }
    assert brief(FIRST, NOW + 99 * DAY)["days_left"] == 0


def test_everything() -> None:
    found = facts(FIRST, NODES, NOW)
    assert found["schema"] == 1
    assert found["predecessor"] is None
    assert found["hash"] == FIRST.roster.hash.hex()
    assert [one["name"] for one in found["signers"]] == [ZOE, "alpha", "bravo"]
    assert found["members"][0] == {
        "name": "alpha",
        "fingerprint": fingerprint(public_of("alpha")),
        "hosts": ["alpha.test"],
        "vouched": ["list@else.test"],
        "addresses": ["alpha.test:4000"],
        "serves": ["list@else.test", "mix@alpha.test"],
        "serial": 7,
        "valid_until": "2027-01-16 08:00:00Z",
    }
    second = directory(FIRST, NODES, by=SIGNERS[:2])
    assert facts(second, NODES, NOW)["predecessor"] == FIRST.roster.hash.hex()


def test_who_signed_and_who_is_missing() -> None:
    draft = drafted(nodes=NODES, signers=SIGNERS)
    assert set(signers(draft).values()) == {"alpha", "bravo", ZOE}
    assert (signed_by(draft), missing(draft)) == ([], [ZOE, "alpha", "bravo"])
    assert not is_complete(draft)
    one = sign(draft, "bravo")
    assert (signed_by(one), missing(one)) == (["bravo"], [ZOE, "alpha"])
    assert not is_complete(one)
    assert is_complete(FIRST)
    assert missing(FIRST) == [ZOE]


def test_a_new_root_needs_those_before_it_too() -> None:
    draft = drafted(FIRST, NODES, signers=("charlie",))
    assert missing(draft) == [ZOE, "alpha", "bravo", "charlie"]
    own = sign(draft, "charlie")
    assert missing(own) == [ZOE, "alpha", "bravo"]
    assert not is_complete(own)
    half = sign(draft, "charlie", "bravo")
    assert missing(half) == [ZOE, "alpha"]
    assert not is_complete(half)
    assert not is_complete(sign(draft, "bravo", "alpha"))
    full = sign(draft, "charlie", "bravo", "alpha")
    assert missing(full) == []
    assert is_complete(full)
    bare = replace(full, signatures=())
    assert not is_complete(bare)


def lines(before: Document | None, after: Document) -> list[str]:
    return changes(before, after)


def test_what_there_is_at_first() -> None:
    bravo, charlie = (fingerprint(public_of(n)) for n in ("bravo", "charlie"))
    nodes = [NODES[0], signed("bravo", addresses=()), NODES[2]]
    first = drafted(nodes=nodes, signers=SIGNERS, pairs=PAIR)
    assert lines(None, first)[1:] == [
        f"+ bravo: {bravo}, dials only",
        f"+ charlie: {charlie}, at charlie.test",
        "+ list@else.test: alpha serves it",
        f"~ root 1: 2 of 3 sign: {ZOE}, alpha, bravo",
    ]


def test_what_is_new() -> None:
    assert lines(FIRST, FIRST) == []
    nodes = [
        replace(NODES[0]),
        signed("bravo", serial=9, addresses=("else.test:1", "bravo.test:1")),
        signed("dave"),
    ]
    after = drafted(FIRST, nodes, signers=("alpha", "zoe", "dave", "eve"))
    eve = fingerprint(public_of("eve"))
    found = lines(FIRST, after)
    assert found[:-3] == [
        "- charlie: leaves",
        "~ bravo: speaks for bravo.test, else.test now",
        "~ bravo: descriptor 7 -> 9",
        f"+ dave: {fingerprint(public_of('dave'))}, at dave.test",
        "- list@else.test: vouched for no more",
        f"~ root 2: 3 of 4 sign: {', '.join(sorted([ZOE, 'alpha', 'dave', eve]))}",
    ]
    assert sorted(found[-3:]) == sorted(
        [
            "~ root 2: bravo signs no more",
            "~ root 2: dave signs from now on",
            f"~ root 2: {eve} signs from now on",
        ]
    )


def test_another_key_is_loud() -> None:
    other = signed("bravo", seed="mallory", addresses=())
    (line, *rest) = lines(
        FIRST, drafted(FIRST, [NODES[0], other, NODES[2]], pairs=PAIR)
    )
    assert line == f"~ bravo: ANOTHER KEY: {fingerprint(public_of('mallory'))}"
    assert rest == ["~ bravo: speaks for no host now"]
