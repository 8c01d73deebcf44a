# SPDX-License-Identifier: MIT
"""The drop folder's files: what is sealed comes back, and nothing else opens."""

import hashlib
import linecache
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.content import is_lawful
from mesh.core.crypto import Key, x25519_public
from mesh.core.drop import (
    COPIES_MAX,
    KEY_FILE_LEN,
    MAIL_LEN_MIN,
    PIECE_LEN,
    RECIPIENTS_MAX,
    Mail,
    OneTime,
    check_mail,
    divide,
    file_len,
    key_name,
    longest_file,
    mail_key_untrusted,
    mail_name,
    open_mail_untrusted,
    origin_id,
    pack_key,
    parse_key_untrusted,
    pieces,
    seal_mail,
    temp_name,
)
from mesh.errors import (
    CryptoError,
    EncodingError,
    LocalProtocolError,
    RemoteProtocolError,
)
from mesh.node import qmgr
from tests.harness import FixedEntropy

SECRET = bytes(range(32))
PRIVATE = Key.from_bytes(SECRET)
ONE = OneTime(b"i" * 16, x25519_public(PRIVATE))
MAIL = Mail("me@alpha.test", ("a@bravo.test", "b@bravo.test"), b"Subject: x\r\n\r\n\0")

addresses = st.from_regex(r"[a-z.]{1,60}@[a-z]{1,60}", fullmatch=True)
mails = st.builds(
    Mail,
    reverse_path=addresses | st.just(""),
    recipients=st.lists(addresses, min_size=1, max_size=4).map(tuple),
    content=st.binary(max_size=300).map(
        lambda b: b.replace(b"\r", b"").replace(b"\n", b"\r\n")
    ),
)


def sealed(mail: Mail = MAIL, seed: str = "e") -> bytes:
    return seal_mail(ONE, mail, FixedEntropy(seed))


def opened(private: Key, one: OneTime, octets: bytes) -> Mail:
    key = mail_key_untrusted(private, one, octets)
    return open_mail_untrusted(key, one, octets)


def boxed(text: bytes, *, ident: bytes = ONE.id) -> bytes:
    """Seal any text, by other code than ours."""
    mine = X25519PrivateKey.from_private_bytes(b"e" * 32)
    public = mine.public_key().public_bytes_raw()
    shared = mine.exchange(X25519PublicKey.from_public_bytes(ONE.public))
    label = b"mesh/1 drop\0" + ident + ONE.public + public
    key = hashlib.blake2b(label, digest_size=32, key=shared).digest()
    return public + ChaCha20Poly1305(key).encrypt(bytes(12), text, ident)


def text(envelope: bytes, content: bytes, *, length: int = MAIL_LEN_MIN) -> bytes:
    head = struct.pack(">IQ", len(envelope), len(content))
    return (head + envelope + content).ljust(length - 48, b"\0")


@given(mails)
def test_what_is_sealed_comes_back(mail: Mail) -> None:
    assert opened(PRIVATE, ONE, sealed(mail)) == mail


def test_the_format_is_what_the_header_says() -> None:
    plain = text(b"me@alpha.test\0a@bravo.test\0b@bravo.test", MAIL.content)
    assert opened(PRIVATE, ONE, boxed(plain)) == MAIL
    wire = sealed()
    shared = X25519PrivateKey.from_private_bytes(SECRET).exchange(
        X25519PublicKey.from_public_bytes(wire[:32])
    )
    label = b"mesh/1 drop\0" + ONE.id + ONE.public + wire[:32]
    key = hashlib.blake2b(label, digest_size=32, key=shared).digest()
    assert ChaCha20Poly1305(key).decrypt(bytes(12), wire[32:], ONE.id) == plain


def test_the_same_message_twice_has_nothing_in_common() -> None:
    one, other = sealed(seed="1"), sealed(seed="2")
    assert len(one) == len(other)
    assert one[:32] != other[:32]
    assert origin_id(one) != origin_id(other)
    assert len(origin_id(one)) == 16
    assert ONE.public not in one


@pytest.mark.parametrize(
    ("content", "length"),
    [(0, 32_768), (28_169, 32_768), (32_000, 32_768), (33_000, 65_536)],
)
def test_a_length_is_a_power_of_two(content: int, length: int) -> None:
    assert len(sealed(MAIL._replace(content=bytes(content)))) == length


def test_lengths_at_the_edge() -> None:
    envelope = b"me@alpha.test\0a@bravo.test\0b@bravo.test"
    room = MAIL_LEN_MIN - 60 - len(envelope)
    for content, length in ((room, 1), (room + 1, 2)):
        wire = sealed(MAIL._replace(content=bytes(content)))
        assert len(wire) == length * MAIL_LEN_MIN
        assert opened(PRIVATE, ONE, wire).content == bytes(content)
    assert longest_file(20_971_520) == 32 * 2**20
    assert file_len(0, 0) == MAIL_LEN_MIN


@given(st.data())
def test_whatever_is_changed_it_does_not_open(data: st.DataObject) -> None:
    wire = bytearray(sealed())
    at = data.draw(st.integers(0, len(wire) - 1))
    if at == 31:
        wire[at] ^= 1  # X25519 ignores the highest bit, the hash does not
    wire[at] ^= data.draw(st.integers(2, 255))
    with pytest.raises(CryptoError):
        opened(PRIVATE, ONE, bytes(wire))


@given(st.binary(max_size=200))
def test_garbage_raises_one_kind_of_error(junk: bytes) -> None:
    for octets in (junk, junk.ljust(MAIL_LEN_MIN, b"j"), boxed(text(junk, b""))):
        with pytest.raises(RemoteProtocolError):
            opened(PRIVATE, ONE, octets)


def test_another_key_another_id_a_point_of_low_order() -> None:
    with pytest.raises(CryptoError):
        opened(FixedEntropy("x").key(), ONE, sealed())
    with pytest.raises(CryptoError):
        opened(PRIVATE, ONE._replace(id=b"j" * 16), sealed())
    with pytest.raises(CryptoError):
        opened(PRIVATE, ONE, bytes(MAIL_LEN_MIN))
    with pytest.raises(CryptoError):
        seal_mail(ONE._replace(public=bytes(32)), MAIL, FixedEntropy())


@pytest.mark.parametrize(
    "plain",
    [
        text(b"\0a@b.test", b"", length=2 * MAIL_LEN_MIN),  # a length it has not
        text(b"\0a@b.test", b"")[:-1] + b"x",  # not zeros
        text(b"\0\xe4@b.test", b""),  # not ASCII
        text(b"", b""),  # no recipient
        text(b"\0a@b.test\0", b""),  # an empty one
        text(b"a b\0a@b.test", b""),  # no reverse-path
        text(b"\0a@b.test>\r\nRCPT TO:<c@d.test", b""),
        text(b"\0a@b.test", b"bare \n"),
        text(b"\0" + b"\0".join([b"a@b.test"] * (RECIPIENTS_MAX + 1)), b""),
        text(b"\0" + b"\0".join([b"a@b.test"] * 1000), bytes(67_109), length=2**17),
        struct.pack(">IQ", 2**32 - 1, 2**64 - 1).ljust(MAIL_LEN_MIN - 48, b"\0"),
    ],
)
def test_a_sealed_text_that_nobody_writes(plain: bytes) -> None:
    with pytest.raises(EncodingError):
        opened(PRIVATE, ONE, boxed(plain))


def test_a_length_that_is_no_power_of_two() -> None:
    for length in (0, MAIL_LEN_MIN // 2, MAIL_LEN_MIN + 1, 3 * MAIL_LEN_MIN):
        with pytest.raises(EncodingError):
            opened(PRIVATE, ONE, bytes(length))


@pytest.mark.parametrize(
    "wrong",
    [
        MAIL._replace(recipients=()),
        MAIL._replace(recipients=("a@b.test",) * (RECIPIENTS_MAX + 1)),
        MAIL._replace(content=bytes(COPIES_MAX // 2 + 1)),
        MAIL._replace(recipients=("nobody",)),
        MAIL._replace(recipients=("@x.org:mix@bravo.test",)),
        MAIL._replace(reverse_path="@x.org:mix@bravo.test"),
        MAIL._replace(reverse_path="\n"),
        MAIL._replace(content=b"\r"),
    ],
)
def test_what_would_not_be_taken_is_not_sealed(wrong: Mail) -> None:
    with pytest.raises(EncodingError):
        check_mail(wrong)
    with pytest.raises(LocalProtocolError):
        sealed(wrong)


def test_a_key_s_file_comes_back_and_a_torn_one_shows() -> None:
    file = pack_key(ONE)
    assert len(file) == KEY_FILE_LEN
    assert parse_key_untrusted(file) == ONE
    for at in range(KEY_FILE_LEN):
        torn = bytearray(file)
        torn[at] ^= 1
        with pytest.raises(EncodingError):
            parse_key_untrusted(bytes(torn))
    for octets in (b"", file[:-1], file + b"x", bytes(KEY_FILE_LEN)):
        with pytest.raises(EncodingError):
            parse_key_untrusted(octets)


def test_a_whole_file_of_another_kind_is_no_key() -> None:
    other = b"mesh dk2" + ONE.id + ONE.public
    check = hashlib.blake2b(other, digest_size=32).digest()[:8]
    with pytest.raises(EncodingError):
        parse_key_untrusted(other + check)


def test_names() -> None:
    assert key_name(7) == "key.0007"
    assert mail_name(b"\xab" * 16) == "mail." + "ab" * 16
    assert temp_name(b"\xab" * 16) == "temp." + "ab" * 16


def test_one_recipient_may_have_any_length() -> None:
    long = MAIL._replace(content=bytes(COPIES_MAX // 2 + 1))
    for few in divide(long.recipients, len(long.content)):
        check_mail(long._replace(recipients=few))
    check_mail(MAIL._replace(content=bytes(COPIES_MAX // 2)))


def test_recipients_are_divided_so_that_the_queue_takes_each_file() -> None:
    many = [f"{n}@b.test" for n in range(2_500)]
    assert [len(part) for part in divide(many, 0)] == [1000, 1000, 500]
    assert [len(part) for part in divide(many[:7], COPIES_MAX // 3)] == [3, 3, 1]
    assert divide(many[:2], COPIES_MAX + 1) == [("0@b.test",), ("1@b.test",)]
    assert [a for part in divide(many, 100_000) for a in part] == many
    assert vars(qmgr)["COPIES_MAX"] >= COPIES_MAX


@given(
    st.lists(
        st.sampled_from([b"\r\n", b"\r", b"\n", b"x", b"y" * (PIECE_LEN - 3)]),
        max_size=12,
    )
)
def test_pieces_are_short_and_lawful_when_the_whole_is(parts: list[bytes]) -> None:
    content = b"".join(parts)
    cut = list(pieces(memoryview(content)))
    assert b"".join(cut) == content
    assert all(len(piece) <= PIECE_LEN + 1 for piece in cut)
    assert all(map(is_lawful, cut)) == is_lawful(content)


def test_a_line_end_at_a_piece_s_end() -> None:
    for before in range(PIECE_LEN - 2, PIECE_LEN + 3):
        content = b"x" * before + b"\r\n" + b"y" * PIECE_LEN
        mail = MAIL._replace(content=content)
        assert opened(PRIVATE, ONE, sealed(mail)) == mail
        for wrong in (b"\r", b"\n", b"\r\r\n", b"\n\r"):
            with pytest.raises(EncodingError):
                check_mail(MAIL._replace(content=b"x" * before + wrong + b"y"))


def slow_steps(job: Callable[[], object], seconds: float) -> list[str]:
    """Run it in a thread, and give the lines of which one step took so much CPU time.

    CPU time: what else the machine does meanwhile is no matter.
    """
    found: list[str] = []
    last, where = 0.0, ("", 0)

    def trace(frame: FrameType, _event: str, _arg: object) -> Any:
        nonlocal last, where
        if time.thread_time() - last > seconds:
            found.append(linecache.getline(*where).strip())
        frame.f_trace_opcodes = True
        where = (frame.f_code.co_filename, frame.f_lineno)
        last = time.thread_time()
        return trace

    def run() -> None:
        nonlocal last
        last = time.thread_time()
        sys.settrace(trace)
        job()
        sys.settrace(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


def test_twenty_megabytes_let_another_thread_work() -> None:
    """A step is what nobody interrupts; these do without the interpreter's lock."""
    unlocked = ("with mmap.mmap(", "if _OPEN(", 'b"".join(')
    content = (b"x" * 70 + b"\r\n") * (20_971_520 // 72)
    mail = MAIL._replace(content=content)
    octets = sealed(mail)
    key = mail_key_untrusted(PRIVATE, ONE, octets)
    kept: list[Mail] = []
    slow = slow_steps(lambda: kept.append(open_mail_untrusted(key, ONE, octets)), 0.004)
    assert kept == [mail]
    assert any("_OPEN" in line for line in slow)
    assert [line for line in slow if not any(each in line for each in unlocked)] == []
