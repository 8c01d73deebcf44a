# SPDX-License-Identifier: MIT
r"""Recipients out of a message's own header, for `sendmail -t` (RFC 5322, 3.4 and 3.6).

    To, Cc, Bcc                            count, unless there is one of
    Resent-To, Resent-Cc, Resent-Bcc       then these count and those do not
    Bcc, Resent-Bcc                        removed, with their folded lines

as Postfix does it.  The header ends at the first empty line, or before the first line
that is neither `Name: text` nor begins with a blank.  All other octets stay as they
are; nothing is added.

An address list is read leniently, in one pass: comments go, a phrase before <...> goes,
a group's name and its semicolon go, blanks outside quotes go, brackets of a domain
literal stay.  What comes out may still be no address: whoever takes it says so.

Invariant: the work is linear in the octets, whatever they are.
"""

import re
from collections.abc import Iterator
from typing import Final

_FIELD: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:")
_PLAIN: Final = frozenset({b"to", b"cc", b"bcc"})
_RESENT: Final = frozenset({b"resent-to", b"resent-cc", b"resent-bcc"})
_BLIND: Final = frozenset({b"bcc", b"resent-bcc"})

# One token: a quoted string (or what is left of one), a domain literal, a special
# character, blanks, an escaped character (in a comment), anything else.
_TOKEN: Final = re.compile(
    r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|\[[^\]]*+\]?|[<>,;:()]|\s++|\\.?|[^"\[<>,;:()\s\\]++',
    re.DOTALL,
)
_DEPTH: Final = {"(": 1, ")": -1}
_OPEN: Final = "<"
_GROUP: Final = ":"
# What ends an address: outside of <...>, and within.
_ENDS: Final = (",;", ">")


def extract_untrusted(message: bytes) -> tuple[list[str], bytes]:
    """Give the recipients that a header names, and the message without its Bcc.

    Lines end with CRLF.  Never raises: a message without a header names nobody.
    """
    plain: list[str] = []
    resent: list[str] = []
    is_resent = False
    kept: list[bytes] = []
    at = 0
    for start, name, end in _fields(message):
        if name in _PLAIN | _RESENT:
            text = message[start:end].partition(b":")[2].decode("latin-1")
            if name in _RESENT:
                is_resent = True
                resent += addresses_untrusted(text)
            else:
                plain += addresses_untrusted(text)
        if name in _BLIND:
            kept.append(message[at:start])
            at = end
    kept.append(message[at:])
    return (resent if is_resent else plain), b"".join(kept)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Give each field of the header: where it starts, its name, where it ends."""
    start, name = 0, b""
    at = 0
    while at < len(message):
        end = message.find(b"\n", at) + 1 or len(message)
        if message[at] not in b" \t" or not name:
            match = _FIELD.match(message, at, end)
            if name:
                yield start, name, at
            if match is None:
                return
            start, name = at, match[1].lower()
        at = end
    if name:
        yield start, name, at


def addresses_untrusted(text: str) -> list[str]:
    """Give the addresses of a list, without names, comments and group names."""
    found: list[str] = []
    gathered: list[str] = []
    angle = False  # within <...>
    taken = False  # this entry's address was in <...>
    for token in _tokens(text):
        if token == _OPEN:
            angle, taken = True, False
            gathered.clear()
        elif token in _ENDS[angle]:
            if gathered and not taken:
                found.append("".join(gathered))
            gathered.clear()
            angle, taken = False, angle
        elif token == _GROUP and not angle:
            gathered.clear()
        else:
            gathered.append(token)
    if gathered and not taken:
        found.append("".join(gathered))
    return found


def _tokens(text: str) -> Iterator[str]:
    """Divide the text, without blanks and comments.

    A comment may hold comments; a quotation mark has no meaning in one.
    """
    depth = at = 0
    while at < len(text):
        if depth and text[at] in '"[':
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:  # no character is left out of the pattern
            raise AssertionError
        at = match.end()
        token = match[0]
        if token in _DEPTH:
            depth = max(0, depth + _DEPTH[token])
        elif not depth and not token.isspace():
            yield token
