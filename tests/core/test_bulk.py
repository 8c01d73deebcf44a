# SPDX-License-Identifier: MIT
"""OpenSSL's boxes are libsodium's, and no key stays behind in its memory."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import aead
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import bulk, crypto
from mesh.core.crypto import BULK_LEN, Key
from mesh.core.memory import ffi, lib
from mesh.errors import CryptoError, LocalProtocolError, UnavailableError

SECRET = bytes(range(32))
NONCE = bytes(range(100, 112))
LENGTHS = st.one_of(
    st.integers(0, 300),
    st.sampled_from([BULK_LEN - 1, BULK_LEN, 4080, 12_272, 70_000]),
)


def by_libsodium(plaintext: bytes, ad: bytes) -> bytes:
    box = ffi.new("unsigned char[]", len(plaintext) + bulk.TAG_LEN)
    lib.crypto_aead_chacha20poly1305_ietf_encrypt(
        box, ffi.NULL, plaintext, len(plaintext), ad, len(ad), ffi.NULL, NONCE, SECRET
    )
    return bytes(ffi.buffer(box))


@given(LENGTHS, st.binary(max_size=40), st.randoms(use_true_random=False))
def test_both_libraries_make_the_same_box(
    length: int, ad: bytes, random: Random
) -> None:
    plaintext, key = random.randbytes(length), Key.from_bytes(SECRET)
    box = by_libsodium(plaintext, ad)
    assert bulk.seal_bulk(key, NONCE, plaintext, ad) == box
    assert crypto.seal(key, NONCE, plaintext, ad) == box
    assert crypto.open_untrusted(key, NONCE, box, ad) == plaintext
    if length:
        assert bulk.open_bulk_untrusted(key, NONCE, memoryview(box), ad) == plaintext


@given(st.integers(0, BULK_LEN + bulk.TAG_LEN - 1))
def test_a_box_of_any_other_octet_does_not_open(at: int) -> None:
    key = Key.from_bytes(SECRET)
    box = bytearray(crypto.seal(key, NONCE, bytes(BULK_LEN), b"ad"))
    assert crypto.open_untrusted(key, NONCE, box, b"ad") == bytes(BULK_LEN)
    box[at] ^= 1
    with pytest.raises(CryptoError):
        crypto.open_untrusted(key, NONCE, box, b"ad")


def test_a_box_of_other_data_or_another_nonce_does_not_open() -> None:
    key = Key.from_bytes(SECRET)
    box = crypto.seal(key, NONCE, bytes(BULK_LEN), b"ad")
    for nonce, ad in ((NONCE, b"da"), (NONCE[::-1], b"ad")):
        with pytest.raises(CryptoError):
            crypto.open_untrusted(key, nonce, box, ad)
    with pytest.raises(CryptoError):
        crypto.open_untrusted(key, NONCE, box[:-1], b"ad")


def test_a_key_of_another_length_is_refused() -> None:
    key = Key.from_bytes(SECRET * 2)
    with pytest.raises(LocalProtocolError):
        bulk.seal_bulk(key, NONCE, bytes(BULK_LEN), b"")
    with pytest.raises(LocalProtocolError):
        bulk.seal_each(key, [], [], [])


FIPS = """
openssl_conf = conf
[conf]
alg_section = algorithms
[algorithms]
default_properties = fips=yes
"""


def test_an_openssl_that_refuses_is_found_out_at_once(tmp_path: Path) -> None:
    config = tmp_path / "openssl.cnf"
    config.write_text(FIPS)
    command = [sys.executable, "-c", "from mesh.core import bulk; bulk.openssl()"]
    said = [
        subprocess.run(
            command, check=False, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OPENSSL_CONF": str(place)},
        ).stderr
        for place in (config, os.devnull)
    ]  # fmt: skip
    assert "UnavailableError: OpenSSL refuses" in said[0]
    assert not said[1]


def no_such_cipher(key: bytes) -> None:
    raise UnsupportedAlgorithm("not in this mode")


@pytest.mark.parametrize("other", [no_such_cipher, aead.AESGCM])
def test_an_openssl_that_does_not_have_this_cipher_is_none(
    monkeypatch: pytest.MonkeyPatch, other: object
) -> None:
    monkeypatch.setattr(aead, "ChaCha20Poly1305", other)
    with pytest.raises(UnavailableError, match="OPENSSL_CONF"):
        bulk.openssl.__wrapped__()


SEARCH = """
import sys
from random import Random
from mesh.core import bulk, crypto
from mesh.core.memory import KEY_LEN, ffi

def places():
    # How often the key lies in memory that is this process's alone: the slab is shared.
    # What is searched for is the other way round, or the search would find itself.
    found = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps.read().splitlines():
            place, kind = line.split()[:2]
            if kind == "rw-p":
                begin, end = (int(word, 16) for word in place.split("-"))
                memory.seek(begin)
                found += memory.read(end - begin)[::-1].count(turned)
    return found

key = crypto.SystemEntropy().key()
octets = ffi.buffer(key.address, KEY_LEN)
turned = b"".join([octets[at] for at in reversed(range(KEY_LEN))])
bulk.openssl()
room, box = memoryview(bytearray(4080)), memoryview(bytearray(4096))
for number in range(3):
    nonce = number.to_bytes(12, "big")
    sealed = crypto.seal(key, nonce, bytes(9000))
    crypto.open_untrusted(key, nonce, sealed)
    bulk.seal_each(key, [nonce] * 2, [room] * 2, [box] * 2)
    assert bulk.open_each_untrusted(key, [nonce], [box], [room]) == 1
    assert bulk.open_each_untrusted(key, [nonce], [memoryview(bytes(4096))], [room]) == 0
    try:
        crypto.open_untrusted(key, nonce, sealed[::-1])
    except crypto.CryptoError:
        pass
kept, short = [], memoryview(bytearray(4000))
for call, begins in ((bulk.seal_each, room), (bulk.open_each_untrusted, box)):
    try:
        call(key, [nonce], [begins], [short])
    except ValueError as error:
        kept.append(error)  # and its frames with it
assert len(kept) == 2
context = bulk._context(key) if sys.argv[1:] else None
print(places())
"""


def left_behind(*arguments: str) -> int:
    command = [sys.executable, "-c", SEARCH, *arguments]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def test_no_key_stays_in_openssl_s_memory() -> None:
    assert left_behind("a context is kept") > 0  # so this search finds one
    assert left_behind() == 0


PACED = """
import sys
from mesh.core.cellstream import CellOpener, CellSealer
from mesh.core.clock import Clock, law_of
from mesh.core.crypto import Key, address_of

for clock in Clock:
    if clock is not Clock.GREEDY:
        law = law_of(clock, 30, Key.from_bytes(bytes(32)), 0.0)
        for _ in range(300):
            law.advance()
sealer, opener = (make(Key.from_bytes(bytes(32))) for make in (CellSealer, CellOpener))
room = bytearray(4096)
for _ in range(70):
    sealer.seal_over(address_of(room))
    opener.open_into_untrusted(address_of(room), address_of(room))
assert not [name for name in sys.modules if name.startswith("cryptography")]
"""


def test_what_leaves_by_a_clock_needs_no_openssl() -> None:
    """The pacer may load nothing any more when it sends."""
    subprocess.run([sys.executable, "-c", PACED], check=True)
