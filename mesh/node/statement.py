# SPDX-License-Identifier: MIT
"""Our own descriptor: signed anew when node.toml, or half of its year, has passed on.

    state/descriptor        the last one, armoured
    state/descriptor.lock   held (flock) while one is made

    who signs           what it says                       when
    current   (export)    node.toml, as it is now          that has changed
    sign      (withdraw)  the same, and the hour           that has changed
    renewed   (run)       node.toml, as the node runs it   ours is no more so

and each of them when half of the validity is over.  The link keys are those in force;
the hour of leaving is the last one said, until `sign` is given another.

The same facts give the same text until then, so that asking twice does not make a new
statement.  A serial is one more than the last, and at least YYYYMMDD00 of the day: a
node restored without state/descriptor is not taken for older than itself.  The validity
begins a day early, for clocks that are wrong, and at midnight, so that it does not say
at what hour the operator worked.

A running node tells its peers what it does, and not what an edited node.toml will have
it do after its next start: mail for an address that it does not serve yet would bounce.

No lock of the running node is touched: this works with the node up or down.
"""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mesh.config import Config
from mesh.core.clock import Clock
from mesh.core.crypto import Key, signing_public, x25519_public
from mesh.core.descriptor import (
    BOX_MAX_LEN,
    Descriptor,
    armour,
    create,
    parse_untrusted,
)
from mesh.errors import DescriptorError, IoError
from mesh.node.keys import LOCK_NAME, load_identity, load_link_keys
from mesh.node.whole import locked
from mesh.node.whole import replace as replace_file

LINK_VERSIONS: Final = (1,)
DAY_SECONDS: Final = 86_400
VALIDITY_SECONDS: Final = 365 * DAY_SECONDS
"""A year: where no directory is shared, renewing is work for two people by hand."""
_FILE_MAX_LEN: Final = 4 * BOX_MAX_LEN
"""Octets of our descriptor's file: base64, and the same in readable lines."""


def current(config: Config, now: float) -> str:
    """Give the armoured descriptor of what node.toml says.

    Raises ConfigError for a bad key file, DescriptorError for a damaged
    state/descriptor, CannotCreateError or IoError for the disk.
    """
    return armour(sign(config, now))


def sign(config: Config, now: float, *, leaves: int | None = None) -> Descriptor:
    """Say also at which UNIX second we leave; 0: we stay; None: as said last."""
    with locked(config.state_dir / LOCK_NAME):
        identity = load_identity(config.state_dir)
        last = _last(config.state_dir, signing_public(identity))
        draft = _draft(config, signing_public(identity), last, now)
        if leaves is not None:
            draft = replace(draft, leaves=leaves)
        if last and _is_current(last, draft, now):
            return last
        return _sign(config.state_dir, draft, last, identity)


def renewed(config: Config, now: float, ours: Descriptor | None) -> Descriptor:
    """Give what a node that runs by this config says; `ours` is what it said before."""
    with locked(config.state_dir / LOCK_NAME):
        identity = load_identity(config.state_dir)
        last = _last(config.state_dir, signing_public(identity))
        draft = _draft(config, signing_public(identity), last, now)
        for said in (last, ours):
            if said and _is_current(said, draft, now):
                return said
        return _sign(config.state_dir, draft, last, identity)


def last_said(config: Config) -> Descriptor | None:
    """Give what was signed last, by whom of these three it be."""
    identity = signing_public(load_identity(config.state_dir))
    return _last(config.state_dir, identity)


def _sign(
    state: Path, draft: Descriptor, last: Descriptor | None, identity: Key
) -> Descriptor:
    serial = max(draft.serial, last.serial + 1 if last else 0)
    text = create(replace(draft, serial=serial), identity)
    _write(path_of(state), text)
    return parse_untrusted(text)[0]


def path_of(state: Path) -> Path:
    """Where the last one lies."""
    return state / "descriptor"


def _draft(
    config: Config, identity: bytes, last: Descriptor | None, now: float
) -> Descriptor:
    link_keys = load_link_keys(config.state_dir)
    greedy = config.link.clock is Clock.GREEDY
    start = int(now) // DAY_SECONDS * DAY_SECONDS - DAY_SECONDS
    return Descriptor(
        name=config.node.name,
        network=config.node.network,
        identity=identity,
        link_keys=tuple(x25519_public(key) for key in link_keys),
        addresses=(config.node.address,) if config.node.address else (),
        serves=config.serves,
        clock=config.link.clock,
        klass=config.link.klass,
        versions=LINK_VERSIONS,
        insecure=("greedy clock",) if greedy else (),
        serial=int(f"{datetime.fromtimestamp(now, UTC):%Y%m%d}00"),
        not_before=start,
        not_after=start + DAY_SECONDS + VALIDITY_SECONDS,
        leaves=last.leaves if last else 0,
    )


def _is_current(last: Descriptor, draft: Descriptor, now: float) -> bool:
    """Whether the last one says the same and holds for half its time yet."""
    facts = replace(
        draft, serial=last.serial, not_before=last.not_before, not_after=last.not_after
    )
    return facts == last and is_fresh(last, now)


def is_fresh(descriptor: Descriptor, now: float) -> bool:
    """Say whether one of ours needs no new date yet."""
    half = descriptor.not_after - VALIDITY_SECONDS // 2
    return descriptor.not_before <= now < half


def _open(path: str, flags: int) -> int:
    """Open without waiting for anybody at the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _last(state: Path, identity: bytes) -> Descriptor | None:
    """Read what this identity said last."""
    path = path_of(state)
    try:
        with open(path, encoding="ascii", errors="replace", opener=_open) as file:
            found = parse_untrusted(file.read(_FILE_MAX_LEN), str(path))[0]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IoError(f"{path}: {error.strerror}") from error
    except DescriptorError as error:
        raise DescriptorError(
            f"{path}: damaged: remove it, then export again"
        ) from error
    return found if found.identity == identity else None


def _write(path: Path, text: str) -> None:
    """Replace the file whole or not at all."""
    try:
        replace_file(path, text.encode("ascii"))
    except OSError as error:
        raise IoError(f"{path}: {error.strerror}") from error
