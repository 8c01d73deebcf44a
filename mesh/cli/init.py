# SPDX-License-Identifier: MIT
"""`mesh init DIR`: a node's folder, whole, with node.toml as its last piece.

    DIR/            0700  made, or an empty one taken over
      node.toml     0600  linked last: what has none is not a node yet
      state/        0700  identity.key link.key spool.key spool/
      peers.d/      0700

Interrupted anywhere, it can be given again; keys that are there already are kept, so
a node is restored by putting state/identity.key in place first.  Nothing is bound,
dialled, resolved or tested.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from mesh.errors import CannotCreateError, UsageError

DEFAULT_PORT: Final = 48821
"""The agreed high port."""
DEFAULT_DELIVER: Final = "maildir:Maildir"

_REMAILER = re.compile(r"(?P<who>[^@]*@[^=]*)(?:=(?P<deliver>.*))?", re.DOTALL)
"""A local part may hold = itself, a host may not."""


@click.command("init")
@click.argument("directory", metavar="DIR")
@click.option(
    "--name", help="Unique among your peers; lower-case letters, digits, . _ -"
)
@click.option("--address", metavar="HOST:PORT", help='What peers dial; "": dials only.')
@click.option("--network", default="main", show_default=True)
@click.option(
    "--remailer",
    "remailers",
    multiple=True,
    metavar="ADDRESS[=DELIVER]",
    help=f"A remailer to serve; DELIVER as in node.toml [default: {DEFAULT_DELIVER}].",
)
def command(
    directory: str,
    name: str | None,
    address: str | None,
    network: str,
    remailers: tuple[str, ...],
) -> None:
    """Make a node in DIR: keys, a commented node.toml, and a place for peers."""
    from mesh.cli.template import render
    from mesh.core.names import check_name, normalize_endpoint

    name = _given_or_asked(name, "--name", "Name of this node", _host_name())
    address = _given_or_asked(
        address,
        "--address",
        "HOST:PORT that peers dial",
        f"{_host_name()}:{DEFAULT_PORT}",
    )
    mistakes: list[str] = []
    if not directory:  # a script's variable that is not set: not the folder we are in
        mistakes.append('DIR is empty: name a folder, "." for this one')
    _check(mistakes, "--name", check_name, name)
    _check(mistakes, "--network", check_name, network)
    address = _check(
        mistakes, "--address", lambda a: a and normalize_endpoint(a), address
    )
    pairs = [_pair(mistakes, text) for text in remailers]
    if len(who := [pair[0] for pair in pairs]) != len(set(who)):
        mistakes.append("--remailer: one address twice: give each once")
    if mistakes:
        raise UsageError("\n".join(mistakes))
    _make(Path(directory), render(name, network, address, pairs))


def _host_name() -> str:
    return os.uname().nodename.lower()


def _given_or_asked(value: str | None, flag: str, question: str, default: str) -> str:
    if value is not None:
        return value
    if sys.stdin.isatty() and sys.stderr.isatty():
        answer: str = click.prompt(question, default=default, err=True)
        return answer
    raise UsageError(f"{flag} is not given: add it")


def _check(
    mistakes: list[str], flag: str, check: Callable[[str], str], value: str
) -> str:
    """Give the canonical value, or note what is wrong with it."""
    try:
        return check(value)
    except ValueError as error:
        mistakes.append(f"{flag}: {error}")
        return value


def _pair(mistakes: list[str], text: str) -> tuple[str, str]:
    """Split ADDRESS[=DELIVER]."""
    from mesh.core.names import normalize_address
    from mesh.values import parse_deliver

    match = _REMAILER.fullmatch(text)
    who, deliver = match.group("who", "deliver") if match else (text, None)
    deliver = DEFAULT_DELIVER if deliver is None else deliver

    def check_deliver(value: str) -> str:
        parse_deliver(value, Path())
        return value

    return (
        _check(mistakes, "--remailer", normalize_address, who),
        _check(mistakes, "--remailer", check_deliver, deliver),
    )


def _make(folder: Path, text: str) -> None:
    from mesh.core.crypto import SystemEntropy, signing_public
    from mesh.core.descriptor import fingerprint
    from mesh.node.keys import create_missing, key_path, load_identity

    config = folder / "node.toml"
    state = folder / "state"
    try:
        if os.path.lexists(config):
            raise CannotCreateError(
                f"{config}: there is a node already: edit it, or choose another DIR"
            )
        _make_folders(folder, state)
        kept = create_missing(state, SystemEntropy())
        _link(config, text)
    except OSError as error:
        raise CannotCreateError(
            f"{error.filename or folder}: {error.strerror}: choose another DIR"
        ) from error
    for kind in kept:
        click.echo(f"kept        {key_path(state, kind)}")
    click.echo(f"made        {config}")
    click.echo(f"back up     {key_path(state, 'identity')}")
    click.echo(f"then        mesh export -c {config}")
    click.echo(f"fingerprint {fingerprint(signing_public(load_identity(state)))}")


def _make_folders(folder: Path, state: Path) -> None:
    """All 0700; a folder with something in it keeps the mode that its owner chose."""
    taken = folder.is_dir() and any(folder.iterdir())
    folder.mkdir(parents=True, exist_ok=True)
    if not taken:
        folder.chmod(0o700)
    for inner in (state, state / "spool", folder / "peers.d"):
        inner.mkdir(exist_ok=True)
        inner.chmod(0o700)


def _link(config: Path, text: str) -> None:
    """Whole or not at all, and never over one that came meanwhile."""
    from mesh.node.keys import sync_directory

    aside = config.with_name(f".node.toml.{os.getpid()}")
    try:
        with aside.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, config)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(config.parent)
