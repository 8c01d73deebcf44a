# SPDX-License-Identifier: MIT
"""OpenSSL's boxes are libsodium's, and no key stays behind in its memory."""

import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import bulk, crypto
from mesh.core.crypto import BULK_LEN, Key
from mesh.core.memory import ffi, lib
from mesh.errors import CryptoError

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
context = bulk._context(key) if sys.argv[1:] else None
print(places())
"""


def left_behind(*arguments: str) -> int:
    command = [sys.executable, "-c", SEARCH, *arguments]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def test_no_key_stays_in_openssl_s_memory() -> None:
    assert left_behind("a context is kept") > 0  # so this search finds one
    assert left_behind() == 0
