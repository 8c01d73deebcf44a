# SPDX-License-Identifier: MIT
"""A node's signed statement about itself, and its armour for files and mail.

The statement is one canonical msgpack array (core/encoding.py):

    0  form        int      1, or 2 with the last field
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
   14  leaves      int      UNIX seconds of the hour at which the node leaves; form 2 only

    box = Ed25519(identity, "mesh/1 descriptor" 00 array) || array

In armour (armour.py) the same is there to be read, then the box in base64.

Invariant: a statement has one armour.  What is parsed is written again and must be
the text, line for line, so a header cannot say what is not signed.

A node that says nothing of leaving writes form 1, octet for octet what a mesh that
does not know form 2 reads.

Nothing here knows the time: whether a descriptor holds now is the caller's question
to `valid_at`; whom it may speak for is directory.py's.
"""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from mesh.core.armour import (
    TIME_MAX,
    blocks_untrusted,
    wrap,
)
from mesh.core.armour import (
    date as date,
)
from mesh.core.armour import (
    fingerprint as fingerprint,
)
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
FORM_LEAVING: Final = 2
HOUR_SECONDS: Final = 3600
"""A node leaves at a full hour, which says nothing of its mail."""
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
STATEMENT_MAX_LEN: Final = 40_960
"""Octets: SERVES_MAX addresses of 254, and as much again of the rest as can be."""
BOX_MAX_LEN: Final = SIGNATURE_LEN + STATEMENT_MAX_LEN
TEXT_MAX_LEN: Final = 4_194_304
"""Characters given to the parser: some 1,000 common descriptors in one file."""

BEGIN: Final = "-----BEGIN MESH DESCRIPTOR-----"
END: Final = "-----END MESH DESCRIPTOR-----"
_LABEL: Final = b"mesh/1 descriptor\x00"
_PRINTABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One statement; `signature` is empty until signed and no part of equality.

    `leaves` is 0 for a node that stays.
    """

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
    leaves: int = 0
    signature: bytes = field(default=b"", compare=False, repr=False)
    _octets: bytes = field(default=b"", init=False, compare=False, repr=False)

    def valid_at(self, now: float) -> bool:
        """Whether it holds at this UNIX time, both ends included."""
        return self.not_before <= now <= self.not_after

    def has_left(self, now: float) -> bool:
        """Whether its published hour of leaving has come."""
        return 0 < self.leaves <= now

    @property
    def statement(self) -> bytes:
        """The array that is signed; written once, because thousands are compared."""
        if not self._octets:
            object.__setattr__(self, "_octets", _statement(self))
        return self._octets

    @property
    def box(self) -> bytes:
        """Signature and statement, as the armour has them in base64."""
        return self.signature + self.statement

    @property
    def digest(self) -> bytes:
        """What a roster of signers names it by: 32 octets, whoever signed it how."""
        return hash256(_LABEL, self.statement)


def create(descriptor: Descriptor, key: Key) -> str:
    """Sign with the expanded identity key and armour.

    DescriptorError where the statement breaks a rule of the table above.
    """
    whole = replace(descriptor, identity=signing_public(key))
    mistake = _first_mistake(whole)
    if mistake:
        raise DescriptorError(f"this node's descriptor: {mistake}")
    return armour(replace(whole, signature=sign(key, _LABEL + whole.statement)))


def armour(descriptor: Descriptor) -> str:
    """The one text of a signed descriptor; LF, with one at the end."""
    lines = wrap(descriptor.box)
    return "\n".join([BEGIN, *_headers(descriptor), "", *lines, END, ""])


def parse_untrusted(text: str, where: str = "descriptor") -> list[Descriptor]:
    """Read all descriptors of a text, at least one, in their order.

    Raises DescriptorError `where:line: what, what to do` for the first that is
    malformed, truncated, not canonical, or not signed by the identity it names.
    """
    if len(text) > TEXT_MAX_LEN:
        raise DescriptorError(f"{where}:1: more than 4 MiB: this is no descriptor")
    found = []
    for number, block in blocks_untrusted(text, where, BEGIN, END):
        try:
            found.append(_parse_block_untrusted(block))
        except DescriptorError as error:
            raise DescriptorError(f"{where}:{number}: {error}") from error
    if not found:
        raise DescriptorError(
            f"{where}:1: no descriptor in it: look for the line {BEGIN}"
        )
    return found


def _parse_block_untrusted(lines: list[str]) -> Descriptor:
    """One armour, BEGIN to END."""
    blank = lines.index("") if "" in lines else len(lines)
    try:
        box = base64.b64decode("".join(lines[blank + 1 : -1]), validate=True)
    except ValueError as error:
        raise DescriptorError("damaged: ask for a fresh copy") from error
    descriptor = from_box_untrusted(box)
    if armour(descriptor).split("\n")[:-1] != lines:
        raise DescriptorError(
            "the readable lines are not what is signed: ask for a fresh copy"
        )
    return descriptor


def from_box_untrusted(box: bytes) -> Descriptor:
    """Read a signature and the statement behind it, without armour.

    Raises DescriptorError: damaged, not canonical, not signed by the identity that it
    names, or against a rule of the table.
    """
    octets = box[SIGNATURE_LEN:]
    try:
        statement = decode_untrusted(octets, max_len=STATEMENT_MAX_LEN)
    except EncodingError as error:
        raise DescriptorError("damaged: ask for a fresh copy") from error
    descriptor = _from_fields_untrusted(statement, box[:SIGNATURE_LEN])
    try:
        verify(descriptor.identity, _LABEL + octets, descriptor.signature)
    except CryptoError as error:
        raise DescriptorError(
            "the signature does not hold: ask for a fresh copy"
        ) from error
    mistake = _first_mistake(descriptor)
    if mistake:
        raise DescriptorError(f"{mistake}: its node must export it again")
    object.__setattr__(descriptor, "_octets", octets)  # it has one spelling
    return descriptor


# The statement as an array: the order here is the order on the wire.  Form 1 has all
# but the last.
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
    ("leaves", int, None),
)
_SHAPES: Final = {FORM: _SHAPE[:-1], FORM_LEAVING: _SHAPE}


def _statement(descriptor: Descriptor) -> bytes:
    values = [getattr(descriptor, name) for name, _, _ in _SHAPE]
    fields = [int(v) if isinstance(v, Clock) else v for v in values]
    return encode(
        [FORM_LEAVING, *fields] if descriptor.leaves else [FORM, *fields[:-1]]
    )


def _from_fields_untrusted(statement: object, signature: bytes) -> Descriptor:
    """Check the types and nothing else."""
    form = statement[0] if isinstance(statement, list) and statement else None
    if not isinstance(statement, list) or type(form) is not int or form not in _SHAPES:
        raise DescriptorError("of a form that this mesh does not read: upgrade it")
    shape = _SHAPES[form]
    if len(statement) != len(shape) + 1:
        raise DescriptorError("damaged: ask for a fresh copy")
    fields: dict[str, Any] = {}
    for (name, kind, of), value in zip(shape, statement[1:], strict=True):
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
    if fields.get("leaves") == 0:  # form 1 says so already
        raise DescriptorError("damaged: ask for a fresh copy")
    return Descriptor(**fields, signature=signature)


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
    (
        "it does not leave at a full hour",
        lambda d: 0 <= d.leaves <= TIME_MAX and d.leaves % HOUR_SECONDS == 0,
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
        *([f"Leaves: {date(d.leaves)}"] if d.leaves else []),
    ]
