# SPDX-License-Identifier: MIT
"""Records: every envelope and content comes back, and nothing else opens."""

import dataclasses
import itertools
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import record
from mesh.core.crypto import Key, seal
from mesh.core.record import (
    ENVELOPE_MAX,
    HEAD_LEN,
    NO_ID,
    SALT_LEN,
    Record,
    fits,
    open_head_untrusted,
    open_record_untrusted,
    seal_record,
    sealed_len,
    split_recipients,
)
from mesh.errors import EncodingError, LocalProtocolError, RemoteProtocolError
from tests.harness import FixedEntropy

KEY = FixedEntropy("record").key()
SALT = bytes(range(SALT_LEN))
ONE = Record(
    bytes(range(16)),
    b"o" * 16,
    b"i" * 16,
    "bravo",
    "a@alpha.test",
    ("b@bravo.test", "c@bravo.test"),
    1234567,
    b"Subject: x\r\n\r\n\x00\xff\r\n",
)

addresses = st.text(
    st.characters(min_codepoint=1, max_codepoint=0x24F), max_size=80
).filter(lambda text: "\0" not in text)
records = st.builds(
    Record,
    id=st.binary(min_size=16, max_size=16),
    origin=st.binary(min_size=16, max_size=16),
    origin_id=st.binary(min_size=16, max_size=16),
    destination=addresses,
    reverse_path=addresses,
    recipients=st.lists(addresses, min_size=1, max_size=3).map(tuple),
    accepted=st.integers(0, 2**64 - 1),
    content=st.binary(max_size=9000),
)


@given(records)
def test_a_record_comes_back_as_it_was(one: Record) -> None:
    head, body = seal_record(one, KEY, SALT)
    assert (len(head), len(body)) == (HEAD_LEN, sealed_len(len(one.content)))
    assert open_record_untrusted(KEY, SALT, head, body) == one
    assert open_head_untrusted(KEY, SALT, memoryview(head)) == (
        dataclasses.replace(one, content=b""),
        len(one.content),
    )


def test_the_octets_are_those_of_the_header() -> None:
    head, body = seal_record(ONE, KEY, SALT)
    cipher = ChaCha20Poly1305(KEY.unsafe_bytes())
    text = cipher.decrypt(SALT + b"\0", head, None)
    envelope = b"bravo\0a@alpha.test\0b@bravo.test\0c@bravo.test"
    assert text[:48] == ONE.id + ONE.origin + ONE.origin_id
    assert text[48:62] == struct.pack(">QIH", 1234567, len(ONE.content), len(envelope))
    assert text[62:] == envelope + bytes(946 - len(envelope))
    content = cipher.decrypt(SALT + b"\1", body, None)
    assert content == ONE.content + bytes(4096 - 16 - len(ONE.content))


@pytest.mark.parametrize(
    ("content", "sealed"),
    [(0, 4096), (4080, 4096), (4081, 8192), (8176, 8192), (10240, 12288)],
)
def test_a_body_shows_no_length_finer_than_a_block(content: int, sealed: int) -> None:
    one = dataclasses.replace(ONE, content=b"x" * content)
    head, body = seal_record(one, KEY, SALT)
    assert len(body) == sealed == sealed_len(content)
    assert open_record_untrusted(KEY, SALT, head, body) == one


@given(st.integers(0, HEAD_LEN + 4096 - 1), st.integers(1, 255))
def test_any_change_keeps_it_shut(at: int, flip: int) -> None:
    both = bytearray(b"".join(seal_record(ONE, KEY, SALT)))
    both[at] ^= flip
    with pytest.raises(RemoteProtocolError):
        open_record_untrusted(KEY, SALT, both[:HEAD_LEN], both[HEAD_LEN:])


def test_head_and_body_do_not_stand_for_each_other() -> None:
    head, body = seal_record(ONE, KEY, SALT)
    with pytest.raises(RemoteProtocolError):
        open_record_untrusted(KEY, SALT, body, head)
    other = seal_record(ONE, KEY, bytes(SALT_LEN))
    with pytest.raises(RemoteProtocolError):
        open_record_untrusted(KEY, SALT, head, other[1])


def head_of(text: bytes) -> bytes:
    return seal(KEY, SALT + b"\0", text)


def plain_head(length: int, envelope: bytes) -> bytes:
    fixed = bytes(48) + struct.pack(">QIH", 0, length, len(envelope))
    return (fixed + envelope).ljust(HEAD_LEN - 16, b"\0")


@given(st.binary(max_size=HEAD_LEN - 16))
def test_a_head_of_garbage_raises_only_its_error(text: bytes) -> None:
    for plain in (text, text.ljust(HEAD_LEN - 16, b"\0")):
        try:
            found, _ = open_head_untrusted(KEY, SALT, head_of(plain))
        except RemoteProtocolError:
            continue
        assert seal_record(found, KEY, SALT)


@pytest.mark.parametrize(
    "text",
    [
        plain_head(0, b"d\0r\0x")[:-1],
        plain_head(0, b"d\0r\0x") + b"\0",
        plain_head(0, b"d\0r\0x")[:-1] + b"\1",
        plain_head(0, b"d\0r"),
        plain_head(0, b"d\0r\0\xff"),
        plain_head(0, b"")[:60] + b"\xff\xff" + bytes(946),
    ],
    ids=["short", "long", "filling", "no recipient", "not UTF-8", "length"],
)
def test_a_head_that_we_never_write_is_refused(text: bytes) -> None:
    with pytest.raises(EncodingError):
        open_head_untrusted(KEY, SALT, head_of(text))


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, bytes(4079) + b"\1"),
        (4080, bytes(8176)),
        (8176, bytes(4080)),
        (0, bytes(8176)),
        (2**32 - 1, bytes(4080)),
    ],
)
def test_a_body_that_we_never_write_is_refused(length: int, text: bytes) -> None:
    head = head_of(plain_head(length, b"d\0r\0x"))
    body = seal(KEY, SALT + b"\1", text)
    with pytest.raises(EncodingError):
        open_record_untrusted(KEY, SALT, head, body)


def test_an_envelope_beyond_the_head_is_our_bug() -> None:
    long = dataclasses.replace(ONE, recipients=("x" * ENVELOPE_MAX,))
    nul = dataclasses.replace(ONE, destination="a\0b")
    for bad in (long, nul):
        with pytest.raises(LocalProtocolError):
            seal_record(bad, KEY, SALT)


def test_the_greatest_addresses_fit() -> None:
    assert fits("d" * 255, "r" * 256, ["x" * 256])


@given(
    st.lists(addresses, max_size=60), st.text(max_size=40), st.text("x", max_size=256)
)
def test_splitting_keeps_all_in_order_and_each_part_fits(
    recipients: list[str], destination: str, reverse_path: str
) -> None:
    parts = split_recipients(reverse_path, recipients, destination)
    assert [name for part in parts for name in part] == recipients
    for part in parts:
        assert part
        assert fits(destination, reverse_path, part)
    for part, following in itertools.pairwise(parts):
        assert not fits(destination, reverse_path, (*part, following[0]))


def test_splitting_fills_a_head_to_its_last_octet() -> None:
    exact = "x" * (ENVELOPE_MAX - 4)
    assert fits("d", "r", (exact,))
    assert not fits("d", "r", (exact + "x",))
    assert split_recipients("r", (exact,), "d") == [(exact,)]
    with pytest.raises(LocalProtocolError):
        split_recipients("r", (exact + "x",), "d")


def test_splitting_at_a_hundred_recipients() -> None:
    names = [str(number) for number in range(150)]
    assert not fits("d", "r", names[:101])
    assert [len(part) for part in split_recipients("r", names, "d")] == [100, 50]
    assert split_recipients("r", [], "d") == []


def test_no_id_is_all_zeros() -> None:
    assert bytes(16) == NO_ID
    assert record.SALT_LEN + 1 == 12
    assert isinstance(KEY, Key)
