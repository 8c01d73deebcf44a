# SPDX-License-Identifier: MIT
"""Our own descriptor: signed anew when node.toml, or half of its year, has passed on.

    state/descriptor        the last one, armoured
    state/descriptor.lock   held (flock) while one is made

The same facts give the same text until half of the validity is over, so that asking
twice does not make a new statement.  A serial is one more than the last, and at least
YYYYMMDD00 of the day: a node restored without state/descriptor is not taken for older
than itself.  The validity begins a day early, for clocks that are wrong, and at
midnight, so that it does not say at what hour the operator worked.

No lock of the running node is touched: this works with the node up or down.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mesh.config import Config
from mesh.core.clock import Clock
from mesh.core.crypto import signing_public, x25519_public
from mesh.core.descriptor import Descriptor, armour, create, parse_untrusted
from mesh.errors import CannotCreateError, DescriptorError, IoError
from mesh.node.keys import load_identity, load_link_keys, sync_directory

LINK_VERSIONS: Final = (1,)
DAY_SECONDS: Final = 86_400
VALIDITY_SECONDS: Final = 365 * DAY_SECONDS
"""A year: until directories are shared, renewing is work for two people by hand."""


def current(config: Config, now: float) -> str:
    """Give the armoured descriptor of what node.toml says.

    Raises ConfigError for a bad key file, DescriptorError for a damaged
    state/descriptor, CannotCreateError or IoError for the disk.
    """
    identity = load_identity(config.state_dir)
    path = config.state_dir / "descriptor"
    with _locked(path.with_name("descriptor.lock")):
        last = _last(path)
        draft = _draft(config, signing_public(identity), now)
        if last and last.identity != draft.identity:
            last = None
        if last and _is_current(last, draft, now):
            return armour(last)
        serial = max(draft.serial, last.serial + 1 if last else 0)
        text = create(replace(draft, serial=serial), identity)
        _write(path, text)
    return text


def _draft(config: Config, identity: bytes, now: float) -> Descriptor:
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
    )


def _is_current(last: Descriptor, draft: Descriptor, now: float) -> bool:
    """Whether the last one says the same and holds for half its time yet."""
    facts = replace(
        draft, serial=last.serial, not_before=last.not_before, not_after=last.not_after
    )
    return facts == last and last.not_before <= now < last.not_after - (
        VALIDITY_SECONDS // 2
    )


def _last(path: Path) -> Descriptor | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IoError(f"{path}: {error.strerror}") from error
    try:
        return parse_untrusted(text, str(path))[0]
    except DescriptorError as error:
        raise DescriptorError(
            f"{path}: damaged: remove it, then export again"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CannotCreateError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, text: str) -> None:
    """Replace the file whole or not at all."""
    aside = path.with_name(".descriptor.new")
    try:
        aside.unlink(missing_ok=True)
        with aside.open("x", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise IoError(f"{path}: {error.strerror}") from error
