# SPDX-License-Identifier: MIT
"""Answers of a real library's, of nobody's, and of somebody hostile."""

import struct
import time
from collections.abc import Sequence
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.dns import (
    CNAMES_MAX,
    NAME_MAX,
    RECORDS_MAX,
    UDP_MAX,
    Answer,
    Kind,
    encode_question,
    is_answer,
    parse_answer_untrusted,
)
from mesh.errors import RemoteProtocolError

QUESTION = encode_question(0x1234, "x.test", Kind.MX)
labels = st.from_regex(r"[a-z0-9_][a-z0-9_-]{0,20}", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)


def answer(question: bytes, *sets: Sequence[str], flags: int = 0x0080) -> bytes:
    """What dnspython would answer: (name, kind, record, ...) a set."""
    response = dns.message.make_response(dns.message.from_wire(question))
    response.flags |= flags
    for name, kind, *records in sets:
        response.answer.append(
            dns.rrset.from_text(f"{name}.", 60, "IN", kind, *records)
        )
    return response.to_wire(max_size=65535)


def asked(name: str, kind: Kind, *sets: Sequence[str]) -> Answer | None:
    question = encode_question(7, name, kind)
    octets = answer(question, *sets)
    assert is_answer(octets, question)
    return parse_answer_untrusted(octets, question)


@given(names, st.sampled_from(Kind), st.integers(0, 65535))
def test_a_question_is_what_others_understand(
    name: str, kind: Kind, ident: int
) -> None:
    message = dns.message.from_wire(encode_question(ident, name, kind))
    [question] = message.question
    assert question.name.to_text(omit_final_dot=True) == name
    assert (int(question.rdtype), int(question.rdclass)) == (int(kind), 1)
    assert (message.id, message.payload) == (ident, UDP_MAX)
    assert message.flags == dns.flags.RD


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "a.", ".a", "x" * 64, "é.test", "a b", "a\\046b", "a@b",
     ".".join(["x" * 60] * 5)],
)  # fmt: skip
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(ValueError, match=r"no host name|ascii"):
        encode_question(0, name, Kind.A)


def test_the_longest_name_is_asked_for() -> None:
    name = ".".join(["x" * 63] * 3 + ["x" * 61])
    assert len(name) == NAME_MAX
    found = asked(name, Kind.A, (name, "A", "192.0.2.1"))
    assert found is not None
    assert found.addresses == (ip_address("192.0.2.1"),)


@given(
    names, st.lists(st.tuples(st.integers(0, 65535), names), max_size=6, unique=True)
)
def test_exchanges(name: str, exchanges: list[tuple[int, str]]) -> None:
    records = [f"{preference} {host}." for preference, host in exchanges]
    found = asked(name, Kind.MX, *[(name, "MX", *records)][: len(records)])
    assert found is not None
    assert set(found.exchanges) == set(exchanges)
    assert (found.name, found.exists) == (name, True)


def test_addresses_and_aliases() -> None:
    found = asked(
        "a.test",
        Kind.AAAA,
        ("a.test", "CNAME", "B.test."),
        ("c.test", "AAAA", "2001:db8::1"),
        ("b.test", "CNAME", "c.TEST."),
        ("a.test", "A", "192.0.2.1"),
        ("other.test", "AAAA", "2001:db8::2"),
    )
    assert found == Answer("c.test", True, (ip_address("2001:db8::1"),))


def test_the_null_mx_is_nobody() -> None:
    found = asked("x.test", Kind.MX, ("x.test", "MX", "0 ."))
    assert found is not None
    assert found.exchanges == ((0, ""),)


def test_an_alias_of_nobody_has_nothing() -> None:
    for alias in (".", r"\000.test."):
        found = asked("a.test", Kind.A, ("a.test", "CNAME", alias))
        assert found == Answer("", True)


def test_what_is_no_host_s_name_is_nobody_s() -> None:
    records = (
        "1 a\\032b.test.",
        "2 a\\000.test.",
        "3 \\255.test.",
        "4 x\\.y.test.",
        "5 ok.",
    )
    found = asked("x.test", Kind.MX, ("x.test", "MX", *records))
    assert found is not None
    assert sorted(found.exchanges, key=lambda each: each[0]) == [
        (1, None), (2, None), (3, None), (4, None), (5, "ok"),
    ]  # fmt: skip


def test_a_loop_of_aliases_is_no_answer() -> None:
    with pytest.raises(RemoteProtocolError):
        asked("a.test", Kind.A, ("a.test", "CNAME", "b."), ("b", "CNAME", "a.test."))
    chain = [(f"n{n}", "CNAME", f"n{n + 1}.") for n in range(CNAMES_MAX)]
    assert asked("n0", Kind.A, *chain) == Answer(f"n{CNAMES_MAX}", True)
    with pytest.raises(RemoteProtocolError):
        asked("n0", Kind.A, *chain, (f"n{CNAMES_MAX}", "CNAME", "end."))


def test_who_does_not_exist() -> None:
    octets = bytearray(answer(QUESTION))
    octets[3] |= dns.rcode.NXDOMAIN
    assert parse_answer_untrusted(bytes(octets), QUESTION) == Answer("x.test", False)


@pytest.mark.parametrize("rcode", [1, 2, 4, 5, 9])
def test_a_failure_is_no_answer(rcode: int) -> None:
    octets = bytearray(answer(QUESTION))
    octets[3] |= rcode
    short = bytes(octets[:4]) + bytes(8)  # some repeat no question then
    for failure in (bytes(octets), short):
        assert is_answer(failure, QUESTION)
        with pytest.raises(RemoteProtocolError):
            parse_answer_untrusted(failure, QUESTION)


def test_a_server_that_does_not_recurse_has_no_word_on_what_there_is_not() -> None:
    with pytest.raises(RemoteProtocolError):
        parse_answer_untrusted(answer(QUESTION, flags=0), QUESTION)
    for octets in (
        answer(QUESTION, flags=dns.flags.AA),
        answer(QUESTION, ("y.test", "A", "192.0.2.1"), flags=0),
    ):
        assert parse_answer_untrusted(octets, QUESTION) == Answer("x.test", True)


def test_what_is_cut_is_to_be_asked_for_again() -> None:
    assert parse_answer_untrusted(answer(QUESTION, flags=0x0200), QUESTION) is None


def test_what_is_not_for_us() -> None:
    right = answer(QUESTION)
    assert is_answer(right, QUESTION)
    assert is_answer(right.replace(b"\1x\4test", b"\1X\4TesT"), QUESTION)
    wrong = {
        "too short": right[:11],
        "another id": b"\x12\x35" + right[2:],
        "a question": right[:2] + b"\x01" + right[3:],
        "another opcode": right[:2] + b"\x89" + right[3:],
        "another name": right.replace(b"\1x\4test", b"\1y\4test"),
        "another kind": right.replace(b"\4test\0\0\x0f", b"\4test\0\0\x01"),
        "two questions": right[:4] + b"\0\2" + right[6:],
        "none, and no failure": right[:4] + b"\0\0" + right[6:12],
    }
    for what, octets in wrong.items():
        assert not is_answer(octets, QUESTION), what


HEAD = answer(QUESTION)[:4] + b"\0\1\0\1\0\0\0\0" + QUESTION[12:-11]
MX = b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c"
MALFORMED = {
    "no record": b"",
    "a pointer without its end": b"\xc0",
    "a pointer to itself": struct.pack("!H", 0xC000 | len(HEAD)) + bytes(10),
    "beyond the end": b"\xff\xff" + bytes(10),
    "a label of another kind": b"\x40" + bytes(70),
    "a label cut short": b"\x05abc",
    "a name without an end": b"\1a",
    "too long a name": (b"\x3f" + b"x" * 63) * 4 + bytes(11),
    "no fixed part": b"\xc0\x0c\0\x0f\0\1",
    "no data": MX + b"\0\5\0\x0a",
    "MX without a name": MX + b"\0\2\0\x0a",
    "MX with too long a name": MX + b"\0\4\0\x0a\1a\0",
    "MX with something behind": MX + b"\0\6\0\x0a\1a\0\0",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed(what: str) -> None:
    octets = HEAD + MALFORMED[what]
    assert is_answer(octets, QUESTION)
    with pytest.raises(RemoteProtocolError):
        parse_answer_untrusted(octets, QUESTION)


@pytest.mark.parametrize(("kind", "length"), [(Kind.A, 5), (Kind.AAAA, 4)])
def test_an_address_of_a_wrong_length(kind: Kind, length: int) -> None:
    question = encode_question(1, "x.test", kind)
    record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, length) + bytes(length)
    octets = answer(question)[:4] + b"\0\1\0\1\0\0\0\0" + question[12:-11] + record
    with pytest.raises(RemoteProtocolError):
        parse_answer_untrusted(octets, question)


def test_records_of_another_class_are_not_ours() -> None:
    record = b"\xc0\x0c" + struct.pack("!HHIH", 15, 3, 60, 4) + b"\0\1\1a"
    assert parse_answer_untrusted(HEAD + record, QUESTION) == Answer("x.test", True)


@given(st.binary(max_size=200), st.integers(0, 80))
def test_garbage_is_an_answer_or_an_error(octets: bytes, count: int) -> None:
    head = HEAD[:6] + struct.pack("!H", count) + HEAD[8:]
    try:
        found = parse_answer_untrusted(head + octets, QUESTION)
    except RemoteProtocolError:
        return
    assert found is not None


@given(st.data())
def test_a_damaged_answer_is_an_answer_or_an_error(data: st.DataObject) -> None:
    octets = bytearray(
        answer(QUESTION, ("x.test", "CNAME", "y."), ("y", "MX", "1 a.", "2 b.y."))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(12, len(octets) - 1))] = data.draw(
            st.integers(0, 255)
        )
    try:
        parse_answer_untrusted(bytes(octets), QUESTION)
    except RemoteProtocolError:
        return


def hostile(name: bytes) -> bytes:
    """As many MX as an answer holds: the first with a long name, all others behind it."""
    octets = bytearray(HEAD)
    first = MX + struct.pack("!H", 2 + len(name)) + b"\0\1" + name
    at = len(octets) + len(MX) + 4
    octets += first
    count = 1
    while len(octets) < 65_000:
        label = b"%x" % count
        host = bytes([len(label)]) + label + struct.pack("!H", 0xC000 | at)
        octets += MX + struct.pack("!H", 2 + len(host)) + b"\0\1" + host
        count += 1
    octets[6:8] = struct.pack("!H", count)
    return bytes(octets)


def test_an_answer_of_64_kib_costs_little() -> None:
    """The node's cells leave by the same thread: 12 s they did not, once."""
    octets = hostile(b"\1a" * 120 + b"\0")
    began = time.process_time()
    found = parse_answer_untrusted(octets, QUESTION)
    assert time.process_time() - began < 0.05
    assert found is not None
    assert len(found.exchanges) == RECORDS_MAX


def test_a_chain_of_pointers_costs_little() -> None:
    at = len(HEAD) + 12
    pointers = [at, *range(at + 1, 0x3FFF, 2)]
    chain = b"\0" + b"".join(struct.pack("!H", 0xC000 | each) for each in pointers)
    text = b"\xc0\x0c" + struct.pack("!HHIH", 16, 1, 60, len(chain)) + chain
    last = struct.pack("!H", 0xC000 | pointers[-1])
    records = text + (last + MX[2:] + b"\0\4\0\x0a\1a") * (RECORDS_MAX - 1)
    octets = HEAD[:6] + struct.pack("!H", RECORDS_MAX) + HEAD[8:] + records
    began = time.process_time()
    with pytest.raises(RemoteProtocolError, match="circles"):
        parse_answer_untrusted(octets, QUESTION)
    assert time.process_time() - began < 0.05
