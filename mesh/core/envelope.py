# SPDX-License-Identifier: MIT
r"""Envelopes: who a message is for, and who is told when it fails (RFC 5321 4.1.2).

    path      = "<" [ route ":" ] mailbox ">"
    route     = "@" domain *( "," "@" domain )      kept apart, see below
    mailbox   = local "@" ( domain / literal )
              / "postmaster"                        a forward-path, in any case
              / local                               a reverse-path: any program's word
    "<>"                                            a reverse-path: tell nobody
    local     = 1*( atext / "." ) / quoted-string
    literal   = "[" IPv4 "]" / "[" tag ":" octets "]"

Dots in the local part may stand anywhere: addresses in the wild have them so, and we
only look addresses up.  A source route means nothing any more (RFC 5321 appendix C)
but on a link, where `<@me:x@peer>` comes back to the peer that sent it; so it is
kept beside the address and whoever does not need it looks at `address` alone.

Invariant: a path is printable ASCII of at most PATH_MAX octets, so it fits a record's
head and never breaks the line that it is written into.  Delivery uses the address as
it was written; look-ups of addresses outside the mesh use `normalize`, those inside
have a stricter form (names.py).
"""

import re
from typing import Final, NamedTuple

from mesh.errors import CommandError

# Octets of a path with its brackets: RFC 5321 4.5.3.1.3.
PATH_MAX: Final = 256

# Quantifiers of octets are possessive, so that the longest hostile line costs two passes.
# Those of groups are not: before Python 3.11.5 a group that failed half way left its half
# behind (gh-106052), and "a@b-" was an address.
_ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
_LABEL: Final = r"[A-Za-z0-9]++(?:-++[A-Za-z0-9]++)*"
_DOMAIN: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_QUOTED: Final = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"'
_LOCAL: Final = rf"(?:[{_ATEXT}.]++|{_QUOTED})"
# No "@" inside a literal, so that the last one of a mailbox begins its domain.
_LITERAL: Final = r"\[(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[A-Za-z0-9\-]++:[\x21-\x3f\x41-\x5a\x5e-\x7e]++)\]"
_PATH: Final = re.compile(
    rf"<(?:(@{_DOMAIN}(?:,@{_DOMAIN})*):)?({_LOCAL}(@(?:{_DOMAIN}|{_LITERAL}))?)>"
)
_UNQUOTED: Final = re.compile(rf"[{_ATEXT}.]+")


class Path(NamedTuple):
    """One address as it stood between the brackets, its source route apart."""

    address: str
    route: str = ""

    @property
    def text(self) -> str:
        """What stands between the brackets: route, colon, address."""
        return f"{self.route}:{self.address}" if self.route else self.address


NULL_PATH: Final = Path("")


def parse_path_untrusted(text: str, *, reverse: bool = False) -> Path:
    """The path that `text` is, brackets included (octets decoded as Latin-1).

    Raises CommandError: 553 for octets beyond ASCII, 501 for anything else.
    """
    path, rest = split_path_untrusted(text, reverse=reverse)
    if rest:
        raise CommandError(501, "something follows the address")
    return path


def split_path_untrusted(text: str, *, reverse: bool) -> tuple[Path, str]:
    """The path at the beginning of `text`, and what follows it.

    Raises CommandError as parse_path_untrusted does.
    """
    if reverse and text.startswith("<>"):
        return NULL_PATH, text[2:]
    match = _PATH.match(text)
    if match is None:
        if not text.isascii():
            raise CommandError(553, "an address is ASCII")
        raise CommandError(501, "not an address in <brackets>")
    end = match.end()
    if end > PATH_MAX:
        raise CommandError(501, "address too long")
    route, address, domain = match.groups()
    if domain is None and not reverse and address.lower() != "postmaster":
        raise CommandError(501, "an address needs a domain")
    return Path(address, route or ""), text[end:]


def normalize(address: str) -> str:
    """The form under which an address is looked up, never the one that is delivered.

    Lower case in the local part too: remailers do not tell Mix@ from mix@, and if we
    did, two nodes could claim "different" addresses for one mailbox.  Quotes that
    are not needed go, as RFC 5321 4.1.2 says that they mean nothing.
    """
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = domain, ""
    if local.startswith('"'):
        bare = re.sub(r"\\(.)", r"\1", local[1:-1])
        if _UNQUOTED.fullmatch(bare):
            local = bare
    return f"{local}{at}{domain}".lower()


def domain_of(address: str) -> str:
    """What follows the last "@", in lower case; "" where there is none."""
    _, at, domain = address.rpartition("@")
    return domain.lower() if at else ""


def without_route(path: str) -> str:
    """Take the source route off a forward-path: `@me:x@peer` is `x@peer`."""
    return path.partition(":")[2] if path.startswith("@") else path
