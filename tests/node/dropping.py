# SPDX-License-Identifier: MIT
"""What the tests of the drop folder share: a node's half of it, and a sender's."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mesh.cli import dropoff
from mesh.core.crypto import Key
from mesh.core.drop import Mail
from mesh.node import drop as node_drop
from mesh.node import onetime
from mesh.node.drop import Drop
from mesh.node.onetime import OneTimeKeys
from mesh.node.qmgr import QueueManager
from tests.harness import FixedEntropy, Half, half

_starts = itertools.count()
ROUTES = {"you@alpha.test": "local:0"}


def mail(number: int = 0, *, content: bytes = b"") -> Mail:
    return Mail("me@alpha.test", ("you@alpha.test",), content or b"%d\r\n" % number)


def leave(folder: Path, *numbers: int) -> None:
    """Leave messages as mesh-sendmail does."""
    for number in numbers:
        dropoff.drop(str(folder / "drop"), [mail(number)])


def wrapping() -> Key:
    return Key.from_bytes(b"w" * 32)


def make_keys(folder: Path, seed: str = "keys") -> OneTimeKeys:
    return OneTimeKeys.open(folder / "drop.keys", wrapping(), FixedEntropy(seed))


def make_drop(
    folder: Path,
    qmgr: QueueManager,
    *,
    max_message: int = 20_000,
    uids: frozenset[int] | None = None,
) -> Drop:
    return Drop.open(
        folder / "drop",
        folder / "drop.keys",
        wrapping(),
        FixedEntropy(f"drop {next(_starts)}"),  # no key is drawn twice
        qmgr,
        max_message=max_message,
        uids=uids,
    )


@asynccontextmanager
async def taking(
    folder: Path,
    *,
    max_message: int = 20_000,
    uids: frozenset[int] | None = None,
) -> AsyncIterator[tuple[Half, Drop]]:
    """Half a node with its drop folder at work, its time fake."""
    async with half(folder, "alpha", dict(ROUTES)) as alpha:
        drop = make_drop(folder, alpha.qmgr, max_message=max_message, uids=uids)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drop.run)
                yield alpha, drop
                nursery.cancel_scope.cancel()
        finally:
            drop.close()


def names(folder: Path, kind: str) -> list[str]:
    return sorted(path.name for path in (folder / "drop").glob(f"{kind}.*"))


def few_slots(patch: pytest.MonkeyPatch, count: int = 8) -> None:
    """Make the folder small, so that all of it can be looked at."""
    for module in (node_drop, dropoff, onetime):
        patch.setattr(module, "SLOTS", count)
