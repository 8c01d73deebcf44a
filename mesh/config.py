# SPDX-License-Identifier: MIT
"""node.toml: everything that an operator may set (tables.py), checked at once.

Paths in it are relative to the file.  `load` reports every mistake in one
ConfigError, a line each: `file:line: key: what is wrong, what to do`.  Nothing is
ignored.  Nothing here looks beyond the file but to ask whether a `user` exists.
"""

import errno
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import (
    ValidationError,
)
from pydantic_core import ErrorDetails

from mesh.core.descriptor import SERVES_MAX
from mesh.core.names import (
    mail_domain,
    normalize_address,
)
from mesh.errors import ConfigError, IoError, NoInputError, NotPermittedError
from mesh.mistakes import (
    LineFinder,
    Place,
    dotted,
    explain,
    explain_syntax,
    explain_unknown,
)
from mesh.tables import (
    TABLES,
    Delivery,
    File,
    Link,
    Local,
    Node,
    Pool,
    Remailer,
)

CONFIG_NAME: Final = "node.toml"
SYSTEM_CONFIG: Final = Path("/etc/mesh/node.toml")
CONFIG_VARIABLE: Final = "MESH_CONFIG"
# Octets: a hundred times a long one; a device or a wrong file ends here.
CONFIG_MAX_LEN: Final = 1_048_576
_DISK_ERRORS: Final = frozenset(
    (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
)
"""What a file that is there may bring about."""


@dataclass(frozen=True)
class Config:
    """A node.toml that holds; the tables are attributes of the same names."""

    path: Path
    node: Node
    local: Local
    remailer: tuple[Remailer, ...]
    link: Link
    delivery: Delivery
    pool: Pool

    @property
    def state_dir(self) -> Path:
        """Keys, spool, control socket."""
        return self.node.state

    @property
    def peers_dir(self) -> Path:
        """One descriptor a peer."""
        return self.node.peers

    @property
    def socket_path(self) -> Path:
        """Where remailers hand mail over."""
        return self.local.socket

    @property
    def serves(self) -> tuple[str, ...]:
        """All addresses that the remailers here have, sorted, for the descriptor."""
        return tuple(sorted(a for remailer in self.remailer for a in remailer.address))

    def own_addresses(self) -> dict[str, int]:
        """Each address served here and its remailer's index.

        With a remailer there is a postmaster too (RFC 5321 4.5.1): bare, and at the
        address's host; the first remailer gets it where no other is named.
        """
        own = {a: i for i, one in enumerate(self.remailer) for a in one.address}
        if self.remailer:
            index = own.get(self.node.postmaster, 0)
            for name in self._postmasters():
                own.setdefault(name, index)
        return own

    def aliases(self) -> dict[str, str]:
        """Each address here that stands for one elsewhere: a postmaster's."""
        own = {a for one in self.remailer for a in one.address}
        if not self.node.postmaster or self.node.postmaster in own:
            return {}
        return {a: self.node.postmaster for a in self._postmasters() if a not in own}

    def _postmasters(self) -> list[str]:
        host = self.node.address.rpartition(":")[0]
        bare = "postmaster"
        return [bare, f"{bare}@{mail_domain(host)}"] if host else [bare]


def find_config(option: str | None) -> Path:
    """Find the file: -c, $MESH_CONFIG, ./node.toml, /etc/mesh/node.toml.

    A file that was named must be there; NoInputError says what was looked for.
    """
    named = option or os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    for path in (Path(CONFIG_NAME), SYSTEM_CONFIG):
        if path.exists():
            return path
    raise NoInputError(
        f"no {CONFIG_NAME} here nor in {SYSTEM_CONFIG.parent}: "
        "name one with -c FILE, or make one with `mesh init`"
    )


def load(path: Path) -> Config:
    """Read and check the file.

    NoInputError, NotPermittedError, IoError, or ConfigError with a line a mistake.
    """
    return parse(_read(path), path)


def parse(text: str, path: Path) -> Config:
    """Check the text of the file at `path`; ConfigError with a line a mistake."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, what = explain_syntax(str(error), text)
        raise ConfigError(f"{path}:{line}: {what}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}:1: lists in lists without end: undo them") from error
    checked = {name: [] if name == "remailer" else {} for name in TABLES} | data
    mistakes: list[tuple[Place, str]] = []
    try:
        file = File.model_validate(checked, context=path.parent.absolute())
    except ValidationError as error:
        mistakes = [_mistake(detail) for detail in error.errors(include_url=False)]
        file = None
    mistakes.extend(_contradictions(checked))
    if file is None or mistakes:
        raise ConfigError(_report(path, text, mistakes))
    return Config(
        path,
        file.node,
        file.local,
        file.remailer,
        file.link,
        file.delivery,
        file.pool,
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(CONFIG_MAX_LEN + 1)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise NotPermittedError(
                f"{path}: {error.strerror}: be the node's own user"
            ) from error
        if error.errno in _DISK_ERRORS:  # it is there, for all that we know
            raise IoError(f"{path}: {error.strerror}: see to the disk") from error
        advice = "name the node.toml with -c or $MESH_CONFIG"
        if isinstance(error, IsADirectoryError):
            advice = "did you mean its node.toml?"
        raise NoInputError(f"{path}: {error.strerror}: {advice}") from error
    if len(octets) > CONFIG_MAX_LEN:
        raise ConfigError(f"{path}:1: more than 1 MiB: this is no {CONFIG_NAME}")
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8: save the file so") from error


def _mistake(detail: ErrorDetails) -> tuple[Place, str]:
    """One finding of pydantic in our words."""
    place = tuple(part for part in detail["loc"] if part != "[key]")
    if detail["type"] == "extra_forbidden":
        table = str(place[0]) if len(place) > 1 else ""
        known = {name: model.model_fields for name, model in TABLES.items()}
        return place, explain_unknown(str(place[-1]), table, known)
    if place == ("remailer",):
        return place, "must be a list of tables: write [[remailer]], two brackets"
    return place, explain(detail["type"], detail["msg"], detail.get("ctx", {}))


def _contradictions(data: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Find what no single value is wrong about; on raw data, so that all is told."""
    seen: set[str] = set()
    for place, address in _raw_addresses(data["remailer"]):
        if address in seen:
            yield place, f"{address} stands here twice: one address, one remailer"
        seen.add(address)
    if len(seen) > SERVES_MAX:
        yield ("remailer",), f"more than {SERVES_MAX} addresses: run a second node"
    tables = (data[name] for name in ("local", "node"))
    local, node = (table if isinstance(table, dict) else {} for table in tables)
    if local.get("smtp") and _all_are_named(data["remailer"]):
        what = "a port cannot tell who speaks: leave a remailer's `user` empty, or smtp"
        yield ("local", "smtp"), what
    postmaster = node.get("postmaster")
    if isinstance(postmaster, str) and postmaster.lower().startswith("postmaster@"):
        yield (
            ("node", "postmaster"),
            "is a postmaster itself, and the two could send to each other for ever: "
            "name somebody's own address",
        )


def _all_are_named(remailers: object) -> bool:
    return isinstance(remailers, list) and all(
        isinstance(table, dict) and table.get("user") for table in remailers
    )


def _raw_addresses(remailers: object) -> Iterator[tuple[Place, str]]:
    """Each well-formed address of the raw [[remailer]] tables, with its place."""
    for index, table in enumerate(remailers if isinstance(remailers, list) else []):
        given = table.get("address") if isinstance(table, dict) else None
        for address in given if isinstance(given, list) else [given]:
            if isinstance(address, str):
                with suppress(ValueError):
                    yield ("remailer", index, "address"), normalize_address(address)


def _report(path: Path, text: str, mistakes: list[tuple[Place, str]]) -> str:
    """One line a mistake, in the file's order."""
    lines = LineFinder(text)
    found = sorted({(lines.of(place), dotted(place), what) for place, what in mistakes})
    return "\n".join(f"{path}:{line}: {key}: {what}" for line, key, what in found)
