# SPDX-License-Identifier: MIT
"""node.toml: everything that an operator may set, checked at once.

    table         keys (defaults: the models below)
    [node]        name network listen address state peers postmaster directory
    [local]       socket smtp drop message_bytes
    [[remailer]]  address deliver user                 one table a remailer
    [link]        clock cells_per_second
    [delivery]    exit smarthost routes refuse
    [pool]        kind tick_seconds share delay_seconds min_entropy
                  max_delay_seconds

Paths in it are relative to the file.  Names, endpoints and addresses come out in
their canonical form (core/names.py).  `load` reports every mistake in one
ConfigError, a line each: `file:line: key: what is wrong, what to do`.  Nothing
is ignored.
Nothing here looks beyond the file but to ask whether a `user` exists.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from mesh.core.clock import Clock, class_of
from mesh.core.descriptor import SERVES_MAX
from mesh.core.names import (
    check_name,
    mail_domain,
    normalize_address,
    normalize_endpoint,
    normalize_host,
    parse_endpoint,
)
from mesh.core.pool import Manner
from mesh.errors import ConfigError, NoInputError, NotPermittedError
from mesh.mistakes import (
    LineFinder,
    Place,
    dotted,
    explain,
    explain_syntax,
    explain_unknown,
)
from mesh.values import (
    Target,
    check_clock,
    check_loopback,
    check_pool,
    check_rate,
    check_user,
    optional_endpoint,
    optional_mailbox,
    parse_deliver,
    resolve,
)

CONFIG_NAME: Final = "node.toml"
SYSTEM_CONFIG: Final = Path("/etc/mesh/node.toml")
CONFIG_VARIABLE: Final = "MESH_CONFIG"
# Octets: a hundred times a long one; a device or a wrong file ends here.
CONFIG_MAX_LEN: Final = 1_048_576
# Octets: a row of the spool holds a billion; a larger message would end the node.
MESSAGE_BYTES_MAX: Final = 1 << 28


def _resolve(value: object, info: ValidationInfo[Path]) -> object:
    return resolve(value, info.context)


def _optional_path(value: object, info: ValidationInfo[Path]) -> object:
    return None if value in ("", None) else resolve(value, info.context)


def _deliver(value: object, info: ValidationInfo[Path]) -> Target:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be text")
    return parse_deliver(value, info.context)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else _as_tuple(value)


_Name = Annotated[str, AfterValidator(check_name)]
_Host = Annotated[str, AfterValidator(normalize_host)]
_Endpoint = Annotated[str, AfterValidator(normalize_endpoint)]
_Endpoints = Annotated[tuple[_Endpoint, ...], BeforeValidator(_as_tuple)]
_OptionalEndpoint = Annotated[str, AfterValidator(optional_endpoint)]
_Path = Annotated[Path, BeforeValidator(_resolve)]
_OptionalPath = Annotated[Path | None, BeforeValidator(_optional_path)]
_Address = Annotated[str, AfterValidator(normalize_address)]


class _Model(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, validate_default=True
    )


class Node(_Model):
    """[node]: who this node is and where it listens."""

    name: _Name
    network: _Name = "main"
    listen: _Endpoints = ()
    address: _OptionalEndpoint = ""
    state: _Path = Path("state")
    peers: _Path = Path("peers.d")
    postmaster: Annotated[str, AfterValidator(optional_mailbox)] = ""
    directory: _OptionalPath = None

    @model_validator(mode="before")
    @classmethod
    def _listen_follows_address(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Listen on the address's port on all interfaces where nothing else is said."""
        try:
            port = parse_endpoint(data.get("address", ""))[1]
        except (ValueError, AttributeError):
            return data
        return {"listen": [f"0.0.0.0:{port}", f"[::]:{port}"], **data}


class Local(_Model):
    """[local]: how remailers on this machine hand mail over."""

    socket: _Path = Path("local.sock")
    smtp: Annotated[_Endpoints, AfterValidator(check_loopback)] = ()
    drop: _Path = Path("drop")
    message_bytes: Annotated[int, Field(ge=1, le=MESSAGE_BYTES_MAX)] = 20_971_520


class Remailer(_Model):
    """[[remailer]]: addresses served and where their mail goes."""

    address: Annotated[
        tuple[_Address, ...], BeforeValidator(_one_or_more), Field(min_length=1)
    ]
    deliver: Annotated[Target, PlainValidator(_deliver)]
    user: Annotated[str, AfterValidator(check_user)] = ""


class Link(_Model):
    """[link]: when cells leave."""

    clock: Annotated[Clock, BeforeValidator(check_clock)] = Clock.RENEWAL
    cells_per_second: Annotated[float, AfterValidator(check_rate)] = 1.0

    @property
    def klass(self) -> int:
        """The rate as a class: log2 plus 3."""
        return class_of(self.cells_per_second)


class Delivery(_Model):
    """[delivery]: what happens to mail for nobody's node."""

    exit: bool = True
    smarthost: _OptionalEndpoint = ""
    routes: dict[_Host, _Endpoint] = Field(default_factory=dict)
    refuse: _OptionalPath = None


class Pool(_Model):
    """[pool]: when mail departs by port 25."""

    kind: Annotated[str, BeforeValidator(check_pool)] = "timed"
    tick_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    delay_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    min_entropy: Annotated[float, Field(ge=0, le=16)] = 0.0
    max_delay_seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600.0

    @property
    def manner(self) -> Manner:
        """How the pool mixes."""
        return Manner(self.kind, self.share, self.delay_seconds, self.max_delay_seconds)


class _File(_Model):
    """The whole file; a table that is not there is an empty one."""

    node: Node
    local: Local
    remailer: Annotated[tuple[Remailer, ...], BeforeValidator(_as_tuple)]
    link: Link
    delivery: Delivery
    pool: Pool


_TABLES: Final[Mapping[str, type[_Model]]] = {
    "node": Node,
    "local": Local,
    "remailer": Remailer,
    "link": Link,
    "delivery": Delivery,
    "pool": Pool,
}


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

    NoInputError, NotPermittedError, or ConfigError with a line a mistake.
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
    checked = {name: [] if name == "remailer" else {} for name in _TABLES} | data
    mistakes: list[tuple[Place, str]] = []
    try:
        file = _File.model_validate(checked, context=path.parent.absolute())
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
        known = {name: model.model_fields for name, model in _TABLES.items()}
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
