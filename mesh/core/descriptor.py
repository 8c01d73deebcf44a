# SPDX-License-Identifier: MIT
"""A node's signed statement about itself, and its armour for files and mail.

The statement is one canonical msgpack array (core/encoding.py):

    0  form        int      1
    1  name        str      names.py
    2  network     str      nodes of one network only
    3  identity    bin 32   Ed25519 public key
    4  link keys   [bin 32] X25519 public keys, newest first, 1 or 2
    5  addresses   [str]    HOST:PORT to dial, at most 8; none: dials only
    6  serves      [str]    addresses and @domains, sorted, at most 128
    7  clock       int      clock.py
    8  class       int      log2 of cells a second, plus 3
    9  versions    [int]    link protocols spoken, ascending, at most 8
   10  insecure    [str]    what weakens it, sorted, at most 8
   11  serial      int      grows with every new statement
   12  not before  int      UNIX seconds
   13  not after   int      UNIX seconds

    box = Ed25519(identity, "mesh/1 descriptor" 00 array) || array

In armour the same is there to be read, then the box in base64, 64 columns a line:

    -----BEGIN MESH DESCRIPTOR-----
    Name: alpha
    ...
    Valid-Until: 2027-11-22 00:00:00Z

    base64
    -----END MESH DESCRIPTOR-----

Invariant: a statement has one armour.  What is parsed is written again and must be
the text, line for line, so a header cannot say what is not signed.  Only white space
at the ends of a line is free, CR too, because mail changes it; text around is skipped.

Nothing here knows the time: whether a descriptor holds now is the caller's question
to `valid_at`; whom it may speak for is directory.py's.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from mesh.core.clock import CLASS_MAX, Clock, rate_of
from mesh.core.crypto import (
    PUBLIC_LEN,
    SIGNATURE_LEN,
    Key,
    hash256,
    sign,
    signing_public,
    verify,
)
from mesh.core.encoding import decode_untrusted, encode
from mesh.core.names import (
    check_name,
    normalize_address,
    normalize_endpoint,
)
from mesh.errors import CryptoError, DescriptorError, EncodingError

FORM: Final = 1
LINK_KEYS_MAX: Final = 2
"""Keys: the one in force and, while it rotates, the one before."""
ADDRESSES_MAX: Final = 8
"""Endpoints: a dialler tries each, and each try takes seconds."""
SERVES_MAX: Final = 128
"""Addresses: a host of remailers; more is a domain, which is one entry."""
VERSIONS_MAX: Final = 8
INSECURE_MAX: Final = 8
INSECURE_LEN_MAX: Final = 64
"""Octets of one reason: a line on a terminal."""
SERIAL_MAX: Final = (1 << 63) - 1
TIME_MAX: Final = 253_402_300_799
"""UNIX seconds: the end of year 9999, past which no date can be printed."""
STATEMENT_MAX_LEN: Final = 40_960
"""Octets: SERVES_MAX addresses of 254, and as much again of the rest as can be."""
TEXT_MAX_LEN: Final = 4_194_304
"""Characters given to the parser: some 1,000 common descriptors in one file."""

BEGIN: Final = "-----BEGIN MESH DESCRIPTOR-----"
END: Final = "-----END MESH DESCRIPTOR-----"
COLUMNS: Final = 64
"""Characters of base64 a line (RFC 7468): mail never wraps them."""

_LABEL: Final = b"mesh/1 descriptor\x00"
_FINGERPRINT_LEN: Final = 20
"""Octets: 160 bits, 2**159 keys tried before another has it; 32 letters to read out."""
_PRINTABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


@dataclass(frozen=True)
class Descriptor:
    """One statement; `signature` is empty until signed and no part of equality."""

    name: str
    network: str
    identity: bytes
    link_keys: tuple[bytes, ...]
    addresses: tuple[str, ...]
    serves: tuple[str, ...]
    clock: Clock
    klass: int
    versions: tuple[int, ...]
    insecure: tuple[str, ...]
    serial: int
    not_before: int
    not_after: int
    signature: bytes = field(default=b"", compare=False, repr=False)

    def valid_at(self, now: float) -> bool:
        """Whether it holds at this UNIX time, both ends included."""
        return self.not_before <= now <= self.not_after


def fingerprint(identity: bytes) -> str:
    """Eight groups of four letters and digits, to be read over the telephone."""
    digest = hash256(b"mesh/1 fingerprint\x00", identity)[:_FINGERPRINT_LEN]
    text = base64.b32encode(digest).decode()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def create(descriptor: Descriptor, key: Key) -> str:
    """Sign with the expanded identity key and armour.

    DescriptorError where the statement breaks a rule of the table above.
    """
    whole = replace(descriptor, identity=signing_public(key))
    mistake = _first_mistake(whole)
    if mistake:
        raise DescriptorError(f"this node's descriptor: {mistake}")
    return armour(replace(whole, signature=sign(key, _LABEL + _statement(whole))))


def armour(descriptor: Descriptor) -> str:
    """The one text of a signed descriptor; LF, with one at the end."""
    box = base64.b64encode(descriptor.signature + _statement(descriptor)).decode()
    lines = [box[at : at + COLUMNS] for at in range(0, len(box), COLUMNS)]
    return "\n".join([BEGIN, *_headers(descriptor), "", *lines, END, ""])


def parse_untrusted(text: str, where: str = "descriptor") -> list[Descriptor]:
    """Read all descriptors of a text, at least one, in their order.

    Raises DescriptorError `where:line: what, what to do` for the first that is
    malformed, truncated, not canonical, or not signed by the identity it names.
    """
    if len(text) > TEXT_MAX_LEN:
        raise DescriptorError(f"{where}:1: more than 4 MiB: this is no descriptor")
    found = []
    for number, block in _blocks_untrusted(text, where):
        try:
            found.append(_parse_block_untrusted(block))
        except DescriptorError as error:
            raise DescriptorError(f"{where}:{number}: {error}") from error
    if not found:
        raise DescriptorError(
            f"{where}:1: no descriptor in it: look for the line {BEGIN}"
        )
    return found


def _blocks_untrusted(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Cut a text at its BEGIN and END lines, which are part of what is yielded."""
    block: list[str] | None = None
    start = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if (line == BEGIN) != (block is None) and line in (BEGIN, END):
            raise DescriptorError(
                f"{where}:{number}: BEGIN and END do not pair: ask for the whole text"
            )
        if line == BEGIN:
            start, block = number, []
        if block is not None:
            block.append(line)
        if line == END and block is not None:
            yield start, block
            block = None
    if block is not None:
        raise DescriptorError(f"{where}:{start}: cut off: ask for the whole text")


def _parse_block_untrusted(lines: list[str]) -> Descriptor:
    """One armour, BEGIN to END."""
    blank = lines.index("") if "" in lines else len(lines)
    try:
        box = base64.b64decode("".join(lines[blank + 1 : -1]), validate=True)
        statement = decode_untrusted(box[SIGNATURE_LEN:], max_len=STATEMENT_MAX_LEN)
    except (ValueError, binascii.Error, EncodingError) as error:
        raise DescriptorError("damaged: ask for a fresh copy") from error
    descriptor = _from_fields_untrusted(statement, box[:SIGNATURE_LEN])
    try:
        verify(descriptor.identity, _LABEL + box[SIGNATURE_LEN:], descriptor.signature)
    except CryptoError as error:
        raise DescriptorError(
            "the signature does not hold: ask for a fresh copy"
        ) from error
    mistake = _first_mistake(descriptor)
    if mistake:
        raise DescriptorError(f"{mistake}: its node must export it again")
    if armour(descriptor).split("\n")[:-1] != lines:
        raise DescriptorError(
            "the readable lines are not what is signed: ask for a fresh copy"
        )
    return descriptor


# The statement as an array: the order here is the order on the wire.
_SHAPE: Final[Sequence[tuple[str, type, type | None]]] = (
    ("name", str, None),
    ("network", str, None),
    ("identity", bytes, None),
    ("link_keys", list, bytes),
    ("addresses", list, str),
    ("serves", list, str),
    ("clock", int, None),
    ("klass", int, None),
    ("versions", list, int),
    ("insecure", list, str),
    ("serial", int, None),
    ("not_before", int, None),
    ("not_after", int, None),
)


def _statement(descriptor: Descriptor) -> bytes:
    values = [getattr(descriptor, name) for name, _, _ in _SHAPE]
    return encode([FORM, *(int(v) if isinstance(v, Clock) else v for v in values)])


def _from_fields_untrusted(statement: object, signature: bytes) -> Descriptor:
    """Check the types and nothing else."""
    if not isinstance(statement, list) or not _is_form(statement[:1]):
        raise DescriptorError("of a form that this mesh does not read: upgrade it")
    if len(statement) != len(_SHAPE) + 1:
        raise DescriptorError("damaged: ask for a fresh copy")
    fields: dict[str, Any] = {}
    for (name, kind, of), value in zip(_SHAPE, statement[1:], strict=True):
        items = value if isinstance(value, list) else []
        if type(value) is not kind or any(type(item) is not of for item in items):
            raise DescriptorError("damaged: ask for a fresh copy")
        fields[name] = tuple(items) if kind is list else value
    try:
        fields["clock"] = Clock(fields["clock"])
    except ValueError as error:
        raise DescriptorError(
            "names a clock that is not known: upgrade mesh"
        ) from error
    return Descriptor(**fields, signature=signature)


def _is_form(first: list[object]) -> bool:
    return [type(form) for form in first] == [int] and first == [FORM]


def _first_mistake(descriptor: Descriptor) -> str | None:
    """Name the first rule of the table that the statement breaks."""
    for rule, holds in _RULES:
        if not holds(descriptor):
            return rule
    return None


def _is_canonical(normal: Callable[[str], str], texts: Sequence[str]) -> bool:
    try:
        return all(normal(text) == text for text in texts)
    except ValueError:
        return False


def _is_rising(items: Sequence[Any]) -> bool:
    """Sorted without a repetition: a set with one spelling."""
    return all(low < high for low, high in pairwise(items))


def _are_keys(keys: Sequence[bytes]) -> bool:
    return all(len(key) == PUBLIC_LEN for key in keys) and len(set(keys)) == len(keys)


_RULES: Final[Sequence[tuple[str, Callable[[Descriptor], bool]]]] = (
    ("its name is no name", lambda d: _is_canonical(check_name, [d.name])),
    ("its network is no name", lambda d: _is_canonical(check_name, [d.network])),
    ("its identity is no key", lambda d: _are_keys([d.identity])),
    (
        "its link keys are not 1 or 2 keys",
        lambda d: 1 <= len(d.link_keys) <= LINK_KEYS_MAX and _are_keys(d.link_keys),
    ),
    (
        "its addresses to dial are not at most 8 different HOST:PORT",
        lambda d: (
            len(set(d.addresses)) == len(d.addresses) <= ADDRESSES_MAX
            and _is_canonical(normalize_endpoint, d.addresses)
        ),
    ),
    (
        "the addresses it serves are not a sorted list of at most 128",
        lambda d: (
            len(d.serves) <= SERVES_MAX
            and _is_rising(d.serves)
            and _is_canonical(normalize_address, d.serves)
        ),
    ),
    ("its rate is no class", lambda d: 0 <= d.klass <= CLASS_MAX),
    (
        "its link protocols are not an ascending list of at most 8",
        lambda d: (
            1 <= len(d.versions) <= VERSIONS_MAX
            and d.versions[0] > 0
            and _is_rising(d.versions)
        ),
    ),
    (
        "its weaknesses are not a sorted list of at most 8 short lines",
        lambda d: (
            len(d.insecure) <= INSECURE_MAX
            and _is_rising(d.insecure)
            and all(
                len(why) <= INSECURE_LEN_MAX and _PRINTABLE.fullmatch(why)
                for why in d.insecure
            )
        ),
    ),
    ("its serial is out of range", lambda d: 1 <= d.serial <= SERIAL_MAX),
    (
        "its validity is no span of time",
        lambda d: 0 <= d.not_before < d.not_after <= TIME_MAX,
    ),
)


def _headers(descriptor: Descriptor) -> list[str]:
    d = descriptor
    return [
        f"Name: {d.name}",
        f"Network: {d.network}",
        f"Fingerprint: {fingerprint(d.identity)}",
        *(f"Address: {endpoint}" for endpoint in d.addresses),
        *(f"Serves: {address}" for address in d.serves),
        f"Clock: {d.clock.name.lower()}",
        f"Cells-Per-Second: {rate_of(d.klass):g}",
        f"Link-Versions: {' '.join(map(str, d.versions))}",
        *(f"Insecure: {why}" for why in d.insecure),
        f"Serial: {d.serial}",
        f"Valid-From: {date(d.not_before)}",
        f"Valid-Until: {date(d.not_after)}",
    ]


def date(seconds: int) -> str:
    """Write UNIX seconds as a date and time of UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z"
