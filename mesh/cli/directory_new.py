# SPDX-License-Identifier: MIT
"""`mesh directory new`: a draft of the next version, for the signers to sign.

members   first: this node, all of peers.d, the signers; then those in force, each by
its newest descriptor; and --members, and not --without
pairs     first: what peers.d confirms; then those in force that are still claimed;
what this node serves outside its host; and --serves ADDR=NAME, where an
empty NAME takes a pair back
signers   first: --signers; then those in force, or --signers instead
root      the same while signers and threshold are; else its next version
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from mesh.cli.directory_files import (
    Node,
    open_node,
    output_option,
    read_file,
    say,
    write,
)
from mesh.cli.options import config_option
from mesh.cli.several import SeveralCommand, several
from mesh.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from mesh.core.descriptor import Descriptor
    from mesh.core.document import Document

DAYS_MAX = 366


@click.command("new", cls=SeveralCommand)
@config_option
@output_option
@click.option(
    "--threshold", type=click.IntRange(1, 64), help="How many sign; else a majority."
)
@several("--signers", metavar="FILE...", help="Descriptors of the nodes that sign.")
@several("--members", metavar="FILE...", help="Descriptors of nodes to list.")
@several("--without", metavar="NAME...", help="Nodes to take off.")
@several("--serves", metavar="ADDR=NAME...", help="Vouch for addresses of NAME's.")
@click.option(
    "--days", type=click.IntRange(1, DAYS_MAX), help="How long it holds; else 60."
)
def new(
    output: str | None,
    threshold: int | None,
    signers: tuple[str, ...],
    members: tuple[str, ...],
    without: tuple[str, ...],
    serves: tuple[str, ...],
    days: int | None,
) -> None:
    """Draft the next version of the directory, for the signers to sign.

    An option's values go on until the next option.  Standard error says what is new.
    """
    from mesh.core.document import armour
    from mesh.core.overview import changes
    from mesh.core.signing import VALID_DAYS, draft

    now = time.time()
    node = open_node(now)
    before = node.registry.trusted.current
    if before is None and not signers:
        raise UsageError("a first directory needs its signers: --signers FILE...")
    signing = _read(signers)
    listed = _members(node, before, [*signing, *_read(members)], now)
    for name in without:
        if listed.pop(name, None) is None:
            raise UnknownNameError(f"--without {name}: it is not listed")
    pairs = _pairs(node, before, listed, _words(serves))
    document = draft(
        before,
        list(listed.values()),
        now=now,
        days=VALID_DAYS if days is None else days,
        network=node.config.node.network,
        signers={d.identity for d in signing} if signing else None,
        threshold=threshold,
        pairs=pairs.items(),
    )
    roster = document.roster
    say(f"version {roster.version} of {roster.network}, a draft that nobody signed:")
    for line in changes(before, document):
        say(f"  {line}")
    for line in _uncounted(listed, pairs):
        say(line)
    write(armour(document), output)


def _read(files: Sequence[str]) -> list["Descriptor"]:
    """All descriptors of all files."""
    from mesh.core.descriptor import TEXT_MAX_LEN, parse_untrusted

    found = []
    for file in files:
        octets = read_file(file, TEXT_MAX_LEN, "what `mesh export` printed")
        found += parse_untrusted(octets.decode(errors="replace"), file)
    return found


def _members(
    node: Node,
    before: "Document | None",
    named: Iterable["Descriptor"],
    now: float,
) -> dict[str, "Descriptor"]:
    """Who is to be listed, by name, with the newest descriptor that we have."""
    from mesh.node.statement import sign

    own = sign(node.config, now)
    by_hand = [
        listed.descriptor
        for name, listed in node.snapshot.by_name.items()
        if name in node.snapshot.by_hand
    ]
    in_force = list(node.registry.members.values())
    start = [own, *by_hand] if before is None else in_force
    found = {d.name: d for d in start}
    found |= {d.name: d for d in named}
    for one in (own, *by_hand, *start):
        listed = found.get(one.name)
        same = listed is not None and listed.identity == one.identity
        if same and listed is not None and listed.serial < one.serial:
            found[one.name] = one
    return found


def _words(serves: Iterable[str]) -> dict[str, str]:
    """What was typed as ADDR=NAME."""
    from mesh.core.names import normalize_address

    found = {}
    for word in serves:
        address, _, name = word.rpartition("=")
        try:
            found[normalize_address(address)] = name
        except ValueError as error:
            raise UsageError(f"--serves {word!a}: write ADDR=NAME") from error
    return found


def _pairs(
    node: Node,
    before: "Document | None",
    listed: Mapping[str, "Descriptor"],
    words: Mapping[str, str],
) -> dict[str, str]:
    """Address and name of all that is to be vouched for."""
    found: dict[str, str] = {}
    if before is None:
        for name in node.snapshot.by_hand:
            found |= dict.fromkeys(node.snapshot.by_name[name].confirmed, name)
    else:
        found |= dict(before.roster.pairs)
    own = listed.get(node.config.node.name)
    if own:
        for address in _outside(own):
            found.setdefault(address, own.name)
    found = {
        address: name
        for address, name in found.items()
        if name in listed and address in listed[name].serves
    }
    found |= words
    return {address: name for address, name in found.items() if name}


def _outside(descriptor: "Descriptor") -> list[str]:
    """What it says that it serves and does not lie at its own host."""
    from mesh.core.directory import Listed

    return list(Listed(descriptor).not_counted)


def _uncounted(
    listed: Mapping[str, "Descriptor"], pairs: Mapping[str, str]
) -> list[str]:
    """Say which claims will not count."""
    return [
        f"{name}: {address} lies outside its own host and will not count: if you know "
        f"better, --serves {address}={name}"
        for name, descriptor in sorted(listed.items())
        for address in _outside(descriptor)
        if pairs.get(address) != name
    ]
