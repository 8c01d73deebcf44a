# SPDX-License-Identifier: MIT
"""Roots: who signs, a key counts once, and who may say who signs next."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import hash256, sign
from mesh.core.descriptor import fingerprint
from mesh.core.encoding import encode
from mesh.core.parts import join
from mesh.core.root import (
    SIGNERS_MAX,
    VERSION_MAX,
    Root,
    Signatures,
    SignedRoot,
    majority,
    make_root,
    pack,
    sign_root,
    signed_root_from_octets_untrusted,
    succeeds,
    unite,
    unpack_untrusted,
    verify_root,
)
from mesh.errors import DirectoryError
from tests.descriptors import identity_of
from tests.directories import public_of, publics, root, signed_root

LABEL = b"mesh/1 root\x00"
FIRST = root(1, "abc", 2)
SECOND = root(2, "bcd", 2)


def octets_of(fields: Any, signatures: bytes = b"") -> bytes:
    return join([encode(fields), signatures])


def fields_of(one: Root) -> list[Any]:
    return [1, one.network, one.version, one.threshold, list(one.keys)]


def test_the_layout() -> None:
    statement = encode([1, "main", 1, 2, list(publics("abc"))])
    pair = public_of("a") + sign(identity_of("a"), LABEL + statement)
    made = signed_root(FIRST, "a")
    assert FIRST.statement == statement
    assert made.octets == join([statement, pair])
    assert FIRST.hash == hash256(b"mesh/1 root\x00", statement)
    assert signed_root_from_octets_untrusted(made.octets) == made


def test_a_fingerprint_is_other_than_a_nodes() -> None:
    assert [len(group) for group in FIRST.fingerprint.split(" ")] == [4] * 8
    assert FIRST.fingerprint != fingerprint(FIRST.statement)
    assert FIRST.fingerprint != SECOND.fingerprint


def test_a_changed_root_is_spelled_anew() -> None:
    assert FIRST.statement != replace(FIRST, version=2).statement


@pytest.mark.parametrize(
    ("signers", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (64, 33)]
)
def test_a_majority(signers: int, needed: int) -> None:
    assert majority(signers) == needed
    keys = [hash256(bytes([index])) for index in range(signers)]
    assert make_root("main", 1, keys).threshold == needed
    assert 2 * needed > signers


def test_keys_in_any_order_are_one_root() -> None:
    keys = publics("abc")
    assert len({make_root("main", 1, order) for order in permutations(keys)}) == 1
    assert make_root("main", 1, keys, 3).threshold == 3


RULES = [
    ({"network": "Main"}, "network"),
    ({"version": 0}, "version"),
    ({"version": VERSION_MAX + 1}, "version"),
    ({"keys": ()}, "not 1 to 64 keys"),
    ({"keys": tuple(bytes([n]) * 32 for n in range(SIGNERS_MAX + 1))}, "not 1 to 64"),
    ({"keys": (b"x" * 31, b"y" * 32)}, "not keys"),
    ({"keys": (b"x" * 32, b"x" * 32)}, "each once"),
    ({"keys": (b"y" * 32, b"x" * 32)}, "sorted"),
    ({"threshold": 0}, "threshold"),
    ({"threshold": 4}, "threshold"),
]


@pytest.mark.parametrize(("changes", "why"), RULES)
def test_each_rule_binds_them(changes: dict[str, Any], why: str) -> None:
    wrong = replace(FIRST, **changes)
    with pytest.raises(DirectoryError, match=why):
        signed_root_from_octets_untrusted(SignedRoot(wrong).octets)


@pytest.mark.parametrize(("changes", "why"), [r for r in RULES if "sort" not in r[1]])
def test_and_us(changes: dict[str, Any], why: str) -> None:
    one = replace(FIRST, **changes)
    with pytest.raises(DirectoryError, match=why):
        make_root(one.network, one.version, one.keys, one.threshold)


def test_the_bounds_are_inside() -> None:
    keys = tuple(sorted(hash256(bytes([index])) for index in range(SIGNERS_MAX)))
    long = replace(FIRST, version=VERSION_MAX, keys=keys, network="n" * 63)
    read = signed_root_from_octets_untrusted(SignedRoot(long).octets)
    assert read.root == long


@pytest.mark.parametrize("index", range(1, 5))
@pytest.mark.parametrize("value", [None, True, -1, "X", b"x", [None], [b"x", 1], [[]]])
def test_fields_of_the_wrong_type(index: int, value: Any) -> None:
    fields = fields_of(FIRST)
    fields[index] = value
    with pytest.raises(DirectoryError):
        signed_root_from_octets_untrusted(octets_of(fields))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "damaged"),
        (join([b"x"]), "damaged"),
        (join([b"x", b"", b""]), "damaged"),
        (join([encode(fields_of(FIRST)) + b"\0", b""]), "damaged"),
        (join([encode(fields_of(FIRST)), b"x"]), "list of signatures is damaged"),
        (octets_of(5), "of a form"),
        (octets_of([]), "of a form"),
        (octets_of([2, "whatever"]), "of a form that this mesh does not read: upgrade"),
        (octets_of([True, *fields_of(FIRST)[1:]]), "of a form"),
        (octets_of(fields_of(FIRST)[:-1]), "damaged"),
        (octets_of([*fields_of(FIRST), 0]), "damaged"),
    ],
)
def test_octets_that_are_no_root(octets: bytes, why: str) -> None:
    with pytest.raises(DirectoryError, match=why):
        signed_root_from_octets_untrusted(octets)


@given(st.binary(max_size=80))
def test_any_octets_parse_or_raise_one_error(octets: bytes) -> None:
    with pytest.raises(DirectoryError):
        signed_root_from_octets_untrusted(octets)


def test_every_flipped_bit_is_refused() -> None:
    octets = signed_root(FIRST, "ab").octets
    for index in range(len(octets)):
        for bit in range(8):
            wrong = bytearray(octets)
            wrong[index] ^= 1 << bit
            with pytest.raises(DirectoryError):
                verify_root(signed_root_from_octets_untrusted(bytes(wrong)), None)


def test_signatures_in_any_order_are_one_list() -> None:
    found = set()
    for order in permutations("abc"):
        found.add(signed_root(FIRST, order).octets)
    assert len(found) == 1
    assert signed_root(FIRST, "aab") == signed_root(FIRST, "ba")


@given(st.lists(st.sampled_from([b"x" * 32, b"y" * 32]), max_size=4))
def test_of_two_signatures_by_one_key_one_stays(keys: list[bytes]) -> None:
    lists: list[Signatures] = [((k, bytes([n]) * 64),) for n, k in enumerate(keys)]
    united = unite(lists)
    assert united == unite(reversed(lists))
    assert [key for key, _ in united] == sorted(set(keys))
    assert unpack_untrusted(pack(united)) == united


def test_a_key_that_signed_twice_is_refused() -> None:
    one = (b"x" * 32, b"s" * 64)
    with pytest.raises(DirectoryError, match="a key signed twice"):
        unpack_untrusted(pack((one, one)))
    with pytest.raises(DirectoryError, match="a key signed twice"):
        unpack_untrusted(pack(((b"y" * 32, b"s" * 64), one)))


def test_more_signatures_than_two_roots_have_keys() -> None:
    pairs = tuple((bytes([n]) * 32, bytes(64)) for n in range(2 * SIGNERS_MAX + 1))
    assert len(unpack_untrusted(pack(pairs[:-1]))) == 2 * SIGNERS_MAX
    with pytest.raises(DirectoryError, match="damaged"):
        unpack_untrusted(pack(pairs))


def test_whose_signature_does_not_hold() -> None:
    made = signed_root(FIRST, "ab")
    swapped = replace(
        made,
        signatures=tuple(
            (key, other)
            for (key, _), (_, other) in zip(
                made.signatures, reversed(made.signatures), strict=True
            )
        ),
    )
    with pytest.raises(DirectoryError, match="does not hold") as caught:
        verify_root(swapped, None)
    assert fingerprint(made.signatures[0][0]) in str(caught.value)


def test_a_signature_for_a_roster_is_none_for_a_root() -> None:
    other = (public_of("a"), sign(identity_of("a"), b"mesh/1 roster\0" + b"x"))
    with pytest.raises(DirectoryError, match="does not hold"):
        verify_root(SignedRoot(FIRST, (other,)), None)


def test_whose_signature_is_nobodys() -> None:
    with pytest.raises(DirectoryError, match="no signer") as caught:
        verify_root(signed_root(FIRST, "ax"), None)
    assert fingerprint(public_of("x")) in str(caught.value)
    verify_root(signed_root(SECOND, "a"), FIRST)
    with pytest.raises(DirectoryError, match="no signer"):
        verify_root(signed_root(SECOND, "a"), None)


@pytest.mark.parametrize(
    ("by", "enough"),
    [("ab", True), ("a", False), ("", False), ("abc", True)],
)
def test_the_first_root_is_signed_by_itself(by: str, enough: bool) -> None:
    assert succeeds(signed_root(FIRST, by), None) == enough


@pytest.mark.parametrize(
    ("by", "enough"),
    [
        ("bc", True),  # in both, counted in both
        ("ab", False),  # of its own only one
        ("bd", False),  # of the one before only one
        ("abd", True),
        ("acd", True),
        ("d", False),
    ],
)
def test_the_next_by_both(by: str, enough: bool) -> None:
    made = signed_root(SECOND, by)
    verify_root(made, FIRST)
    assert succeeds(made, FIRST) == enough


def test_a_quorum_is_of_keys_not_of_signatures() -> None:
    twice: Signatures = ((public_of("a"), b"1"), (public_of("a"), b"2"))
    assert FIRST.quorum(twice) == 1
    assert not FIRST.has_quorum(twice)


def test_signing_again_changes_nothing() -> None:
    made = signed_root(FIRST, "a")
    assert sign_root(made, identity_of("a")) == made
