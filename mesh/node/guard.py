# SPDX-License-Identifier: MIT
"""A bug that shows in one connection ends that connection, and nothing else.

    with guard(end): ...     around what one connection, one delivery, one visit does,
                             also where somebody else's task calls it

    raised within                              then
    Cancelled, KeyboardInterrupt, and the like they go on: they are no bugs
    what exits with 74 (a disk in doubt)       it goes on: the node ends and recovers
    anything else                              counted; `end` is called; it stops here

So who finds an input that breaks us, by chance or not, has broken his own connection:
a neighbour must not be able to crash the node.  What serves all alike (the spool, the
queues, the look at peers.d) has no guard: there a bug ends the node with 70, and the
service manager starts it again.

Of an exception the kind and the place in our source are kept, for a report, and never
its text, which may hold an address.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Final

from mesh.errors import IoError, LocalProtocolError, MeshError, place_of

__all__ = ["Guard", "Whole"]


class Guard:
    """One node's: what its parts wrap around one connection; and the count."""

    def __init__(self) -> None:
        self.bugs = 0
        """Connections ended, since the start."""
        self._last = ""

    def __call__(self, end: Callable[[], None] | None = None) -> "_One":
        """Give a context in which a bug goes no further; `end` is called after one."""
        return _One(self, end)

    def note(self, error: BaseException) -> None:
        """Count one."""
        self.bugs += 1
        self._last = f"{type(error).__name__} at {place_of(error)}"

    def notices(self) -> list[str]:
        """Give the operator's line; nothing while there was no bug."""
        if not self.bugs:
            return []
        what = (
            "connection or delivery" if self.bugs == 1 else "connections or deliveries"
        )
        return [f"{self.bugs} {what} ended by a bug, {self._last}: please report it"]


class _One:
    """One connection's; cheaper than a generator, for it is entered for each message."""

    __slots__ = ("_end", "_guard")

    def __init__(self, guard: Guard, end: Callable[[], None] | None) -> None:
        self._guard, self._end = guard, end

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> bool:
        """End; True: what was raised stops here."""
        if error is None:
            return False
        bugs, others = _split(error)
        if not bugs:
            return False
        self._guard.note(bugs[0])
        if self._end is not None:
            try:
                self._end()
            except Exception as another:  # whatever it is, it ends here
                self._guard.note(another)
        if others is not None:
            raise others
        return True


class Whole:
    """Around a change of the spool: a bug within ends the node, as a disk in doubt does.

    Half a change is no state to go on from; whoever called may have a guard that ends
    its connection only.  No generator, for each message is changed twice.
    """

    __slots__ = ("_fail",)

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail = fail

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, bug: BaseException | None, _: object
    ) -> None:
        """End; what was raised goes on."""
        if kind is not None and bug is not None:
            what = f"a bug in the spool: {kind.__name__} at {place_of(bug)}"
            self._fail(LocalProtocolError(f"{what}: please report it"))


_ENDS_THE_NODE: Final = IoError.exit_code


def _split(error: BaseException) -> tuple[list[BaseException], BaseException | None]:
    """Part an error, or a task group's group of them: bugs, and what is to go on."""
    if not isinstance(error, BaseExceptionGroup):
        return ([error], None) if _is_bug(error) else ([], error)
    bugs = [leaf for one in error.exceptions for leaf in _split(one)[0]]
    others = error.subgroup(
        lambda one: not (isinstance(one, BaseExceptionGroup) or _is_bug(one))
    )
    return bugs, others


def _is_bug(error: BaseException) -> bool:
    if isinstance(error, MeshError) and error.exit_code == _ENDS_THE_NODE:
        return False
    return isinstance(error, Exception)
