# SPDX-License-Identifier: MIT
"""The tables of node.toml as models: keys, defaults, limits.

    table         keys
    [node]        name network listen address state peers postmaster directory
    [local]       socket smtp drop message_bytes
    [[remailer]]  address deliver user                 one table a remailer
    [link]        clock cells_per_second
    [delivery]    exit smarthost routes refuse
    [pool]        kind tick_seconds share delay_seconds min_entropy max_delay_seconds

Names, endpoints and addresses come out in their canonical form (core/names.py), paths
relative to the folder that validation gets as its context.  What a value may be is
values.py's; config.py reads the file and says what is wrong with it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mesh.core.clock import Clock, class_of
from mesh.core.names import (
    check_name,
    normalize_address,
    normalize_endpoint,
    normalize_host,
    parse_endpoint,
)
from mesh.core.pool import Manner
from mesh.values import (
    Target,
    check_after_hold,
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


class Table(BaseModel):
    """What all have: no unknown key, no other type, no change."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, validate_default=True
    )


class Node(Table):
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


class Local(Table):
    """[local]: how remailers on this machine hand mail over."""

    socket: _Path = Path("local.sock")
    smtp: Annotated[_Endpoints, AfterValidator(check_loopback)] = ()
    drop: _Path = Path("drop")
    message_bytes: Annotated[int, Field(ge=1, le=MESSAGE_BYTES_MAX)] = 20_971_520


class Remailer(Table):
    """[[remailer]]: addresses served and where their mail goes."""

    address: Annotated[
        tuple[_Address, ...], BeforeValidator(_one_or_more), Field(min_length=1)
    ]
    deliver: Annotated[Target, PlainValidator(_deliver)]
    user: Annotated[str, AfterValidator(check_user)] = ""


class Link(Table):
    """[link]: when cells leave."""

    clock: Annotated[Clock, BeforeValidator(check_clock)] = Clock.RENEWAL
    cells_per_second: Annotated[float, AfterValidator(check_rate)] = 1.0

    @property
    def klass(self) -> int:
        """The rate as a class: log2 plus 3."""
        return class_of(self.cells_per_second)


class Delivery(Table):
    """[delivery]: what happens to mail for nobody's node."""

    exit: bool = True
    smarthost: _OptionalEndpoint = ""
    routes: dict[_Host, _Endpoint] = Field(default_factory=dict)
    refuse: _OptionalPath = None


class Pool(Table):
    """[pool]: when mail departs by port 25."""

    kind: Annotated[str, BeforeValidator(check_pool)] = "timed"
    tick_seconds: Annotated[float, Field(gt=0, le=3600)] = 10.0
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    delay_seconds: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    min_entropy: Annotated[float, Field(ge=0, le=16)] = 0.0
    max_delay_seconds: Annotated[float, Field(gt=0, le=86_400)] = 3600.0
    heartbeats: bool = False
    after_hold: Annotated[str, BeforeValidator(check_after_hold)] = "release"

    @property
    def manner(self) -> Manner:
        """How the pool mixes."""
        return Manner(self.kind, self.share, self.delay_seconds, self.max_delay_seconds)


class File(Table):
    """The whole file; a table that is not there is an empty one."""

    node: Node
    local: Local
    remailer: Annotated[tuple[Remailer, ...], BeforeValidator(_as_tuple)]
    link: Link
    delivery: Delivery
    pool: Pool


TABLES: Final[Mapping[str, type[Table]]] = {
    "node": Node,
    "local": Local,
    "remailer": Remailer,
    "link": Link,
    "delivery": Delivery,
    "pool": Pool,
}
