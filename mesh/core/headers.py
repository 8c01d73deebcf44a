# SPDX-License-Identifier: MIT
r"""Recipients out of a message's own header, for `sendmail -t` (RFC 5322, 3.4 and 3.6).

    To, Cc, Bcc                            count, unless there is one of
    Resent-To, Resent-Cc, Resent-Bcc       then these count and those do not
    Bcc, Resent-Bcc                        removed, with their folded lines

as Postfix does it.  The header ends at the first empty line, or before the first line
that is neither `Name: text` nor begins with a blank.  All other octets stay as they
are; nothing is added.

An address list is read leniently, in one pass: comments go, a phrase before <...> goes,
a group's name and its semicolon go, brackets of a domain literal stay.  Blanks and
comments go beside "." and "@" and within <...>; elsewhere they stand for a forgotten
comma, so that nobody is overlooked and no two names become a third.
What comes out may still be no address: whoever takes it says so.

Invariant: the work is linear in the octets, whatever they are.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

_FIELD: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:")
_PLAIN: Final = frozenset({b"to", b"cc", b"bcc"})
_RESENT: Final = frozenset({b"resent-to", b"resent-cc", b"resent-bcc"})
_BLIND: Final = frozenset({b"bcc", b"resent-bcc"})

# One token: a quoted string (or what is left of one), a domain literal, a special
# character, blanks, an escaped character (in a comment), anything else.  The string's
# group is possessive for the memory's sake; where it fails half way (gh-106052, see
# envelope.py) is a backslash at the end, which means nothing either way.
_TOKEN: Final = re.compile(
    r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|\[[^\]]*+\]?|[<>,;:()]|\s++|\\.?|[^"\[<>,;:()\s\\]++',
    re.DOTALL,
)
_DEPTH: Final = {"(": 1, ")": -1}
_OPEN: Final = "<"
_CLOSE: Final = ">"
_GROUP: Final = ":"
_AT: Final = "@"
_JOINTS: Final = ".@"
_ESCAPE: Final = "\\"
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
            text = text.replace("\r\n", "")  # unfolded: a blank follows
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
    words: list[list[str]] = []  # of this entry, each in parts
    angle = False  # within <...>
    taken = False  # this entry's address was in <...>
    for token, is_apart in _tokens(text):
        if token == _OPEN:
            angle, taken = True, False
            words.clear()
        elif token in _ENDS[angle]:
            found += _names(words, sure=not taken)
            words.clear()
            angle, taken = False, angle
        elif token == _CLOSE:  # of nothing
            continue
        elif token == _GROUP and not angle:
            words.clear()
        elif words and (angle or _belong(words[-1][-1], token, is_apart=is_apart)):
            words[-1].append(token)
        else:
            words.append([token])
    found += _names(words, sure=not taken)
    return found


def _names(words: Iterable[list[str]], *, sure: bool) -> Iterator[str]:
    """Give an entry's addresses; behind <...> only what cannot be anything else."""
    for parts in words:
        name = "".join(parts)
        if sure or _AT in name:
            yield name


def _belong(left: str, right: str, *, is_apart: bool) -> bool:
    """Say whether these are parts of one address."""
    if left[-1] in _JOINTS or right[0] in _JOINTS:
        return True
    return not is_apart and _ESCAPE in (left[0], right[0])


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Divide the text; each token, and whether blanks or comments stood before it.

    A comment may hold comments; a quotation mark has no meaning in one.
    """
    depth = at = 0
    is_apart = False
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
        if depth or token in _DEPTH or token.isspace():
            is_apart = True
        else:
            yield token, is_apart
            is_apart = False
