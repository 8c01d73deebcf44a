# SPDX-License-Identifier: MIT
"""Checks of single values of node.toml: a good one, canonical, or a ValueError.

A check passes on what is of another type than it expects, untouched, because the
model (config.py) says that in its own words.  No pydantic here: `mesh init` checks its flags with the same rules.
"""

import ipaddress
import pwd
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mesh.core.alarm import AFTER_HOLD
from mesh.core.clock import Clock, class_of
from mesh.core.names import normalize_address, normalize_endpoint, parse_endpoint
from mesh.core.pool import KINDS
from mesh.mistakes import suggest


@dataclass(frozen=True)
class Maildir:
    """Deliver by writing a file into a Maildir."""

    path: Path


@dataclass(frozen=True)
class LmtpSocket:
    """Deliver by LMTP over a UNIX socket."""

    path: Path


@dataclass(frozen=True)
class LmtpHost:
    """Deliver by LMTP over TCP; an IPv6 host stands without brackets."""

    host: str
    port: int


@dataclass(frozen=True)
class Pipe:
    """Deliver into a program; a name without a slash is looked for in its PATH."""

    argv: tuple[str, ...]


Target: TypeAlias = Maildir | LmtpSocket | LmtpHost | Pipe
"""Where a remailer's mail goes."""


def resolve(value: object, base: Path) -> object:
    """Resolve a path relative to the folder of the file that names it."""
    if not isinstance(value, str | Path):
        return value
    if value == "" or not str(value).isprintable():
        raise ValueError(f"{value!a} is no path: write one, relative to this file")
    return base / value


def _choice(value: object, what: str, known: Sequence[str]) -> object:
    """Refuse a word that is not known."""
    if not isinstance(value, str):
        return value
    if value not in known:
        raise ValueError(f"no {what} {value!a}: {suggest(value, known)}")
    return value


def check_clock(value: object) -> object:
    """Turn a clock's name into a Clock."""
    if isinstance(value, Clock):
        return value
    names = [clock.name.lower() for clock in Clock]
    word = _choice(value, "clock", names)
    return Clock[word.upper()] if isinstance(word, str) else value


def check_pool(value: object) -> object:
    """Let pass the kinds of pool."""
    return _choice(value, "pool", KINDS)


def check_after_hold(value: object) -> object:
    """Let pass what may follow the longest hold."""
    return _choice(value, "after_hold", AFTER_HOLD)


def check_rate(value: float) -> float:
    """Let pass the rates that are a class."""
    try:
        class_of(value)
    except ValueError:
        raise ValueError(
            f"{value:g} is no rate: write a power of two from 0.125 to 4096"
        ) from None
    return value


def check_loopback(value: tuple[str, ...]) -> tuple[str, ...]:
    """Let pass endpoints of this machine's own: mail is taken from nobody else."""
    for endpoint in value:
        host, _ = parse_endpoint(endpoint)
        try:
            loopback = ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(
                f"{endpoint} is not loopback: write 127.0.0.1:PORT or [::1]:PORT"
            )
    return value


def parse_deliver(value: str, base: Path) -> Target:
    """Read a `deliver` value, paths relative to `base`; raises ValueError."""
    scheme, _, rest = value.partition(":")
    known = {"maildir", "lmtp", "pipe"}
    if scheme not in known or not rest.strip() or not rest.isprintable():
        raise ValueError(
            f"{value!a} is no delivery: write maildir:PATH, lmtp:/PATH, "
            "lmtp:HOST:PORT or pipe:/PROGRAM"
        )
    if scheme == "pipe":
        return Pipe(_split_command(rest, base))
    if scheme == "maildir":
        return Maildir(base / rest)
    if "/" in rest:
        return LmtpSocket(base / rest)
    return LmtpHost(*parse_endpoint(rest))


def _split_command(text: str, base: Path) -> tuple[str, ...]:
    """Split a command as a shell would; its program relative to `base` if to anything."""
    try:
        program, *arguments = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!a} cannot be split: {error}") from None
    if "/" in program:
        program = str(base / program)
    if not program:
        raise ValueError(f"{text!a} names no program: write pipe:/PATH ARGUMENTS")
    return (program, *arguments)


def check_user(value: str) -> str:
    """Let pass a user that this machine has, or none."""
    if value:
        try:
            pwd.getpwnam(value)
        except KeyError:
            raise ValueError(
                f"this machine has no user {value!a}: create it, or leave it empty"
            ) from None
    return value


def optional_endpoint(value: str) -> str:
    """Give the canonical HOST:PORT, or nothing."""
    return value and normalize_endpoint(value)


def optional_mailbox(value: str) -> str:
    """Give a canonical address of one mailbox, or nothing."""
    address = value and normalize_address(value)
    if address.startswith("@"):
        raise ValueError("must be one mailbox: write user@example.net")
    return address
