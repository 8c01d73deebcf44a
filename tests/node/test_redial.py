# SPDX-License-Identifier: MIT
"""A dialer and a peer that proves itself, and whose links never come up."""

from pathlib import Path

import trio
from trio.testing import MockClock

from tests.harness import until
from tests.node.ends import keys_of
from tests.node.test_dialer import both, listening


async def test_a_link_that_never_came_up_is_a_failed_dial(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with (
        both(tmp_path) as (alpha, bravo, nursery),
        listening(bravo, nursery) as address,
    ):
        proofs: list[float] = []
        save = bravo.counters.save

        def noting(statement: bytes) -> None:
            proofs.append(trio.from_thread.run_sync(trio.current_time))
            save(statement)

        bravo.counters.save = noting  # type: ignore[method-assign]
        bravo.half.exchange.closing = True  # after each handshake it hangs up
        nursery.start_soon(alpha.dialer.keep, keys_of("bravo"), lambda: address)
        await trio.sleep(600)
        assert 600 / 35 < len(proofs) < 80  # one each half minute, once it waits so
        assert proofs[-1] - proofs[-2] > 6
        bravo.half.exchange.closing = False
        await until(lambda: alpha.up("bravo") and bravo.up("alpha"), seconds=60)
        nursery.cancel_scope.cancel()
