# SPDX-License-Identifier: MIT
"""A chain of type-I remailers with encrypted address blocks, for `mesh.audit.lab`.

    letter    block <blank line> body
    block     one layer a remailer, outermost first, as base64
    layer     e[32] seal(K, next[16] ident[16] rest)     K = BLAKE2b(DH(e, S)), S its key
    next      the place that the rest is for, filled with zeros; zeros: it is for this one

Each remailer takes its layer off the block and passes on what was inside, with the body
as it came.  So the body is the same at every hop, and the block shrinks by LAYER octets
of known size: that is what such remailers did for replies, and why a snooper on bare
SMTP follows each message by what it says, by its size and by its time.

Minimal: no padding of the block, no pool, no expiry.
"""

import base64
import secrets
from collections.abc import Sequence
from typing import Final

from mesh.audit.post import Taken
from mesh.core.crypto import (
    Key,
    SystemEntropy,
    hash256,
    open_untrusted,
    seal,
    x25519,
    x25519_public,
)
from mesh.errors import CryptoError

PLACE_LEN: Final = 16
IDENT_LEN: Final = 16
PUBLIC_LEN: Final = 32
TAG_LEN: Final = 16
LAYER: Final = PUBLIC_LEN + PLACE_LEN + IDENT_LEN + TAG_LEN
"""Octets by which a block shrinks at each hop."""
_NONCE: Final = bytes(12)  # each key seals one layer


class AddressBlocks:
    """The letters of a lab (mesh.audit.post.Letters) whose remailers are of type I."""

    def __init__(self, places: Sequence[str]) -> None:
        """Give each place a key pair."""
        self._entropy = SystemEntropy()
        self._keys = {place: self._entropy.key() for place in places}

    def write(self, route: Sequence[str], octets: int, ident: str) -> bytes:
        """Write a letter of about so many octets along route[1:]."""
        block = b""
        after = [*route[2:], ""]
        for place, following in reversed(list(zip(route[1:], after, strict=True))):
            plain = following.encode().ljust(PLACE_LEN, b"\0") + ident.encode() + block
            ephemeral = self._entropy.key()
            key = _shared(ephemeral, x25519_public(self._keys[place]))
            block = x25519_public(ephemeral) + seal(key, _NONCE, plain)
        head = base64.encodebytes(block).replace(b"\n", b"\r\n")
        return head + b"\r\n" + body(max(1, octets - len(head)))

    def take(self, place: str, content: bytes) -> Taken:
        """Take this place's layer off; CryptoError: the block is not for it."""
        head, _, letter = content.partition(b"\r\n\r\n")
        block = base64.b64decode(head)
        key = _shared(self._keys[place], block[:PUBLIC_LEN])
        plain = open_untrusted(key, _NONCE, block[PUBLIC_LEN:])
        to = plain[:PLACE_LEN].rstrip(b"\0").decode()
        ident = plain[PLACE_LEN : PLACE_LEN + IDENT_LEN].decode()
        rest = base64.encodebytes(plain[PLACE_LEN + IDENT_LEN :])
        return Taken(ident, to, rest.replace(b"\n", b"\r\n") + b"\r\n" + letter)


def body(octets: int) -> bytes:
    """Text that nobody has written before, in lines."""
    text = base64.encodebytes(secrets.token_bytes(octets * 3 // 4))
    return text.replace(b"\n", b"\r\n")


def _shared(private: Key, public: bytes) -> Key:
    secret = x25519(private, public)
    return Key.from_bytes(hash256(secret.unsafe_bytes()))


__all__ = ["LAYER", "AddressBlocks", "CryptoError", "body"]
