# SPDX-License-Identifier: MIT
"""Descriptors: one statement, one armour, and nothing but that is believed."""

import base64
import textwrap
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.clock import Clock
from mesh.core.crypto import sign
from mesh.core.descriptor import (
    BEGIN,
    BOX_MAX_LEN,
    END,
    TEXT_MAX_LEN,
    Descriptor,
    armour,
    create,
    fingerprint,
    from_box_untrusted,
    parse_untrusted,
)
from mesh.core.encoding import encode
from mesh.errors import DescriptorError
from tests.descriptors import NOW, draft, identity_of, signed, text_of

LABEL = b"mesh/1 descriptor\x00"


def fields_of(descriptor: Descriptor) -> list[Any]:
    """The array of the module's table, written out here a second time."""
    d = descriptor
    return [
        1,
        d.name,
        d.network,
        d.identity,
        list(d.link_keys),
        list(d.addresses),
        list(d.serves),
        int(d.clock),
        d.klass,
        list(d.versions),
        list(d.insecure),
        d.serial,
        d.not_before,
        d.not_after,
    ]


def statement_of(descriptor: Descriptor) -> bytes:
    """In the form that it needs."""
    form, *fields = fields_of(descriptor)
    leaves = descriptor.leaves
    return encode([2, *fields, leaves] if leaves else [form, *fields])


def armoured(statement: bytes, headers: str = "") -> str:
    """Properly signed octets under any headers."""
    box = base64.b64encode(
        sign(identity_of("alpha"), LABEL + statement) + statement
    ).decode()
    return "\n".join([BEGIN, headers, "", *textwrap.wrap(box, 64), END, ""])


def test_round_trip() -> None:
    descriptor = draft(
        "alpha",
        addresses=("alpha.test:4000", "[2001:db8::1]:4000"),
        serves=("@alpha.test", "mix@other.test"),
        clock=Clock.GREEDY,
        klass=0,
        versions=(1, 2),
        insecure=("debug log", "greedy clock"),
    )
    text = create(descriptor, identity_of("alpha"))
    assert parse_untrusted(text) == [descriptor]
    assert armour(parse_untrusted(text)[0]) == text


def test_the_statement_is_laid_out_as_the_header_says() -> None:
    descriptor = draft("alpha")
    box = "".join(text_of("alpha").partition("\n\n")[2].split("\n")[:-2])
    statement = encode(fields_of(descriptor))
    assert (
        base64.b64decode(box)
        == sign(identity_of("alpha"), LABEL + statement) + statement
    )


def test_the_readable_lines() -> None:
    text = text_of("alpha", addresses=(), serves=(), insecure=("greedy clock",))
    assert text.partition("\n\n")[0].split("\n") == [
        BEGIN,
        "Name: alpha",
        "Network: main",
        f"Fingerprint: {fingerprint(draft('alpha').identity)}",
        "Clock: renewal",
        "Cells-Per-Second: 1",
        "Link-Versions: 1",
        "Insecure: greedy clock",
        "Serial: 7",
        "Valid-From: 2027-01-14 08:00:00Z",
        "Valid-Until: 2027-01-16 08:00:00Z",
    ]


def test_a_fingerprint_can_be_read_out() -> None:
    groups = fingerprint(bytes(32)).split(" ")
    assert [len(group) for group in groups] == [4] * 8
    assert fingerprint(bytes(32)) != fingerprint(bytes(31) + b"\x01")


def test_validity_includes_both_ends() -> None:
    descriptor = draft("alpha", not_before=10, not_after=20)
    assert [descriptor.valid_at(t) for t in (9.9, 10, 20, 20.1)] == [
        False,
        True,
        True,
        False,
    ]


def test_many_in_one_text_with_prose_around() -> None:
    both = f"Dear Bob,\n\n{text_of('alpha')}\n-- \nand mine:\n{text_of('bravo')}Yours\n"
    assert [d.name for d in parse_untrusted(both)] == ["alpha", "bravo"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "  \n"),
        lambda text: text.replace("\n", "\t\r\n"),
        lambda text: "  " + text.replace("\n", "\n  "),
        lambda text: text.rstrip("\n"),
    ],
)
def test_what_mail_does_to_white_space_is_forgiven(change: Any) -> None:
    assert parse_untrusted(change(text_of("alpha"))) == [draft("alpha")]


@pytest.mark.usefixtures("repeats")
def test_every_truncation_is_refused() -> None:
    text = text_of("alpha")
    for length in range(len(text) - 1):  # without the last newline it is still whole
        with pytest.raises(DescriptorError):
            parse_untrusted(text[:length])
        with pytest.raises(DescriptorError):
            parse_untrusted(text_of("bravo") + text[:length] if length > 31 else "")


@pytest.mark.usefixtures("repeats")
def test_every_flipped_bit_is_refused() -> None:
    octets = text_of("alpha").encode()
    for index in range(len(octets)):
        for bit in range(8):
            wrong = bytearray(octets)
            wrong[index] ^= 1 << bit
            with pytest.raises(DescriptorError):
                parse_untrusted(wrong.decode(errors="replace"))


def test_every_line_is_needed_and_none_may_come_twice() -> None:
    lines = text_of("alpha").split("\n")[:-1]
    for index in range(len(lines)):
        for wrong in (
            [*lines[:index], *lines[index + 1 :]],
            [*lines[:index], lines[index], *lines[index:]],
        ):
            with pytest.raises(DescriptorError):
                parse_untrusted("\n".join(wrong))


def test_headers_that_say_more_or_less_than_is_signed() -> None:
    text = text_of("alpha", serves=("a@alpha.test", "b@alpha.test"))
    for old, new in [
        ("Serves: a@alpha.test\n", ""),
        ("Clock: renewal", "Clock: greedy"),
        ("Serial: 7\n", "Serial: 7\nComment: hello\n"),
        (
            "Serves: a@alpha.test\nServes: b@alpha.test",
            "Serves: b@alpha.test\nServes: a@alpha.test",
        ),
    ]:
        assert old in text
        with pytest.raises(
            DescriptorError, match="readable lines are not what is signed"
        ):
            parse_untrusted(text.replace(old, new))


def test_where_a_mistake_is() -> None:
    text = (
        "hello\n"
        + text_of("alpha")
        + "\n"
        + text_of("bravo").replace("Serial: 7", "Serial: 8")
    )
    line = text.split("\n").index(BEGIN, 2) + 1
    with pytest.raises(DescriptorError, match=f"^mail.txt:{line}: the readable lines"):
        parse_untrusted(text, "mail.txt")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "f:1: no descriptor in it"),
        ("hello\n", "f:1: no descriptor in it"),
        (BEGIN, "f:1: cut off"),
        (f"x\n{BEGIN}\nName: a", "f:2: cut off"),
        (f"{BEGIN}\nx\n{BEGIN}\n{END}", "f:3: BEGIN and END do not pair"),
        (END, "f:1: BEGIN and END do not pair"),
        (f"{BEGIN}\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\n???\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\n\u00e9\n{END}", "f:1: damaged"),
        (f"{BEGIN}\n\n{'A' * 87}=\n{END}", "f:1: of a form"),
        (" " * (TEXT_MAX_LEN + 1), "f:1: more than 4 MiB"),
    ],
)
def test_texts_that_are_no_descriptors(text: str, why: str) -> None:
    with pytest.raises(DescriptorError, match=why):
        parse_untrusted(text, "f")


def test_a_signature_of_somebody_else() -> None:
    mine = signed("alpha")
    theirs = replace(mine, signature=sign(identity_of("bravo"), b"x"))
    with pytest.raises(DescriptorError, match="the signature does not hold"):
        parse_untrusted(armour(theirs))


def test_a_key_that_is_none_is_no_crash() -> None:
    broken = replace(signed("alpha"), identity=b"short")
    with pytest.raises(DescriptorError, match="the signature does not hold"):
        parse_untrusted(armour(broken))


RULES = [
    ({"name": "Alpha"}, "name"),
    ({"name": "../x"}, "name"),
    ({"network": ""}, "network"),
    ({"link_keys": ()}, "link keys"),
    ({"link_keys": (b"x" * 31,)}, "link keys"),
    ({"link_keys": (b"x" * 32, b"x" * 32)}, "link keys"),
    ({"link_keys": (b"x" * 32, b"y" * 32, b"z" * 32)}, "link keys"),
    ({"addresses": ("alpha.test",)}, "to dial"),
    ({"addresses": ("Alpha.test:1",)}, "to dial"),
    ({"addresses": ("a.b:1", "a.b:1")}, "to dial"),
    ({"addresses": tuple(f"a.b:{n}" for n in range(1, 10))}, "to dial"),
    ({"serves": ("b@a.b", "a@a.b")}, "it serves"),
    ({"serves": ("a@a.b", "a@a.b")}, "it serves"),
    ({"serves": ("A@a.b",)}, "it serves"),
    ({"serves": ("nonsense",)}, "it serves"),
    ({"serves": tuple(f"{n:03}@a.b" for n in range(129))}, "it serves"),
    ({"klass": 16}, "rate"),
    ({"klass": -1}, "rate"),
    ({"versions": ()}, "link protocols"),
    ({"versions": (0,)}, "link protocols"),
    ({"versions": (2, 1)}, "link protocols"),
    ({"versions": tuple(range(1, 10))}, "link protocols"),
    ({"insecure": ("b", "a")}, "weaknesses"),
    ({"insecure": ("a\nSerial: 9",)}, "weaknesses"),
    ({"insecure": ("",)}, "weaknesses"),
    ({"insecure": (" a",)}, "weaknesses"),
    ({"insecure": ("x" * 65,)}, "weaknesses"),
    ({"insecure": tuple("abcdefghi")}, "weaknesses"),
    ({"serial": 0}, "serial"),
    ({"serial": 1 << 63}, "serial"),
    ({"not_before": -1}, "validity"),
    ({"not_before": 5, "not_after": 5}, "validity"),
    ({"not_after": 253_402_300_800}, "validity"),
    ({"leaves": -3600}, "full hour"),
    ({"leaves": 3599}, "full hour"),
    ({"leaves": 253_402_300_800}, "full hour"),
]


@pytest.mark.parametrize(("changes", "why"), RULES)
def test_each_rule_binds_us_and_them(changes: dict[str, Any], why: str) -> None:
    wrong = draft("alpha", **changes)
    with pytest.raises(DescriptorError, match=why):
        create(wrong, identity_of("alpha"))
    with pytest.raises(DescriptorError, match=f"{why}.*its node must export it again"):
        parse_untrusted(armoured(statement_of(wrong)))


def test_the_longest_that_the_rules_allow_fits() -> None:
    long = draft(
        "alpha",
        name="a" * 63,
        network="n" * 63,
        addresses=tuple(f"{n}{'a.' * 125}b:65535" for n in range(8)),
        link_keys=(b"x" * 32, b"y" * 32),
        serves=tuple(f"{n:03}{'x' * 61}@{'y.' * 94}z" for n in range(128)),
        versions=tuple(range((1 << 64) - 8, 1 << 64)),
        insecure=tuple(str(n) * 64 for n in range(8)),
        serial=(1 << 63) - 1,
        not_after=253_402_300_799,
    )
    assert parse_untrusted(create(long, identity_of("alpha"))) == [long]


@pytest.mark.parametrize("index", range(14))
@pytest.mark.parametrize(
    "value", [None, True, -1, "x", b"x", [None], [True], ["x", 1], [[]]]
)
def test_a_signed_statement_of_the_wrong_shape(index: int, value: Any) -> None:
    fields = fields_of(draft("alpha"))
    fields[index] = value
    with pytest.raises(DescriptorError):
        parse_untrusted(armoured(encode(fields)))


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        (5, "of a form"),
        ([], "of a form"),
        ([3, "whatever", "a later form has"], "of a form that this mesh does not read"),
        (fields_of(draft("alpha"))[:-1], "damaged"),
        ([*fields_of(draft("alpha")), 0], "damaged"),
        ([*fields_of(draft("alpha"))[:7], 9, *fields_of(draft("alpha"))[8:]], "clock"),
    ],
)
def test_a_signed_statement_of_another_form(statement: Any, why: str) -> None:
    with pytest.raises(DescriptorError, match=why):
        parse_untrusted(armoured(encode(statement)))


def test_octets_after_the_statement() -> None:
    with pytest.raises(DescriptorError, match="damaged"):
        parse_untrusted(armoured(encode(fields_of(draft("alpha"))) + b"\x00"))


LEAVES = int(NOW) - int(NOW) % 3600 + 7200


def test_a_node_that_leaves_says_when() -> None:
    text = text_of("alpha", leaves=LEAVES)
    assert "\nLeaves: 2027-01-15 10:00:00Z\n" in text
    found = parse_untrusted(text)[0]
    assert found.leaves == LEAVES
    assert found.statement == encode([2, *fields_of(found)[1:], LEAVES])
    assert [found.has_left(LEAVES + at) for at in (-1, 0, 1)] == [False, True, True]
    assert not signed("alpha").has_left(NOW)


def test_a_node_that_stays_writes_the_first_form() -> None:
    assert signed("alpha").statement == encode(fields_of(draft("alpha")))
    with pytest.raises(DescriptorError, match="damaged"):
        parse_untrusted(armoured(encode([2, *fields_of(draft("alpha"))[1:], 0])))


def test_a_box_is_what_the_armour_has_in_base64() -> None:
    found = signed("alpha", leaves=LEAVES)
    assert found.box == found.signature + found.statement
    assert from_box_untrusted(found.box) == found
    assert from_box_untrusted(found.box).box == found.box
    assert len(found.box) <= BOX_MAX_LEN


@pytest.mark.parametrize("length", [0, 63, 64, 65])
def test_a_box_cut_short(length: int) -> None:
    with pytest.raises(DescriptorError):
        from_box_untrusted(signed("alpha").box[:length])


def test_a_changed_descriptor_is_spelled_anew() -> None:
    found = signed("alpha")
    other = replace(found, serial=8)
    assert other.statement != found.statement
    assert other.digest != found.digest == signed("alpha").digest


def test_the_signature_is_no_part_of_equality() -> None:
    assert signed("alpha") == draft("alpha")
    assert signed("alpha").valid_at(NOW)


@given(st.text())
def test_any_text_parses_or_raises_one_error(text: str) -> None:
    for wrapped in (text, f"{BEGIN}\n{text}\n{END}", f"{BEGIN}\n\n{text}\n{END}"):
        with pytest.raises(DescriptorError):
            parse_untrusted(wrapped)


@given(st.binary(max_size=300))
def test_any_signed_octets_parse_or_raise_one_error(statement: bytes) -> None:
    with pytest.raises(DescriptorError):
        parse_untrusted(armoured(statement))
