# SPDX-License-Identifier: MIT
"""The drop folder's files: a message sealed for a node that is down.

The node leaves one-time public keys; whoever hands mail over while it is down seals one
message to one of them.  Names, in the folder; NNNN is a slot, ID 32 hex digits:

    key.NNNN   the node's: one one-time key          mail.ID    one sealed message
    temp.ID    a message that is being written

A key's file, KEY_FILE_LEN octets:

    offset  length  field
         0       8  "mesh dk1"
         8      16  id        random: it names the mail that is sealed to this key
        24      32  public    P, X25519
        56       8  BLAKE2b-256 of all that stands before it, cut: a torn file shows

A message's file: a power of two, MAIL_LEN_MIN octets or more, so that a length says
within which power of two a message lies, and nothing about most of them:

         0      32  E         the sender's X25519 key, made for this file
        32     ...  box       ChaCha20-Poly1305, nonce 0, AD = id

    key   = BLAKE2b-256(key=DH(e, P), "mesh/1 drop" 00 id P E)
    text  = envelope's length u32, content's length u64, envelope, content, zeros
    envelope = reverse-path NUL recipient [NUL recipient ...]

Invariant: e is wiped when the box is made, so nobody but the holder of P's private half
can open it, the sender included.  P is in no message's file: whoever keeps a copy of
one but not of its key's file needs more than a computer that breaks X25519.  What
`seal_mail` takes, `open_mail_untrusted` gives back, fit for the queue as it is.
Opening is for a worker thread: what is long is done without the interpreter's lock, or
in pieces between which another thread gets it.  `mail_key_untrusted` is short, and for
the thread that makes keys.
Times are not hidden: a folder's own show when something was last dropped.
"""

import mmap
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from mesh.core.content import is_lawful
from mesh.core.crypto import (
    NONCE_LEN,
    PUBLIC_LEN,
    TAG_LEN,
    Entropy,
    Key,
    derive_key,
    hash256,
    seal,
    x25519,
    x25519_public,
)
from mesh.core.envelope import parse_path_untrusted
from mesh.core.memory import ffi, lib
from mesh.errors import (
    CommandError,
    CryptoError,
    EncodingError,
    LocalProtocolError,
)

SLOTS: Final = 1024
"""One-time keys that lie ready: a remailer's pool flushed twice while the node is down."""
ID_LEN: Final = 16
KEY_FILE_LEN: Final = 64
MAIL_LEN_MIN: Final = 32_768
"""Octets of the smallest file: a remailer's packet as mail has 28 kB."""
RECIPIENTS_MAX: Final = 1_000
"""Recipients of one file: 256 kB of envelope at most."""
COPIES_MAX: Final = 67_108_864
"""Octets that one file's message may become, a copy a recipient: the queue's bound."""
PIECE_LEN: Final = 65_536
"""Octets that are copied or counted at once: 0.1 ms without the interpreter's lock for
anybody else; 20 MB are 20 to 50 ms."""

_MAGIC: Final = b"mesh dk1"
_CHECK_LEN: Final = 8
_LABEL: Final = b"mesh/1 drop\0"
_NONCE: Final = bytes(NONCE_LEN)
_LENGTHS: Final = struct.Struct(">IQ")
_OVERHEAD: Final = PUBLIC_LEN + TAG_LEN + _LENGTHS.size
_OPEN: Final[Any] = lib.crypto_aead_chacha20poly1305_ietf_decrypt
_FLAGS: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class OneTime(NamedTuple):
    """A key that serves one message: its id and its public half."""

    id: bytes
    public: bytes


class Mail(NamedTuple):
    """One message out of the folder."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes


def key_name(slot: int) -> str:
    """Name the file of a slot's key."""
    return f"key.{slot:04d}"


def mail_name(ident: bytes) -> str:
    """Name the file of the message that is sealed to a key."""
    return f"mail.{ident.hex()}"


def temp_name(ident: bytes) -> str:
    """Name the file in which that message is being written."""
    return f"temp.{ident.hex()}"


def pack_key(one: OneTime) -> bytes:
    """Write a key's file."""
    text = _MAGIC + one.id + one.public
    return text + hash256(text)[:_CHECK_LEN]


def parse_key_untrusted(octets: bytes) -> OneTime:
    """Read a key's file; EncodingError when it is not whole."""
    text, check = octets[:-_CHECK_LEN], octets[-_CHECK_LEN:]
    if (
        len(octets) != KEY_FILE_LEN
        or not text.startswith(_MAGIC)
        or hash256(text)[:_CHECK_LEN] != check
    ):
        raise EncodingError("no one-time key")
    at = len(_MAGIC)
    return OneTime(text[at : at + ID_LEN], text[at + ID_LEN :])


def file_len(content_len: int, envelope_len: int) -> int:
    """Count the octets of the file of so long a message: a power of two."""
    need = _OVERHEAD + content_len + envelope_len
    return max(MAIL_LEN_MIN, 1 << (need - 1).bit_length())


def longest_file(max_message: int) -> int:
    """Count the octets of the longest file that a message of this size needs."""
    return file_len(max_message, 256 * (RECIPIENTS_MAX + 1))


def divide(recipients: Sequence[str], content_len: int) -> list[tuple[str, ...]]:
    """Divide recipients among as few files as may hold them."""
    most = min(RECIPIENTS_MAX, max(1, COPIES_MAX // max(content_len, 1)))
    return [tuple(recipients[at : at + most]) for at in range(0, len(recipients), most)]


def check_mail(mail: Mail) -> None:
    """Let pass what the queue can take; EncodingError says what it cannot.

    Who asks before sealing promises nothing that is refused after the opening.
    """
    _check_envelope(mail, len(mail.content))
    if not all(map(is_lawful, pieces(memoryview(mail.content)))):
        raise EncodingError("a CR or LF outside CR LF")


def _check_envelope(mail: Mail, content_len: int) -> None:
    count = len(mail.recipients)
    if not 1 <= count <= RECIPIENTS_MAX:
        raise EncodingError("no recipients, or too many")
    if count > 1 and count * content_len > COPIES_MAX:
        # The queue would say 452 for ever; `divide` makes more files of it.
        raise EncodingError("too many recipients for so long a message")
    try:
        paths = [parse_path_untrusted(f"<{mail.reverse_path}>", reverse=True)]
        paths += [parse_path_untrusted(f"<{each}>") for each in mail.recipients]
    except CommandError as error:
        raise EncodingError(error.text) from error
    if any(path.route for path in paths):
        # What is routed by is the whole text: a route would hide whose address it is.
        raise EncodingError("a source route")


def pieces(content: memoryview) -> Iterator[bytes]:
    """Cut content into pieces, lawful each if and only if the whole is.

    No piece ends with a CR that has an octet behind it.
    """
    at = 0
    while at < len(content):
        end = at + PIECE_LEN
        if content[end - 1 : end].tobytes() == b"\r":
            end += 1
        yield bytes(content[at:end])
        at = end


def seal_mail(one: OneTime, mail: Mail, entropy: Entropy) -> bytes:
    """Seal a message to a one-time key: the whole file.

    LocalProtocolError for what `check_mail` refuses, CryptoError for a key of low
    order.
    """
    try:
        check_mail(mail)
    except EncodingError as error:
        raise LocalProtocolError(str(error)) from error
    envelope = "\0".join((mail.reverse_path, *mail.recipients)).encode()
    length = file_len(len(mail.content), len(envelope))
    head = _LENGTHS.pack(len(envelope), len(mail.content))
    filling = bytes(length - _OVERHEAD - len(envelope) - len(mail.content))
    text = b"".join((head, envelope, mail.content, filling))
    ephemeral = entropy.key()
    public = x25519_public(ephemeral)
    try:
        key = _key(ephemeral, one.public, one, public)
    finally:
        ephemeral.wipe()
    box = seal(key, _NONCE, text, one.id)
    key.wipe()
    return public + box


def mail_key_untrusted(private: Key, one: OneTime, octets: bytes) -> Key:
    """Give the key that a message's file is sealed under, to be wiped by the caller.

    CryptoError for a point of low order, EncodingError for a length that none has.
    """
    if len(octets) < MAIL_LEN_MIN or len(octets) & (len(octets) - 1):
        raise EncodingError("no power of two")
    public = octets[:PUBLIC_LEN]
    return _key(private, public, one, public)


def open_mail_untrusted(key: Key, one: OneTime, octets: bytes) -> Mail:
    """Open a message's file with its key, which `mail_key_untrusted` gave.

    CryptoError when it does not open, EncodingError when what it holds is not what
    `seal_mail` writes.
    """
    # A map: it is given back without the interpreter's lock, which for 32 MiB of what
    # malloc gave is held for 4 ms.
    with mmap.mmap(-1, len(octets) - PUBLIC_LEN - TAG_LEN, _FLAGS) as out:
        _unbox(key, octets, one.id, out)
        with memoryview(out) as text:
            return _parse_untrusted(text, len(octets))


def _unbox(key: Key, octets: bytes, ident: bytes, out: mmap.mmap) -> None:
    """Open the box as crypto.py does, but for its copy of the text."""
    with ffi.from_buffer("unsigned char[]", out) as address:
        if _OPEN(
            address,
            ffi.NULL,
            ffi.NULL,
            ffi.from_buffer("unsigned char[]", octets) + PUBLIC_LEN,
            len(octets) - PUBLIC_LEN,
            ident,
            len(ident),
            _NONCE,
            key.address,
        ):
            raise CryptoError("a message does not open")


def _parse_untrusted(text: memoryview, length: int) -> Mail:
    envelope_len, content_len = _LENGTHS.unpack_from(text)
    start = _LENGTHS.size + envelope_len
    end = start + content_len
    if length != file_len(content_len, envelope_len):
        raise EncodingError("a length that this message has not")
    if not all(piece.count(0) == len(piece) for piece in pieces(text[end:])):
        raise EncodingError("not filled with zeros")
    try:
        names = bytes(text[_LENGTHS.size : start]).decode("ascii").split("\0")
    except UnicodeDecodeError as error:
        raise EncodingError("an envelope is ASCII") from error
    mail = Mail(names[0], tuple(names[1:]), b"")
    _check_envelope(mail, content_len)
    parts = list(pieces(text[start:end]))
    if not all(map(is_lawful, parts)):
        raise EncodingError("a CR or LF outside CR LF")
    return mail._replace(content=b"".join(parts))  # past 1 MiB without the lock


def _key(mine: Key, theirs: bytes, one: OneTime, ephemeral: bytes) -> Key:
    shared = x25519(mine, theirs)
    key = derive_key(shared, b"".join((_LABEL, one.id, one.public, ephemeral)))
    shared.wipe()
    return key


def origin_id(octets: bytes) -> bytes:
    """Name a message's file by its own E: 16 octets, the id that the spool keeps.

    By E and not by the name, so that even a key that was used twice (a folder out of a
    backup) swallows nothing.
    """
    return hash256(_LABEL, octets[:PUBLIC_LEN])[:ID_LEN]
