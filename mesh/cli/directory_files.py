# SPDX-License-Identifier: MIT
"""What the sub-verbs of `mesh directory` share: files in and out, and this node.

in    a regular file, or whatever FILE names, "-" for standard input; bounded
out   standard output, or a file that appears whole or not at all, through links; a
device or a FIFO is written to as it stands
"""

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

import click

from mesh.cli.options import load_config, named_config
from mesh.errors import CannotCreateError, IoError, NoInputError, NotPermittedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh.config import Config
    from mesh.core.crypto import Key
    from mesh.core.document import Document
    from mesh.node.archive import Archive
    from mesh.node.peers import Snapshot
    from mesh.node.registry import Registry

F = TypeVar("F", bound="Callable[..., Any]")

FILE_NAME: Final = "directory.mesh"
"""Under which it is published in a folder."""
PUBLIC_MODE: Final = 0o644
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


@dataclass(frozen=True)
class Node:
    """Our node as far as the directory goes; it may run meanwhile."""

    config: "Config"
    identity: "Key"
    registry: "Registry"
    archive: "Archive"
    snapshot: "Snapshot"

    def notices(self, now: float) -> list[str]:
        """What the operator should know, a line each."""
        return [*self.registry.notices(now), *self.look().mistakes]

    def look(self) -> "Snapshot":
        """All peers, by hand and of the directory in force now."""
        return _peers(self.config, self.registry)


@overload
def open_node(now: float, *, needed: Literal[True] = True) -> Node: ...
@overload
def open_node(now: float, *, needed: bool) -> Node | None: ...
def open_node(now: float, *, needed: bool = True) -> Node | None:
    """The node of this command line; None without one where none is needed."""
    try:
        config = load_config()
    except NoInputError:
        if needed or named_config() is not None:
            raise
        return None
    from mesh.core.crypto import signing_public
    from mesh.core.directory import Us
    from mesh.node.archive import Archive
    from mesh.node.keys import load_identity
    from mesh.node.registry import Registry

    identity = load_identity(config.state_dir)
    us = Us(
        config.node.name,
        config.node.network,
        config.own_addresses(),
        signing_public(identity),
    )
    registry = Registry.open(config.state_dir, us, now)
    snapshot = _peers(config, registry)
    return Node(config, identity, registry, Archive(config.state_dir), snapshot)


def _peers(config: "Config", registry: "Registry") -> "Snapshot":
    from mesh.node.peers import Peers

    peers = Peers(config.peers_dir, registry.us, registry)
    peers.poll()
    return peers.snapshot


def read_document(file: str) -> "Document":
    """The directory in a file; NoInputError, NotPermittedError, DirectoryError."""
    from mesh.core.document import TEXT_MAX_LEN, parse_untrusted

    octets = read_file(file, TEXT_MAX_LEN, "a directory")
    return parse_untrusted(octets.decode("ascii", "replace"), file)


def read_file(file: str, max_len: int, what: str) -> bytes:
    """No more of a file than one octet over the limit."""
    try:
        with click.open_file(file, "rb") as stream:
            return bytes(stream.read(max_len + 1))
    except OSError as error:
        kind = NotPermittedError if isinstance(error, PermissionError) else NoInputError
        raise kind(
            f"{file or 'an empty name'}: {error.strerror}: name a file with {what}"
        ) from error


def output_option(command: F) -> F:
    """Add -o / --output to a command."""
    return click.option(
        "-o", "--output", metavar="FILE", help="Write here; else standard output."
    )(command)


def write(text: str, output: str | None) -> None:
    """Write to a file whole or not at all, or to standard output."""
    if output is None or output == "-":
        click.echo(text, nl=False)
        return
    path = Path(output)
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_text(text, encoding="ascii")  # a device, a FIFO
    else:
        _replace(path, text)


def put(path: str, text: str) -> Path:
    """Write for everybody to read; into a folder under its usual name."""
    where = Path(path)
    if where.is_dir():
        where /= FILE_NAME
    if where.exists() and not where.is_file():
        raise CannotCreateError(f"{where}: not a regular file: name another")
    _replace(where, text)
    return where


def _replace(path: Path, text: str) -> None:
    from mesh.node.whole import replace

    try:
        replace(path.resolve(), text.encode("ascii"), PUBLIC_MODE)
    except OSError as error:
        kind = IoError if error.errno in _FULL else CannotCreateError
        raise kind(f"{path}: {error.strerror}: name another place") from error
    except RuntimeError as error:  # links in a circle
        raise CannotCreateError(f"{path}: a link to itself: name another") from error


def say(line: str) -> None:
    """Tell the operator; standard output is for directories."""
    click.echo(f"mesh: {line}", err=True)
