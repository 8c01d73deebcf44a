# SPDX-License-Identifier: MIT
"""`mesh peers [list | add FILE... | remove NAME]`: whom this node has links with."""

import sys
import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import click

from mesh.cli.options import config_option, load_config
from mesh.cli.plain import plain, plain_json
from mesh.errors import (
    ConfigError,
    DescriptorError,
    MeshError,
    NoInputError,
    NotPermittedError,
)

if TYPE_CHECKING:
    from mesh.config import Config
    from mesh.core.descriptor import Descriptor
    from mesh.core.directory import Listed, Us
    from mesh.node.peers import Snapshot
    from mesh.node.registry import Registry


@click.group("peers", invoke_without_command=True)
@config_option
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> int | None:
    """List, add and remove the nodes to have links with.  Alone: list."""
    if ctx.invoked_subcommand is None:
        return _list(as_json)
    ctx.obj = as_json
    return None


@command.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
@click.pass_obj
def list_(before: bool, as_json: bool) -> int:
    """Show each peer: fingerprint, addresses, clock, class, days left.

    Exit code 65 when a file in peers.d does not count; a line says why.
    """
    return _list(as_json or before)


@command.command("add")
@config_option
@click.option(
    "--serves",
    multiple=True,
    metavar="ADDRESS",
    help="Believe a FILE that claims this address outside its own host.",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def add_(serves: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Add the descriptors in the FILEs ("-": standard input), all or none.

    Compare fingerprints by telephone, and look whose mail they are to get: mesh peers
    list shows both.
    """
    from mesh.node.listing import add

    config = load_config()
    us = _us(config)
    offered = _read_all(config, files)
    words = {_normal(address) for address in serves} | _ask(config, us, offered, serves)
    for one in add(config.peers_dir, us, offered, words, time.time()):
        descriptor = one.listed.descriptor
        # It names its hosts itself, and so what mail it gets: somebody should see that.
        served = ", ".join(one.listed.counted) or "nobody"
        click.echo(
            f"{descriptor.name}: {one.change}, {_fingerprint(descriptor)}; serves {served}"
        )
        for address in one.listed.not_counted:
            click.echo(
                f"mesh: {descriptor.name}: {address} lies outside its own host and does "
                f"not count: if you know better, add it again with --serves {address}",
                err=True,
            )


@command.command("remove")
@config_option
@click.argument("name")
def remove_(name: str) -> None:
    """Remove a peer: its links end at once.

    One whom the shared directory lists is distrusted from then on, until you add him.
    """
    from mesh.node.listing import remove

    config = load_config()
    shared = {one.descriptor.name: one for one in _registry(config).shared.listed}
    remove(config.peers_dir, name, config.node.name, time.time(), shared.get(name))
    click.echo(f"{name}: removed")
    if name in shared:
        click.echo(
            f"mesh: {name}: the shared directory goes on listing it: it is distrusted "
            "here until `mesh peers add`",
            err=True,
        )


def _us(config: "Config") -> "Us":
    from mesh.core.crypto import signing_public
    from mesh.core.directory import Us
    from mesh.node.keys import load_identity

    try:
        identity = signing_public(load_identity(config.state_dir))
    except ConfigError:  # no key yet, or a bad one: this verb needs none
        identity = b""
    node = config.node
    return Us(node.name, node.network, config.own_addresses(), identity)


def _registry(config: "Config") -> "Registry":
    from mesh.node.registry import Registry

    return Registry.open(config.state_dir, _us(config), time.time())


def _snapshot(config: "Config", us: "Us") -> "Snapshot":
    from mesh.node.peers import Peers

    peers = Peers(config.peers_dir, us, _registry(config))
    peers.poll()
    return peers.snapshot


def _normal(address: str) -> str:
    """The canonical form; nonsense stays as it is, for nobody claims it."""
    from mesh.core.names import normalize_address

    try:
        return normalize_address(address)
    except ValueError:
        return address


def _read_all(config: "Config", files: Sequence[str]) -> list[tuple[str, "Descriptor"]]:
    """All descriptors of all files; a line for each file that has none.

    Our own, in a file with others, is passed over: a file of all nodes is for each.
    """
    offered: list[tuple[str, Descriptor]] = []
    mistakes: list[MeshError] = []
    for file in files:
        try:
            found = _read(file)
            if len(found) > 1:
                found = [one for one in found if not _is_ours(config, one)]
            offered.extend((file, descriptor) for descriptor in found)
        except MeshError as error:
            mistakes.append(error)
    if mistakes:
        raise type(mistakes[0])("\n".join(map(str, mistakes)))
    return offered


def _is_ours(config: "Config", descriptor: "Descriptor") -> bool:
    if descriptor.name != config.node.name:
        return False
    from mesh.core.crypto import signing_public
    from mesh.node.keys import load_identity

    return signing_public(load_identity(config.state_dir)) == descriptor.identity


def _read(file: str) -> list["Descriptor"]:
    from mesh.core.descriptor import TEXT_MAX_LEN, parse_untrusted

    try:
        with click.open_file(file, "rb") as stream:
            octets = stream.read(TEXT_MAX_LEN + 1)
    except OSError as error:
        kind = NotPermittedError if isinstance(error, PermissionError) else NoInputError
        raise kind(
            f"{file or 'an empty name'}: {error.strerror}: "
            "name a file with what `mesh export` printed"
        ) from error
    return parse_untrusted(octets.decode(errors="replace"), file)


def _ask(
    config: "Config",
    us: "Us",
    offered: Sequence[tuple[str, "Descriptor"]],
    serves: Collection[str],
) -> set[str]:
    """On a terminal: whether to believe each claim that would not count."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return set()
    from mesh.core.directory import Listed

    known = _snapshot(config, us).by_name
    told = {_normal(address) for address in serves}
    believed: set[str] = set()
    for _, descriptor in offered:
        old = known.get(descriptor.name)
        before = old.confirmed if old else frozenset()
        for address in Listed(descriptor, before | told | believed).not_counted:
            question = (
                f"{descriptor.name} says it serves {address}, outside its own host: "
                "do you know that this is so?"
            )
            if click.confirm(question, default=False, err=True):
                believed.add(address)
    return believed


def _list(as_json: bool) -> int:
    config = load_config()
    snapshot = _snapshot(config, _us(config))
    now = time.time()
    peers = [_facts(listed, now, snapshot) for listed in snapshot.by_name.values()]
    distrusted = sorted(snapshot.distrusted)
    if as_json:
        shown = {
            "schema": 1,
            "peers": peers,
            "mistakes": list(snapshot.mistakes),
            "distrusted": distrusted,
        }
        click.echo(plain_json(shown))
    elif not peers:
        click.echo("no peers yet: mesh peers add FILE")
    else:
        click.echo("\n".join(map(_block, peers)))
    for name in distrusted:
        click.echo(
            f"mesh: {name}: listed by the shared directory, distrusted here", err=True
        )
    for mistake in snapshot.mistakes:
        click.echo(f"mesh: {plain(mistake)}", err=True)
    return DescriptorError.exit_code if snapshot.mistakes else 0


def _fingerprint(descriptor: "Descriptor") -> str:
    from mesh.core.descriptor import fingerprint

    return fingerprint(descriptor.identity)


def _facts(listed: "Listed", now: float, snapshot: "Snapshot") -> dict[str, object]:
    from mesh.core.clock import rate_of
    from mesh.core.descriptor import date

    descriptor = listed.descriptor
    return {
        "name": descriptor.name,
        "fingerprint": _fingerprint(descriptor),
        "addresses": list(descriptor.addresses),
        "serves": list(listed.counted),
        "not_counted": list(listed.not_counted),
        "clock": descriptor.clock.name.lower(),
        "cells_per_second": rate_of(descriptor.klass),
        "insecure": list(descriptor.insecure),
        "serial": descriptor.serial,
        "valid_from": date(descriptor.not_before),
        "valid_until": date(descriptor.not_after),
        "days_left": max(0, int((descriptor.not_after - now) // 86_400)),
        "listed_by": [
            who
            for who, names in (
                ("hand", snapshot.by_hand),
                ("directory", snapshot.by_signers),
            )
            if descriptor.name in names
        ],
        "valid": descriptor.valid_at(now),
    }


def _block(facts: dict[str, object]) -> str:
    """One peer for a person: a name, then what is not empty."""
    lines = [str(facts["name"])]
    for key, value in list(facts.items())[1:-1]:
        text = ", ".join(value) if isinstance(value, list) else value
        if text != "":
            lines.append(plain(f"  {key.replace('_', ' '):<17} {text}"))
    if not facts["valid"]:
        lines.append("  NOT VALID NOW: ask for a fresh `mesh export`, or set the clock")
    return "\n".join(lines)
