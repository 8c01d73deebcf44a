# SPDX-License-Identifier: MIT
"""What is signed as text: lines that survive mail, and words for eyes and ears.

    -----BEGIN MESH ...-----
    Name: value                  readable headers, which must agree with what is signed
                                 a blank line
    base64                       64 columns a line, the last may be shorter
    -----END MESH ...-----

Mail changes white space at the ends of a line and turns LF into CR LF; so both are
free, and nothing else is.  Text around is skipped.  Nothing here knows what is signed:
descriptor.py and document.py do, and they compare the headers.

    fingerprint   160 bits of a hash, base32, eight groups of four
    date          2027-11-22 00:00:00Z
"""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from mesh.core.crypto import hash256
from mesh.errors import DescriptorError

COLUMNS: Final = 64
"""Characters of base64 a line (RFC 7468): mail never wraps them."""
LINE_LEN: Final = COLUMNS // 4 * 3
"""Octets that such a line holds."""
TIME_MAX: Final = 253_402_300_799
"""UNIX seconds: the end of year 9999, past which no date can be printed."""
_FINGERPRINT_LEN: Final = 20
"""Octets: 160 bits, 2**159 keys tried before another has it; 32 letters to read out."""


def fingerprint(identity: bytes) -> str:
    """Eight groups of four letters and digits, to be read over the telephone."""
    return in_groups(hash256(b"mesh/1 fingerprint\x00", identity))


def in_groups(digest: bytes) -> str:
    """Write the first 160 bits of a hash for eyes and ears."""
    text = base64.b32encode(digest[:_FINGERPRINT_LEN]).decode()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def date(seconds: int) -> str:
    """Write UNIX seconds as a date and time of UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"


def wrap(octets: bytes) -> list[str]:
    """Lines of base64."""
    return [
        base64.b64encode(octets[at : at + LINE_LEN]).decode()
        for at in range(0, len(octets), LINE_LEN)
    ]


def lines_untrusted(text: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """Number each line from 1 and strip what mail may have changed.

    One line at a time, because a text of nothing but line ends would be a list of
    eight times its size.  `start` is where to begin, at a line's first character.
    """
    number = 1
    while (end := text.find("\n", start)) >= 0:
        yield number, text[start:end].strip(" \t\r")
        start, number = end + 1, number + 1
    yield number, text[start:].strip(" \t\r")


def find_line(text: str, wanted: str, start: int = 0) -> int:
    """Where the first line from `start` on begins that is this one; -1 without."""
    at = text.find(wanted, start)
    while at >= 0:
        begin = text.rfind("\n", start, at) + 1 or start
        end = text.find("\n", at)
        if text[begin : end if end >= 0 else None].strip(" \t\r") == wanted:
            return begin
        at = text.find(wanted, at + 1)
    return -1


def blocks_untrusted(
    text: str, where: str, begin: str, end: str
) -> Iterator[tuple[int, list[str]]]:
    """Cut a text at its BEGIN and END lines, which are part of what is yielded.

    Raises DescriptorError where they do not pair.
    """
    block: list[str] | None = None
    start = 0
    for number, line in lines_untrusted(text):
        if line in (begin, end) and (line == begin) != (block is None):
            raise DescriptorError(
                f"{where}:{number}: BEGIN and END do not pair: ask for the whole text"
            )
        if line == begin:
            start, block = number, []
        if block is None:
            continue
        block.append(line)
        if line == end:
            yield start, block
            block = None
    if block is not None:
        raise DescriptorError(f"{where}:{start}: cut off: ask for the whole text")
