# SPDX-License-Identifier: MIT
"""Documents: taken apart within bounds, verified piece by piece, one text each."""

import base64
import textwrap
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.crypto import sign
from mesh.core.descriptor import Descriptor, from_box_untrusted
from mesh.core.document import (
    BEGIN,
    DOCUMENT_MAX_LEN,
    END,
    ROOTS_MAX,
    TEXT_MAX_LEN,
    Document,
    armour,
    check_untrusted,
    from_octets_untrusted,
    open_untrusted,
    parse_untrusted,
    to_octets,
)
from mesh.core.encoding import encode
from mesh.core.members import owners_of_keys
from mesh.core.parts import join, split_untrusted
from mesh.core.root import SignedRoot, pack
from mesh.errors import DirectoryError, MeshError
from tests.descriptors import identity_of, link_key_of, signed
from tests.directories import (
    directory,
    drafted,
    forged,
    members,
    public_of,
    root,
    roster_of,
    signatures_of,
    signed_by,
    signed_root,
)

WHOLE = directory(pairs=[("mix@alpha.test", "alpha")])
TEXT = armour(WHOLE)
HANDED = directory(WHOLE, signers=("bob", "cid", "dan"), by=("bob", "cid"))


def parts_of(document: Document) -> list[bytes]:
    """The table of the module's header, written out here a second time."""
    return [
        encode([1, len(document.roots), len(document.boxes)]),
        *(signed.octets for signed in document.roots),
        document.roster.statement,
        b"".join(key + signature for key, signature in document.signatures),
        *document.boxes,
    ]


@pytest.mark.parametrize("document", [WHOLE, HANDED, drafted()])
def test_round_trip(document: Document) -> None:
    assert to_octets(document) == join(parts_of(document))
    assert from_octets_untrusted(to_octets(document)) == document
    assert parse_untrusted(armour(document)) == document
    assert document.head == (document.roster.order, document.roster.hash)


def test_the_readable_lines() -> None:
    assert TEXT.partition("\n\n")[0].split("\n") == [
        BEGIN,
        "Network: main",
        "Version: 1",
        f"Root: 1 {WHOLE.root.fingerprint}",
        "Signed-By: 2 of 3, 2 needed",
        "Issued: 2027-01-15 00:00:00Z",
        "Expires: 2027-03-16 00:00:00Z",
        "Nodes: 3",
    ]
    assert "\nSigned-By: 0 of 3, 2 needed\n" in armour(drafted())


def test_the_text_is_lines_that_mail_keeps() -> None:
    assert TEXT.isascii()
    assert max(map(len, TEXT.split("\n"))) <= 64
    assert TEXT.endswith(f"\n{END}\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", " \t\r\n"),
        lambda text: "  " + text.replace("\n", "\n  "),
        lambda text: text.rstrip("\n"),
        lambda text: f"Dear all,\n\nhere it is: {BEGIN}\n{text}\n-- \nAnn\n{END}\n",
    ],
)
def test_what_mail_does_is_forgiven(change: Callable[[str], str]) -> None:
    assert parse_untrusted(change(TEXT)) == WHOLE


@pytest.mark.usefixtures("repeats")
def test_every_truncation_is_refused() -> None:
    for length in range(len(TEXT) - 1):  # without the last newline it is still whole
        with pytest.raises(DirectoryError):
            parse_untrusted(TEXT[:length])
    octets = to_octets(WHOLE)
    for length in range(len(octets)):
        with pytest.raises(DirectoryError):
            from_octets_untrusted(octets[:length])


@pytest.mark.usefixtures("repeats")
def test_every_line_is_needed_and_none_may_come_twice() -> None:
    lines = TEXT.split("\n")[:-1]
    for index in range(len(lines)):
        for wrong in (
            [*lines[:index], *lines[index + 1 :]],
            [*lines[:index], lines[index], *lines[index:]],
        ):
            if wrong[: len(lines)] == lines:  # what follows END is text around
                continue
            with pytest.raises(DirectoryError):
                parse_untrusted("\n".join(wrong))


@pytest.mark.usefixtures("repeats")
def test_every_changed_character_is_refused() -> None:
    for index, old in enumerate(TEXT[:-1]):
        for new in {"A", "\n"} - {old}:
            with pytest.raises(DirectoryError):
                check_untrusted(parse_untrusted(TEXT[:index] + new + TEXT[index + 1 :]))


@pytest.mark.usefixtures("repeats")
def test_every_flipped_bit_is_refused() -> None:
    octets = to_octets(WHOLE)
    for index in range(len(octets)):
        wrong = bytearray(octets)
        wrong[index] ^= 1 << index % 8
        with pytest.raises(DirectoryError):
            check_untrusted(from_octets_untrusted(bytes(wrong)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Nodes: 3\n", ""),
        ("Nodes: 3\n", "Nodes: 4\n"),
        ("Nodes: 3\n", "Nodes: 3\nComment: hello\n"),
        ("Signed-By: 2", "Signed-By: 3"),
        ("Version: 1\nRoot", "Version: 2\nRoot"),
        ("Network: main\nVersion: 1\n", "Version: 1\nNetwork: main\n"),
    ],
)
def test_headers_that_say_more_or_less_than_is_signed(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(DirectoryError, match="readable lines are not what is signed"):
        parse_untrusted(TEXT.replace(old, new))


def in_base64(lines: list[str]) -> str:
    """The same document with its base64 in lines of one's own making."""
    return "\n".join([*TEXT.split("\n")[:8], "", *lines, END])


OCTETS = to_octets(WHOLE)
BASE64 = base64.b64encode(OCTETS).decode()
LINES = textwrap.wrap(BASE64, 64)


def test_the_text_that_is_damaged_below_was_whole() -> None:
    assert len(LINES[-1]) < 64
    assert parse_untrusted(in_base64(LINES)) == WHOLE


def test_the_longest_box() -> None:
    longest = changed(lambda p: [*p[:-1], bytes(41_024)])
    assert len(from_octets_untrusted(longest).boxes[-1]) == 41_024


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "f:1: no directory in it"),
        (f"hello {BEGIN}\n", "f:1: no directory in it"),
        (BEGIN, "f:1: cut off"),
        (f"x\n{BEGIN}\nName: a", "f:2: cut off"),
        (f"x\n{BEGIN}\n\nAAAA", "f:2: cut off"),
        (TEXT + "\n" + TEXT, "f:1: more than one directory"),
        (f"{BEGIN}\n{TEXT}", "f:1: more than one directory"),
        (f"{BEGIN}\n" + "x: y\n" * 17, "f:1: damaged"),
        (f"{BEGIN}\n\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\n\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\n???\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\n\u00e9\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\nAAA\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\nAB==\n{END}", "f:1: damaged"),
        (in_base64([BASE64]), "f:1: damaged"),
        (in_base64([BASE64[:60], BASE64[60:120]]), "f:1: damaged"),
        (in_base64(textwrap.wrap(BASE64, 60)), "f:1: damaged"),
        (in_base64([*LINES, ""]), "f:1: damaged"),
        (in_base64([*LINES[:-1], LINES[-1] + "!"]), "f:1: damaged"),
        (in_base64([*LINES[:-1], "!" + LINES[-1]]), "f:1: damaged"),
        (" " * (TEXT_MAX_LEN + 1), "f:1: more than 24 MiB"),
    ],
)
def test_texts_that_are_no_document(text: str, why: str) -> None:
    with pytest.raises(DirectoryError, match=why):
        parse_untrusted(text, "f")


def test_text_of_nothing_but_line_ends_costs_nothing() -> None:
    flood = "\n" * (TEXT_MAX_LEN - len(TEXT))
    assert parse_untrusted(flood + TEXT) == WHOLE
    with pytest.raises(DirectoryError, match="damaged"):
        parse_untrusted(f"{BEGIN}\n" + flood)


def changed(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    return join(change(parts_of(WHOLE)))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "damaged"),
        (bytes(DOCUMENT_MAX_LEN + 1), "more than 16 MiB"),
        (bytes(DOCUMENT_MAX_LEN), "damaged"),
        (changed(lambda p: [encode([2, 1, 3]), *p[1:]]), "of a form that this mesh"),
        (changed(lambda p: [encode([True, 1, 3]), *p[1:]]), "of a form"),
        (changed(lambda p: [encode(5), *p[1:]]), "of a form"),
        (changed(lambda p: [encode([1, 1]), *p[1:]]), "damaged"),
        (changed(lambda p: [encode([1, True, 3]), *p[1:]]), "damaged"),
        (changed(lambda p: [b"\x93\x01\x01\xcc\x03", *p[1:]]), "damaged"),
        (changed(lambda p: [encode([1, 0, 4]), *p[1:]]), "damaged"),
        (changed(lambda p: [encode([1, 5, -1]), *p[1:]]), "damaged"),
        (changed(lambda p: [encode([1, 1, 2]), *p[1:]]), "damaged"),
        (changed(lambda p: p[:-1]), "damaged"),
        (changed(lambda p: [*p, b""]), "damaged"),
        (changed(lambda p: [*p[:-1], bytes(41_025)]), "damaged"),
        (changed(lambda p: [*p[:3], b"x", *p[4:]]), "list of signatures is damaged"),
        (changed(lambda p: p) + b"\0", "damaged"),
    ],
)
def test_octets_that_are_no_document(octets: bytes, why: str) -> None:
    with pytest.raises(DirectoryError, match=why):
        from_octets_untrusted(octets)


def shaped(**changes: Any) -> bytes:
    return to_octets(replace(WHOLE, **changes))


SECOND = SignedRoot(root(2, ["ann"], 1))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (shaped(roots=(SECOND,)), "a gap"),
        (shaped(roots=(*WHOLE.roots, *WHOLE.roots)), "a gap"),
        (shaped(roots=(SignedRoot(root(1, "a", 1, network="x")),)), "another network"),
        (shaped(roots=(*WHOLE.roots, SECOND)), "another root than its newest"),
        (shaped(roster=replace(WHOLE.roster, root_version=2)), "another root"),
        (shaped(roster=replace(WHOLE.roster, root=b"x" * 32)), "another root"),
        (shaped(boxes=WHOLE.boxes[:-1]), "not one descriptor for each"),
    ],
)
def test_documents_that_do_not_fit_together(octets: bytes, why: str) -> None:
    with pytest.raises(DirectoryError, match=why):
        from_octets_untrusted(octets)


def test_the_most_roots() -> None:
    roots = tuple(SignedRoot(root(n, ["ann"], 1)) for n in range(1, ROOTS_MAX + 2))
    newest = {"root_version": ROOTS_MAX, "root": roots[-2].root.hash}
    roster = roster_of(members(), **newest)
    most = Document(roots[:-1], roster, (), WHOLE.boxes)
    assert from_octets_untrusted(to_octets(most)) == most
    more = replace(most, roots=roots, roster=replace(roster, root_version=257))
    with pytest.raises(DirectoryError, match="damaged"):
        from_octets_untrusted(to_octets(more))


@given(st.binary(max_size=120))
def test_any_octets_parse_or_raise_one_error(octets: bytes) -> None:
    for wrapped in (octets, join([encode([1, 1, 0]), octets, octets, octets])):
        with pytest.raises(DirectoryError):
            from_octets_untrusted(wrapped)


@given(st.text())
def test_any_text_parses_or_raises_one_error(text: str) -> None:
    for wrapped in (text, f"{BEGIN}\n{text}\n{END}", f"{BEGIN}\n\n{text}\n{END}"):
        with pytest.raises(DirectoryError):
            parse_untrusted(wrapped)


PARTS = split_untrusted(OCTETS, max_parts=99)


@given(st.lists(st.sampled_from(PARTS), max_size=9))
def test_any_parts_are_the_document_or_raise_one_error(parts: list[bytes]) -> None:
    try:
        found = check_untrusted(from_octets_untrusted(join(parts)))
    except DirectoryError:
        assert parts != PARTS
    else:
        assert parts == PARTS
        assert found == members()


# What can be asked without knowing whom to trust


def test_what_holds_gives_its_descriptors() -> None:
    assert check_untrusted(WHOLE) == members()
    assert check_untrusted(HANDED) == members()
    assert check_untrusted(drafted()) == members()


def test_a_known_descriptor_is_not_verified_again() -> None:
    known = {node.identity: node for node in members()}
    for found, node in zip(open_untrusted(WHOLE, known), known.values(), strict=True):
        assert found is node
    other = {who: replace(node, signature=bytes(64)) for who, node in known.items()}
    for found in open_untrusted(WHOLE, other):
        assert found.signature != bytes(64)


def boxed(*nodes: Descriptor) -> Document:
    return replace(WHOLE, boxes=tuple(node.box for node in nodes))


ALPHA, BRAVO, CHARLIE = members()


def box_of(node: Descriptor, **changes: Any) -> Descriptor:
    """Changed and signed again by the same node, whatever it says."""
    other = replace(node, **changes)
    message = b"mesh/1 descriptor\0" + other.statement
    return replace(other, signature=sign(identity_of(node.name), message))


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (boxed(BRAVO, ALPHA, CHARLIE), "descriptor of alpha is of somebody else"),
        (boxed(box_of(ALPHA, name="adam"), BRAVO, CHARLIE), "of somebody else"),
        (boxed(box_of(ALPHA, network="x"), BRAVO, CHARLIE), "of somebody else"),
        (boxed(signed("alpha", seed="adam"), BRAVO, CHARLIE), "of somebody else"),
        (boxed(box_of(ALPHA, serial=6), BRAVO, CHARLIE), "older than what was signed"),
        (boxed(box_of(ALPHA, klass=4), BRAVO, CHARLIE), "alpha is not what was signed"),
        (
            boxed(ALPHA, replace(BRAVO, signature=bytes(64)), CHARLIE),
            "the descriptor of bravo: the signature does not hold",
        ),
        (replace(WHOLE, boxes=(b"", b"", b"")), "the descriptor of alpha: damaged"),
    ],
)
def test_descriptors_that_the_entry_does_not_stand_for(
    document: Document, why: str
) -> None:
    with pytest.raises(DirectoryError, match=why):
        check_untrusted(document)


def test_a_descriptor_that_its_node_renewed_alone() -> None:
    newer = box_of(ALPHA, serial=8, addresses=("elsewhere.test:1",))
    assert check_untrusted(boxed(newer, BRAVO, CHARLIE))[0] == newer


def twins(first: Descriptor, second: Descriptor) -> Document:
    return replace(
        WHOLE,
        roster=roster_of([first, second]),
        signatures=(),
        boxes=(first.box, second.box),
    )


def test_two_nodes_with_one_key() -> None:
    second = box_of(BRAVO, link_keys=ALPHA.link_keys)
    with pytest.raises(DirectoryError, match="bravo has another node's key"):
        check_untrusted(twins(ALPHA, second))
    second = box_of(BRAVO, link_keys=(ALPHA.identity,))
    with pytest.raises(DirectoryError, match="bravo has another node's key"):
        check_untrusted(twins(ALPHA, second))


def test_what_a_node_says_alone_refuses_no_document() -> None:
    liar = box_of(BRAVO, serial=8, link_keys=ALPHA.link_keys)
    assert check_untrusted(boxed(ALPHA, liar, CHARLIE))[1] == liar
    owners = owners_of_keys(WHOLE.roster, [ALPHA, liar, None])
    assert owners[ALPHA.link_keys[0]] == ALPHA.identity
    assert set(owners.values()) == {ALPHA.identity, BRAVO.identity, CHARLIE.identity}


def test_signatures_that_do_not_hold() -> None:
    with pytest.raises(DirectoryError, match="no signer"):
        check_untrusted(forged(WHOLE, ("ann", "eve")))
    stolen = replace(WHOLE, roster=replace(WHOLE.roster, issued=1))
    with pytest.raises(DirectoryError, match="the roster's signature of"):
        check_untrusted(stolen)
    eve = signed_root(WHOLE.root, ("ann", "bob", "eve"))
    with pytest.raises(DirectoryError, match="the root is signed by"):
        check_untrusted(replace(WHOLE, roots=(eve,)))


def test_a_root_signed_by_the_one_before_only() -> None:
    first, second = HANDED.roots
    by_ann = signed_root(second.root, ("ann",))
    check_untrusted(replace(HANDED, roots=(first, by_ann)))
    by_dan = signed_root(first.root, ("ann", "dan"))
    with pytest.raises(DirectoryError, match="no signer"):
        check_untrusted(replace(HANDED, roots=(by_dan, second)))


def test_errors_are_one_line_and_end_with_65() -> None:
    for wrong in (TEXT[:300], TEXT.replace("Nodes: 3", "Nodes: 4")):
        with pytest.raises(MeshError) as caught:
            parse_untrusted(wrong, "f")
        assert caught.value.exit_code == 65
        assert "\n" not in str(caught.value)


def test_boxes_are_descriptors() -> None:
    assert [from_box_untrusted(box) for box in WHOLE.boxes] == members()
    assert signatures_of(WHOLE.roster, ("ann", "bob")) == WHOLE.signatures
    assert pack(WHOLE.signatures) == parts_of(WHOLE)[3]
    assert link_key_of("alpha") != link_key_of("bravo")
    assert {public_of("ann"), public_of("bob")} == {k for k, _ in WHOLE.signatures}
    assert (
        signed_by(drafted(pairs=[("mix@alpha.test", "alpha")]), "ann", "bob") == WHOLE
    )
