# SPDX-License-Identifier: MIT
"""A link's inside as its carrier sees it: bodies to seal, bodies that opened.

The port knows neither keys nor instants.  Its carrier decides *when*, and has no
branch on whether there is mail (but `greedy`, which hides nothing).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol


class Ending(NamedTuple):
    """How a link ends: cells before the last one, and whether to hear the other out."""

    cells: int
    linger: bool = False


class Port(Protocol):
    """What a carrier needs of a link's inside."""

    def next_body(self) -> bytes:
        """The next body to seal, padding when there is nothing: BODY_LEN octets."""

    def receive_body(self, body: bytes) -> None:
        """Take a body that opened; RemoteProtocolError ends the link."""

    def received(self) -> None:
        """All bodies of one read were handed over."""

    @property
    def has_data(self) -> bool:
        """The next body would not be padding."""

    @property
    def ending(self) -> Ending | None:
        """How the link ends; None while it lives."""

    @property
    def finished(self) -> bool:
        """The port has sent its last body: a `greedy` carrier ends."""

    on_data: Callable[[], None]
    """Called by the port when it has something to send, or when it ends; the carrier's."""


class GreedyPort(Port, Protocol):
    """What the `greedy` carrier needs besides."""

    def write_bodies(self, room: memoryview) -> int:
        """Write the next bodies, at least one, to the heads of cells side by side.

        Gives the octets of those cells.
        """

    def receive_bodies(self, room: memoryview) -> None:
        """Take bodies that opened at the heads of cells side by side."""
