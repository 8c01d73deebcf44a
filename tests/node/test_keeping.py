# SPDX-License-Identifier: MIT
"""Peers kept as the directory says: hundreds that come and go, and at once."""

import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.document import Document
from mesh.node.keeping import LOOK_SECONDS, STRETCH
from tests.descriptors import DAY, signed
from tests.directories import directory
from tests.harness import until
from tests.node.homes import Home, running

NOW = int(time.time())
MANY = [
    signed(f"n{i:03}", addresses=(), not_before=NOW - DAY, not_after=NOW + 9 * DAY)
    for i in range(3 * STRETCH + 1)
]
FIRST = directory(nodes=MANY, now=NOW)
SECOND = directory(FIRST, MANY[: STRETCH // 2], now=NOW)
THIRD = directory(SECOND, [signed("n000", seed="other", addresses=(),
                                  not_before=NOW - DAY, not_after=NOW + 9 * DAY)],
                  now=NOW)  # fmt: skip


async def adopt(home: Home, document: Document) -> None:
    """As a peer would bring it, in a thread; an operator begins with it."""

    def work() -> None:
        registry = home.node._registry
        outcome = registry.consider_document(document, "x", time.time(), begin=True)
        assert outcome.changed, outcome

    await trio.to_thread.run_sync(work)


async def test_hundreds_come_and_go(tmp_path: Path, autojump_clock: MockClock) -> None:
    alpha = Home(tmp_path, "alpha")
    async with running(alpha):
        keeping = alpha.node._keeping
        await adopt(alpha, FIRST)
        await until(lambda: len(keeping._kept) == len(MANY), seconds=2)
        scopes = {name: kept.scope for name, kept in keeping._kept.items()}
        await adopt(alpha, SECOND)
        await until(lambda: len(keeping._kept) == STRETCH // 2, seconds=2)
        assert all(kept.scope is scopes[n] for n, kept in keeping._kept.items())
        assert sum(scope.cancel_called for scope in scopes.values()) == (
            len(MANY) - STRETCH // 2
        )
        await adopt(alpha, THIRD)
        await until(lambda: len(keeping._kept) == 1, seconds=2)
        assert keeping._kept["n000"].scope is not scopes["n000"]


async def test_an_adoption_is_not_waited_for(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry wakes whoever keeps links: no look at the next second is needed."""
    alpha = Home(tmp_path, "alpha")
    async with running(alpha):
        await trio.sleep(0.25 * LOOK_SECONDS)
        began = trio.current_time()
        await adopt(alpha, SECOND)
        await until(lambda: alpha.node._keeping._kept, seconds=2)
        assert trio.current_time() - began < LOOK_SECONDS / 2
        assert alpha.node._peers.snapshot.by_signers == {
            one.name for one in MANY[: STRETCH // 2]
        }
