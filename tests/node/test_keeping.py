# SPDX-License-Identifier: MIT
"""Peers kept as the directory says: hundreds that come and go, and at once."""

import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.core.document import Document
from mesh.node.keeping import LOOK_SECONDS, STRETCH
from mesh.node.routing import UNROUTED
from mesh.node.spool import Ref
from tests.descriptors import DAY, signed
from tests.directories import directory
from tests.harness import until
from tests.node.homes import Home, running

pytestmark = pytest.mark.usefixtures("small")

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


def waiting(home: Home, name: str) -> int:
    queue = home.node._qmgr.queues.get(name)
    return len(queue.ready) if queue else 0


async def test_only_mail_whose_address_moved_is_routed_anew(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that renews itself each second would have all that waits read each time."""
    facts = {"not_before": NOW - DAY, "not_after": NOW + 9 * DAY}
    bravo, carol = signed("bravo", **facts), signed("carol", **facts)
    first = directory(nodes=[bravo, carol], now=NOW)
    renewed = signed("carol", serial=8, **facts)
    second = directory(first, [bravo, renewed], now=NOW)
    moved = signed("carol", serial=9, serves=("new@carol.test",), **facts)
    third = directory(second, [bravo, moved], now=NOW)
    again = signed("bravo", serial=8, **facts)
    fourth = directory(third, [again, moved], now=NOW)
    alpha = Home(tmp_path, "alpha")
    async with running(alpha):
        await adopt(alpha, first)
        await until(lambda: len(alpha.node._keeping._kept) == 2)
        for name in ("bravo", "carol"):
            assert await alpha.submit(f"mix@{name}.test") == [250, 250]
        await until(lambda: waiting(alpha, "bravo") == waiting(alpha, "carol") == 1)
        anew: list[object] = []
        lead_back = alpha.node._qmgr.lead_back

        def spied(refs: Iterable[Ref]) -> None:
            found = list(refs)
            anew.extend(found)
            lead_back(found)

        monkeypatch.setattr(alpha.node._qmgr, "lead_back", spied)
        (ref,) = alpha.node._qmgr.queue("carol").ready
        await adopt(alpha, second)
        peers = alpha.node._peers
        await until(lambda: peers.snapshot.by_name["carol"].descriptor.serial == 8)
        await trio.sleep(2 * LOOK_SECONDS)
        assert anew == []
        await adopt(alpha, third)
        await until(lambda: not waiting(alpha, "carol"))
        await trio.sleep(2 * LOOK_SECONDS)
        assert anew == [ref]
        assert waiting(alpha, "bravo") == 1
        assert waiting(alpha, UNROUTED) == 1
        await adopt(alpha, fourth)  # moves nothing, but of this one days decide, too
        await until(lambda: anew == [ref, ref])


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
