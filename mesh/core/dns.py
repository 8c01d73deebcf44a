# SPDX-License-Identifier: MIT
r"""Questions to a name server, and as much of its answers as somebody asked for.

    question   id u16 | 0x0100: recursion, please | 1 0 0 1 | name kind IN | OPT 1232
    answer     id u16 | flags u16 | four counts u16 | the question | answers | ...
    record     name | kind u16 | class u16 | TTL u32 | length u16 | data
    name       (length u8 | label)* 0, or from some label on a pointer 0xC000 | offset

    kind   A: 4 octets     AAAA: 16     MX: preference u16 | name     CNAME: name

    the answer says            what we give
    another id or question     `is_answer` is false: wait for the right one
    it is cut (TC)             None: ask by TCP
    NOERROR                    what there is of that kind, at the end of the CNAMEs
    NXDOMAIN                   the same, which is nothing
    anything else              RemoteProtocolError: another server may know better
    nothing, and that it       RemoteProtocolError: it would have us ask elsewhere
    does not recurse

Whoever owns a zone writes what we read, so the work is bounded: RECORDS_MAX records of
the answer section, CNAMES_MAX aliases, POINTERS_MAX in a name.  A name that is no
host's is nobody's: None.

RFC 1035 section 4, RFC 3596, RFC 6891 (OPT), RFC 7505 (the MX "." is the host "").
"""

import enum
import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from mesh.core.ip import Address
from mesh.errors import RemoteProtocolError

UDP_MAX: Final = 1232
"""Octets of an answer that no network fragments (DNS flag day 2020)."""
TCP_MAX: Final = 65_535
RECORDS_MAX: Final = 64
"""Read of one answer: six times the mail servers that are looked at; a hostile answer
has 3,000, and takes a general reader twelve seconds."""
CNAMES_MAX: Final = 8
"""As many as resolvers follow; more is a loop."""
POINTERS_MAX: Final = 16
"""Of one name: whoever shortens names needs one or two."""
NAME_MAX: Final = 253
"""Octets of a name as text: RFC 1035 2.3.4."""

_HEADER: Final = struct.Struct("!6H")
_RECORD: Final = struct.Struct("!HHIH")
_IN: Final = 1
_OPT: Final = b"\0" + _RECORD.pack(41, UDP_MAX, 0, 0)
_RECURSE: Final = 0x0100
_RESPONSE: Final = 0x8000
_OPCODE: Final = 0x7800
_AUTHORITATIVE: Final = 0x0400
_CUT: Final = 0x0200
_RECURSES: Final = 0x0080
_RCODE: Final = 0x000F
_NOERROR: Final = 0
_NXDOMAIN: Final = 3
_HOST: Final = re.compile(rb"[a-z0-9_.-]*+")


class Kind(enum.IntEnum):
    """What is asked for."""

    A = 1
    CNAME = 5
    MX = 15
    AAAA = 28


@dataclass(frozen=True)
class Answer:
    """What a name has, or rather the name that its CNAMEs lead to."""

    name: str
    exists: bool
    addresses: tuple[Address, ...] = ()
    exchanges: tuple[tuple[int, str | None], ...] = ()
    """Preference and host: "" means that there is to be none, None that there is none."""


def encode_question(ident: int, name: str, kind: Kind) -> bytes:
    """Ask for a name; ValueError when it is none."""
    text = name.lower().encode("ascii")
    labels = text.split(b".")
    if len(text) > NAME_MAX or not all(0 < len(label) <= 63 for label in labels):
        raise ValueError("no host name")
    if not _HOST.fullmatch(text):
        raise ValueError("no host name")
    asked = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return (
        _HEADER.pack(ident, _RECURSE, 1, 0, 0, 1)
        + asked
        + struct.pack("!HH", kind, _IN)
        + _OPT
    )


def is_answer(octets: bytes, question: bytes) -> bool:
    """Say whether this is for that question, as far as anybody can tell."""
    if len(octets) < _HEADER.size or octets[:2] != question[:2]:
        return False
    _, flags, questions, *_ = _HEADER.unpack_from(octets)
    if flags & (_RESPONSE | _OPCODE) != _RESPONSE:
        return False
    if questions == 0:  # some that fail do not repeat it
        return flags & _RCODE not in (_NOERROR, _NXDOMAIN)
    asked = _asked(question)
    return questions == 1 and octets[_HEADER.size :][: len(asked)].lower() == asked


def _asked(question: bytes) -> bytes:
    return question[_HEADER.size : -len(_OPT)]


def parse_answer_untrusted(octets: bytes, question: bytes) -> Answer | None:
    """Read what `is_answer` let pass; None: it is cut.  Raises RemoteProtocolError."""
    _, flags, _, count, *_ = _HEADER.unpack_from(octets)
    rcode = flags & _RCODE
    if rcode not in (_NOERROR, _NXDOMAIN):
        raise RemoteProtocolError("the name server failed")
    if flags & _CUT:
        return None
    if not (count or rcode or flags & (_RECURSES | _AUTHORITATIVE)):
        raise RemoteProtocolError("a name server that does not recurse")
    asked = _asked(question)
    name, _ = _name_untrusted(asked, 0)
    kind = int.from_bytes(asked[-4:-2], "big")
    found = _Found(kind)
    offset = _HEADER.size + len(asked)
    for _ in range(min(count, RECORDS_MAX)):
        offset = found.read_untrusted(octets, offset)
    return found.answer_untrusted(name or "", exists=rcode == _NOERROR)


class _Found:
    """The records of an answer that matter, by the name that has them."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._aliases: dict[str, str | None] = {}
        self._addresses: list[tuple[str, Address]] = []
        self._exchanges: list[tuple[str, tuple[int, str | None]]] = []

    def read_untrusted(self, octets: bytes, offset: int) -> int:
        """Read one record; give the offset of the next."""
        owner, offset = _name_untrusted(octets, offset)
        if len(octets) < offset + _RECORD.size:
            raise RemoteProtocolError("a record that is cut short")
        kind, group, _, length = _RECORD.unpack_from(octets, offset)
        offset += _RECORD.size
        end: int = offset + length
        if len(octets) < end:
            raise RemoteProtocolError("a record that is cut short")
        if owner is not None and group == _IN and kind in (self._kind, Kind.CNAME):
            self._keep_untrusted(owner, kind, octets[:end], offset)
        return end

    def _keep_untrusted(self, owner: str, kind: int, octets: bytes, at: int) -> None:
        data = octets[at:]
        if kind == Kind.A and len(data) == 4:
            self._addresses.append((owner, IPv4Address(data)))
        elif kind == Kind.AAAA and len(data) == 16:
            self._addresses.append((owner, IPv6Address(data)))
        elif kind in (Kind.MX, Kind.CNAME):
            at += 2 * (kind == Kind.MX)
            host, end = _name_untrusted(octets, at)
            if end != len(octets):
                raise RemoteProtocolError("a record of a wrong length")
            if kind == Kind.CNAME:
                self._aliases[owner] = host
            else:
                preference = int.from_bytes(data[:2], "big")
                self._exchanges.append((owner, (preference, host)))
        else:
            raise RemoteProtocolError("a record of a wrong length")

    def answer_untrusted(self, name: str, *, exists: bool) -> Answer:
        """Follow the CNAMEs, and give what is at their end."""
        for _ in range(CNAMES_MAX + 1):
            if name not in self._aliases:
                break
            name = self._aliases[name] or ""
        else:
            raise RemoteProtocolError("a loop of CNAMEs")
        return Answer(
            name,
            exists,
            tuple(address for owner, address in self._addresses if owner == name),
            tuple(exchange for owner, exchange in self._exchanges if owner == name),
        )


def _name_untrusted(octets: bytes, offset: int) -> tuple[str | None, int]:
    """Read a name: its text, None for what is no host's, and the offset behind it."""
    labels: list[bytes] = []
    length, end, pointers = 0, 0, 0
    while True:
        size = octets[offset] if offset < len(octets) else None
        if size == 0:
            break
        if size is not None and size >= 0xC0 and offset + 1 < len(octets):
            end = end or offset + 2
            offset = (size & 0x3F) << 8 | octets[offset + 1]
            pointers += 1
            if pointers > POINTERS_MAX:
                raise RemoteProtocolError("a name that goes in circles")
            continue
        label = octets[offset + 1 : offset + 1 + (size or 0)]
        length += len(label) + 1
        if not size or size > 63 or len(label) < size or length > NAME_MAX + 1:
            raise RemoteProtocolError("a name that is none")
        labels.append(label)
        offset += 1 + size
    text = b".".join(labels).lower()
    is_host = _HOST.fullmatch(text) and text.count(b".") == max(0, len(labels) - 1)
    return text.decode("ascii") if is_host else None, end or offset + 1
