# SPDX-License-Identifier: MIT
"""The one thread that waits for the disk, so that the Trio thread never does.

    Trio thread                          writer thread
    submit(job, done) ── queue ────────▶ job()           long C calls, no lock held
    done(result, error) ◀─ run_sync_soon                 one wake-up a job

Jobs run one at a time in the order in which they came.  A job that fails with
SpoolFullError has changed nothing and the next one runs.  After any other failure no
job runs any more: what the disk holds is in doubt, and the process must end and
recover.  Each later job fails with the same error.

The thread is a daemon only for the case that nobody called `stop`.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import trio

from mesh.errors import IoError, SpoolFullError
from mesh.node.groups import DISK_ERRORS

T = TypeVar("T")
Done = Callable[[Any, BaseException | None], None]


class Writer:
    """Give it work with `submit` or `call` from the Trio thread; jobs may `submit`."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="spool", daemon=True)

    def start(self) -> None:
        """Begin to work for the Trio loop that calls this."""
        self._token = trio.lowlevel.current_trio_token()
        self._thread.start()

    def submit(self, job: Callable[[], Any], done: Done) -> None:
        """Queue a job; `done(result, error)` runs on the Trio thread when it ended."""
        self._jobs.put((job, done))

    async def call(self, job: Callable[[], T]) -> T:
        """Run a job and wait for it.  It is never abandoned half-way.

        After `stop` nothing runs: this waits until it is cancelled, for what ended the
        thread ends the caller too.
        """
        if self._stopped:
            await trio.sleep_forever()
        task = trio.lowlevel.current_task()
        outcome: list[Any] = []

        def done(result: Any, error: BaseException | None) -> None:
            outcome.extend((result, error))
            trio.lowlevel.reschedule(task)

        self.submit(job, done)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        result, error = outcome
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    async def stop(self) -> None:
        """Finish all that was queued, deliver every `done`, and end the thread."""
        self._stopped = True
        self._jobs.put(None)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._thread.join)

    def _work(self) -> None:
        if self._token is None:
            raise AssertionError("the writer was not started")
        broken: BaseException | None = None
        while (item := self._jobs.get()) is not None:
            job, done = item
            result, error = None, broken
            if broken is None:
                try:
                    result = job()
                except SpoolFullError as full:
                    error = full
                except DISK_ERRORS as failure:
                    error = broken = IoError(f"the spool's disk failed: {failure}")
                    broken.__cause__ = failure
                except BaseException as bug:
                    error = broken = bug
            try:
                self._token.run_sync_soon(done, result, error)
            except trio.RunFinishedError:
                return
            del job, done, result, error, item
