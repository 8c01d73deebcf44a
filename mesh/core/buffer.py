# SPDX-License-Identifier: MIT
r"""The receive buffer: octets in; lines, texts and counted pieces out.

One bytearray for everything that came and was not yet used.  Each reader takes what
it wants from the front and remembers how far it has searched, so that no octet is
looked at twice for the same thing, however small the reads are.

    line   up to LF; longer than LINE_MAX: its head once, the rest thrown away
    text   up to CR LF . CR LF, dots unstuffed; longer than a limit: thrown away
    take   at most so many octets

Invariant: besides a text below its limit the buffer holds no more than the last
append brought and one line.  Only CR LF . CR LF ends a text: a dot between bare CRs
or LFs is content (and makes it unlawful, content.py).
"""

from typing import Final

from mesh.core.command import LINE_MAX
from mesh.core.content import unstuff

_END_OF_TEXT: Final = b"\r\n.\r\n"
# Dots that are looked at one by one.
DOTS_MAX: Final = 32


class ReceiveBuffer:
    """Octets of one conversation that nobody has used yet."""

    __slots__ = ("_dotted", "_octets", "_searched", "_skipping", "too_big")

    def __init__(self) -> None:
        self._octets = bytearray()
        self._searched = 0  # what is looked for does not begin before this offset
        self._skipping = False  # within the rest of a line that was too long
        self._dotted = False  # some line of the text may begin with a dot
        self.too_big = False
        """The text that is being read is beyond its limit and is not kept."""

    def __len__(self) -> int:
        return len(self._octets)

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Take octets from outside."""
        self._octets += data

    def clear(self) -> None:
        """Forget everything: nobody will ask for more."""
        self._octets.clear()

    def line(self) -> bytes | None:
        """The next line with its LF; None when it is not all here.

        A line beyond LINE_MAX comes as its first LINE_MAX + 1 octets.
        """
        octets = self._octets
        while octets:
            end = octets.find(b"\n", self._searched) + 1
            if 0 < end <= LINE_MAX and not self._skipping:
                line = bytes(octets[:end])
                del octets[:end]
                self._searched = 0
                return line
            if not end and len(octets) <= LINE_MAX:
                self._searched = len(octets)
                return None
            head = bytes(octets[: min(end or LINE_MAX + 1, LINE_MAX + 1)])
            del octets[: end or len(octets)]
            self._searched = 0
            was_skipping, self._skipping = self._skipping, not end
            if not was_skipping:
                return head
        return None

    def begin_text(self) -> None:
        """What comes next is a text: every line of it has CR LF before it."""
        self._octets[:0] = b"\r\n"
        self._searched = 0
        self._dotted = self.too_big = False

    def text(self, limit: int) -> bytes | None:
        """The text without stuffing and final dot; None when it is not all here.

        More than `limit` octets, stuffed, set too_big and give b"".
        """
        octets = self._octets
        end = self._dotted_line()
        if end >= 0 and not octets.startswith(_END_OF_TEXT, end):
            self._dotted = True  # or the end is not all here: costs one more look
            end = octets.find(_END_OF_TEXT, end)
        # Without the end the last 2 octets may be its dot and CR, no content.
        if (len(octets) - 4 if end < 0 else end) > limit:
            self.too_big = True
        if end < 0:
            if self.too_big:
                del octets[:-4]
            self._searched = max(0, len(octets) - 4)
            return None
        content = b""
        if not self.too_big:
            with memoryview(octets) as view, view[2 : end + 2] as text:
                content = bytes(text)
        del octets[: end + 5]
        self._searched = 0
        return unstuff(content) if self._dotted else content

    def _dotted_line(self) -> int:
        """Where the first line that begins with a dot has its CR LF; -1: nowhere.

        One octet is found some times faster than three in a row, and most messages
        have few dots.
        """
        octets, start = self._octets, self._searched
        at = octets.find(b".", start + 2)
        for _ in range(DOTS_MAX):
            if at < 0 or octets.startswith(b"\r\n", at - 2):
                return at - 2 if at >= 0 else -1
            at = octets.find(b".", at + 1)
        return octets.find(b"\r\n.", start)

    def take(self, limit: int) -> bytes:
        """The next octets, at most `limit`."""
        octets = self._octets
        with memoryview(octets) as view, view[:limit] as piece:
            taken = bytes(piece)
        del octets[:limit]
        return taken
