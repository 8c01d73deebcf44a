# SPDX-License-Identifier: MIT
"""Spool records: one message on its way to one place, sealed in two parts.

Head, HEAD_LEN = 1,024 octets sealed; integers big-endian:

    offset  length  field
         0      16  id           random, ours: it names the record on the next hop
        16      16  origin       who brought it: a peer's mark, or another of node/shares.py
        32      16  origin_id    the ID= which that peer gave it; zeros: none
        48       8  accepted     running seconds (ages do not trust the wall clock)
        56       4  length       octets of content
        60       2  envelope's length
        62     946  envelope     destination NUL reverse-path NUL recipient [NUL ...],
                                 UTF-8; then zeros
      1008      16  tag

Body: content, zeros up to a multiple of 4,096 less 16, tag 16.  So a million records
are indexed by opening heads alone, and a length shows no finer than a cell.

Both are ChaCha20-Poly1305 under the record's own key, which lies in its slot of the
key arena (slot.py) and nowhere else.  Nonce: the group's salt of 11 octets, then 0 for
the head, 1 for the body.  A key serves one record; the salt is for the one exception,
a record whose commit never finished: what it left on the disk and what later takes the
same slot are not under the same stream.

An envelope that does not fit becomes several records (`split_recipients`).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mesh.core.crypto import TAG_LEN, Key, Octets, open_untrusted, seal
from mesh.errors import EncodingError, LocalProtocolError

HEAD_LEN: Final = 1024
"""Octets of a sealed head: holds three addresses of the greatest length (256)."""
BLOCK_LEN: Final = 4096
"""Octets to whose multiple a sealed body is filled: a cell's worth."""
ID_LEN: Final = 16
SALT_LEN: Final = 11
"""Octets of a group's salt: a nonce less the octet that tells head from body."""
NO_ID: Final = bytes(ID_LEN)

_FIXED: Final = struct.Struct(">16s16s16sQIH")
_TEXT_LEN: Final = HEAD_LEN - TAG_LEN
ENVELOPE_MAX: Final = _TEXT_LEN - _FIXED.size
"""Octets of destination, reverse-path and recipients with a NUL between each: 946."""
RECIPIENTS_MAX: Final = 100
"""Recipients of one record: RFC 5321 4.5.3.1.8 asks for no more in a transaction."""

_HEAD: Final = b"\0"
_BODY: Final = b"\1"


@dataclass(frozen=True, slots=True)
class Record:
    """One message for one destination; a head read alone has an empty content."""

    id: bytes
    origin: bytes
    origin_id: bytes
    destination: str
    reverse_path: str
    recipients: tuple[str, ...]
    accepted: int
    content: bytes


def fits(destination: str, reverse_path: str, recipients: Sequence[str]) -> bool:
    """Say whether this envelope fits into one head."""
    return (
        len(recipients) <= RECIPIENTS_MAX
        and len("\0".join((destination, reverse_path, *recipients)).encode())
        <= ENVELOPE_MAX
    )


def split_recipients(
    reverse_path: str, recipients: Sequence[str], destination: str
) -> list[tuple[str, ...]]:
    """Divide recipients, in their order, among as few records as hold them.

    LocalProtocolError when a single one does not fit: paths have at most 256 octets
    long before they come here.
    """
    if recipients and fits(destination, reverse_path, recipients):
        return [tuple(recipients)]
    room = ENVELOPE_MAX - len(destination.encode()) - len(reverse_path.encode()) - 1
    parts: list[tuple[str, ...]] = []
    part: list[str] = []
    used = 0
    for recipient in recipients:
        need = len(recipient.encode()) + 1
        if need > room:
            raise LocalProtocolError("an address that no head holds")
        if used + need > room or len(part) == RECIPIENTS_MAX:
            parts.append(tuple(part))
            part, used = [], 0
        part.append(recipient)
        used += need
    if part:
        parts.append(tuple(part))
    return parts


def sealed_len(content_len: int) -> int:
    """Count the octets of the sealed body of so much content."""
    return -(-(content_len + TAG_LEN) // BLOCK_LEN) * BLOCK_LEN


def seal_record(record: Record, key: Key, salt: bytes) -> tuple[bytes, bytes]:
    """Seal a record under a key that serves no other: (head, body).

    LocalProtocolError when its envelope does not fit or has a NUL.
    """
    names = (record.destination, record.reverse_path, *record.recipients)
    envelope = "\0".join(names).encode()
    content = record.content
    length = len(content)
    if len(envelope) > ENVELOPE_MAX or envelope.count(0) != len(names) - 1:
        raise LocalProtocolError("an envelope that no head holds")
    fixed = _FIXED.pack(
        record.id,
        record.origin,
        record.origin_id,
        record.accepted,
        length,
        len(envelope),
    )
    head = (fixed + envelope).ljust(_TEXT_LEN, b"\0")
    filling = -(length + TAG_LEN) % BLOCK_LEN
    return (
        seal(key, salt + _HEAD, head),
        seal(key, salt + _BODY, content.ljust(length + filling, b"\0")),
    )


def open_head_untrusted(key: Key, salt: bytes, box: Octets) -> tuple[Record, int]:
    """Open a head: the record without its content, and the content's length.

    CryptoError when it does not open, EncodingError when what it holds is not what
    `seal_record` writes.
    """
    text = open_untrusted(key, salt + _HEAD, box)
    if len(text) != _TEXT_LEN:
        raise EncodingError("a head has the wrong length")
    ident, origin, origin_id, accepted, length, size = _FIXED.unpack_from(text)
    end = _FIXED.size + size
    if size > ENVELOPE_MAX or text.count(0, end) != len(text) - end:
        raise EncodingError("a head is not filled with zeros")
    try:
        names = text[_FIXED.size : end].decode().split("\0")
    except UnicodeDecodeError as error:
        raise EncodingError("an envelope is not UTF-8") from error
    if len(names) < 3:  # destination, reverse-path, a recipient
        raise EncodingError("an envelope has no recipient")
    return (
        Record(
            ident,
            origin,
            origin_id,
            names[0],
            names[1],
            tuple(names[2:]),
            accepted,
            b"",
        ),
        length,
    )


def open_record_untrusted(key: Key, salt: bytes, head: Octets, body: Octets) -> Record:
    """Open both parts; raises as `open_head_untrusted` does."""
    found, length = open_head_untrusted(key, salt, head)
    text = open_untrusted(key, salt + _BODY, body)
    if len(body) != sealed_len(length) or text.count(0, length) != len(text) - length:
        raise EncodingError("a body is not filled with zeros")
    return Record(
        found.id,
        found.origin,
        found.origin_id,
        found.destination,
        found.reverse_path,
        found.recipients,
        found.accepted,
        text[:length],
    )
