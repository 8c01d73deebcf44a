# SPDX-License-Identifier: MIT
"""The list of those who want no mail from here: `[delivery] refuse = "FILE"`.

    # a comment, to the end of the line; not within an address
    who@example.org            this recipient
    @example.org               everybody at this domain; not at those below it

Case does not matter, nor quotes that are not needed, nor a final dot, nor how an IPv6
literal is spelled.  What is listed is refused 550 at RCPT, on links too, and bounces if
it was accepted before.
"""

import re
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from mesh.core.names import domain_of, normalize_address
from mesh.errors import ConfigError

MISTAKES_MAX: Final = 20
"""Lines that are told of: a file that is no list has as many as it has lines."""
_ESCAPED: Final = re.compile(r"\\(.)")
_COMMENT: Final = re.compile(r"(?:^|\s)#")


def canonical(address: str) -> str:
    """Lower case, no quotes where they mean nothing, one spelling of each literal.

    RFC 5321 4.1.2, 4.1.3.  For look-ups, so that nobody has two names; never for
    delivery.  The domain is in its canonical form whatever the local part looks like.
    """
    local, at, domain = address.lower().rpartition("@")
    if len(local) > 1 and local[0] == local[-1] == '"':
        local = _ESCAPED.sub(r"\1", local[1:-1])
    if domain.startswith("["):
        with suppress(ValueError):  # a literal of some other kind
            domain = domain_of(normalize_address(f"@{domain}"))
    return f"{local}{at}{domain}"


class Refusals:
    """A list that holds; an empty one refuses nobody."""

    def __init__(self, entries: Collection[str] = ()) -> None:
        self._entries = frozenset(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def refuses(self, address: str) -> bool:
        """Say whether this recipient, or everybody at its domain, is listed."""
        if not self._entries:
            return False
        name = canonical(address)
        return name in self._entries or f"@{domain_of(name)}" in self._entries


def parse_refusals(text: str, where: str) -> Refusals:
    """Read a list; ConfigError with a line a mistake, each beginning with `where`."""
    entries: set[str] = set()
    mistakes: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        entry = _COMMENT.split(line, maxsplit=1)[0].strip().rstrip(".")
        if not entry:
            continue
        local, at, domain = entry.rpartition("@")
        if not (at and domain and entry.isascii() and entry.isprintable()) or (
            not local.startswith('"') and any(mark in entry for mark in " ,;<>")
        ):
            mistakes.append(
                f"{where}:{number}: no address: write one a line, user@example.net, "
                "or @example.net for a whole domain"
            )
            if len(mistakes) == MISTAKES_MAX:
                break
            continue
        entries.add(canonical(entry))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Refusals(entries)
