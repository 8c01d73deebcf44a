# SPDX-License-Identifier: MIT
"""The demo's wire-tap: forwards connections and notes what passed, as a snooper would.

    look    a stretch of LOOK_SECONDS, begun by `look`; the first is 0
    wire    two nodes; both directions of their link are kept apart

What a snooper has is here and nothing else: when how many octets passed, and which
way.  `drawing` shows one direction, a mark a tenth of a second; `sight` puts figures on
it: cells a second, the gaps' mean and spread, lengths that are no whole cells.
"""

import contextlib
import socket
import statistics
from itertools import pairwise
from typing import Final, NamedTuple

import trio

from mesh.core.cell import CELL_LEN

LOOK_SECONDS: Final = 4.0
COLUMNS: Final = 40
"""Of a drawing: one a tenth of a second."""


class Sight(NamedTuple):
    """What one look at one direction of a wire tells."""

    cells_per_second: float
    gap_mean: float
    gap_spread: float
    odd_lengths: int


class _Passed(NamedTuple):
    at: float
    wire: tuple[str, str]
    octets: int


class Tap:
    """Stands before each node's port: peers dial the tap, which dials the node."""

    def __init__(self) -> None:
        self._ports: list[tuple[socket.socket, str, int]] = []
        self._seen: list[_Passed] = []
        self._ended: set[str] = set()
        self._looks: list[float] = []
        self._open = 0

    def add(self, name: str, inner: int) -> int:
        """Listen on a port that leads to the node `name` at the port `inner`."""
        sock = socket.create_server(("127.0.0.1", 0))
        self._ports.append((sock, name, inner))
        return int(sock.getsockname()[1])

    def start(self, nursery: trio.Nursery) -> None:
        """Begin to forward."""
        for sock, name, inner in self._ports:
            sock.setblocking(False)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            nursery.start_soon(self._serve, listener, name, inner)

    async def _serve(
        self, listener: trio.SocketListener, name: str, inner: int
    ) -> None:
        async def forward(near: trio.SocketStream) -> None:
            self._open += 1
            try:
                far = await trio.open_tcp_stream("127.0.0.1", inner)
                async with near, far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._copy, near, far, f"to {name}", nursery)
                    nursery.start_soon(self._copy, far, near, f"from {name}", nursery)
            except OSError:
                pass  # the node behind is not there yet: the dialler comes again
            finally:
                self._open -= 1

        await trio.serve_listeners(forward, [listener])

    async def _copy(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        way: str,
        nursery: trio.Nursery,
    ) -> None:
        wire = (way, str(id(nursery)))
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in source:
                self._seen.append(_Passed(trio.current_time(), wire, len(data)))
                await target.send_all(data)
        self._ended.add(wire[1])
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await target.send_eof()

    def wires(self, cells: int) -> list[tuple[str, str]]:
        """Directions, still open, on which so many cells have passed, oldest first."""
        octets: dict[tuple[str, str], int] = {}
        for passed in self._seen:
            octets[passed.wire] = octets.get(passed.wire, 0) + passed.octets
        return [
            wire
            for wire, count in octets.items()
            if count >= cells * CELL_LEN and wire[1] not in self._ended
        ]

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._open

    @property
    def is_quiet(self) -> bool:
        """No connection is left."""
        return not self._open

    def look(self) -> None:
        """Begin another look."""
        self._looks.append(trio.current_time())

    def _window(self, look: int, wire: tuple[str, str]) -> list[tuple[float, int]]:
        start = self._looks[look]
        return [
            (passed.at - start, passed.octets)
            for passed in self._seen
            if passed.wire == wire and 0 <= passed.at - start < LOOK_SECONDS
        ]

    def sight(self, look: int, wire: tuple[str, str]) -> Sight:
        """Put figures on a look."""
        window = self._window(look, wire)
        instants = [at for at, _ in window]
        gaps = [b - a for a, b in pairwise(instants)] or [0.0]
        return Sight(
            sum(octets for _, octets in window) / CELL_LEN / LOOK_SECONDS,
            statistics.mean(gaps),
            statistics.pstdev(gaps),
            sum(octets % CELL_LEN != 0 for _, octets in window),
        )

    def drawing(self, look: int, wire: tuple[str, str]) -> str:
        """One mark a tenth of a second: how many cells passed."""
        counts = [0.0] * COLUMNS
        for at, octets in self._window(look, wire):
            counts[int(at / LOOK_SECONDS * COLUMNS)] += octets / CELL_LEN
        return "".join("." if not c else str(min(round(c), 9)) for c in counts)
