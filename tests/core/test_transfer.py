# SPDX-License-Identifier: MIT
"""A message under way knows what to say of each recipient."""

from mesh.core.reply import NO_ROOM, NO_SUCH_RECIPIENT, OK, TRY_LATER
from mesh.core.transfer import Finished, Outgoing, Step, Transfer


def test_each_recipient_gets_its_own_then_the_failure_then_the_last_word() -> None:
    outgoing = Outgoing("token", "from@a", ("x@b", "y@b"), b"")
    transfer = Transfer(outgoing, [None, NO_SUCH_RECIPIENT])
    assert transfer.finished(OK) == Finished("token", (OK, NO_SUCH_RECIPIENT))
    transfer.failure = NO_ROOM
    assert transfer.finished(TRY_LATER) == Finished(
        "token", (NO_ROOM, NO_SUCH_RECIPIENT)
    )


def test_steps_are_keys() -> None:
    assert len({step: step.value for step in Step}) == len(Step)
