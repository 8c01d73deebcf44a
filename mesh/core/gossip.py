# SPDX-License-Identifier: MIT
"""One link's gossip: each side says what it has, and hands over what it is asked for.

    says        head: at the link's start, and whenever what it has has changed
    asks        pairs      of the buckets whose sums differ, when both have one directory
                boxes      of nodes that the other has a newer serial of, and of the
                           other itself; 16 at a time, the next when those were judged
                document   the one that it was told to get (pursuit.py), from an octet on
    hands over  pairs, boxes, and the octets of one copy of its directory

Each question has one answer, in order, and no second one of its kind follows before:
so what nobody asked for raises CellError, as does a question too many, and the link
ends.  Only a document may still come when nobody wants it any more; it is dropped.
A serial that was asked for is not asked for again on this link, whatever was sent.

What came in is told by `next_event`:

    Heard(head)                   the other side's directory; perhaps not to be believed
    BoxCame(node, octets)         a descriptor: judge it, then say `judged`
    PartCame(part)                octets of the document that it was told to get
    Wanted(want)                  the other side wants ours: `hand_over` a copy

Memory of a link: one frame, 16 descriptors, 16 wanted nodes, what is newer of the nodes
that we list; a copy by reference.  Nothing here believes anything, knows the time, or
decides when a cell leaves; `take` is asked for octets when there is room (link.py).
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from mesh.core.crypto import hash256
from mesh.core.frames import (
    BOXES_MAX,
    CHUNK_MAX_LEN,
    COPY_LEN,
    NO_DOCUMENT,
    NO_HEAD,
    PAIR_LEN,
    PAIRS_MAX,
    Box,
    Frame,
    FrameReader,
    Head,
    HeadFrame,
    Pairs,
    Part,
    WantBoxes,
    WantDocument,
    WantPairs,
)
from mesh.core.ledger import Ledger
from mesh.errors import CellError

_PAIRS_STEP: Final = PAIRS_MAX * PAIR_LEN


class Copy(NamedTuple):
    """The octets of our directory that are handed over, and what names them."""

    head: Head
    octets: bytes
    name: bytes

    @classmethod
    def of(cls, head: Head, octets: bytes) -> "Copy":
        """Name them by their hash; a thread's work."""
        return cls(head, octets, hash256(octets)[:COPY_LEN])


class Heard(NamedTuple):
    """What directory the other side says it has."""

    head: Head


class BoxCame(NamedTuple):
    """A descriptor that we asked for, as the other side sent it."""

    node: bytes
    octets: bytes


class PartCame(NamedTuple):
    """Some octets of the document that is wanted."""

    part: Part


class Wanted(NamedTuple):
    """The other side asks for our directory."""

    want: WantDocument


Event: TypeAlias = Heard | BoxCame | PartCame | Wanted


class Gossip:
    """One end of one link's gossip; see the module's text.

    `ledger` gives what we have now, `box_of` the descriptor of a node; both are short
    look-ups.  `peer` is the node at the other end; `heard` its head, where the
    handshake told it.
    """

    def __init__(
        self,
        *,
        ledger: Callable[[], Ledger],
        box_of: Callable[[bytes], bytes | None],
        peer: bytes,
        document_max_len: int,
        heard: Head = NO_HEAD,
    ) -> None:
        self._ledger, self._box_of, self._peer = ledger, box_of, peer
        self._reader = FrameReader(document_max_len)
        self._events: deque[Event] = deque()
        self._frame = memoryview(b"")  # what is left of the frame under way
        self._said = ledger().head
        self._head_due = True
        # questions
        self._theirs = HeadFrame(heard, 0, b"")
        self._differing = 0
        self._pairs_asked = False
        self._sought: dict[bytes, int] = {}
        self._tried: dict[bytes, int] = {}
        self._asked: deque[bytes] = deque()
        self._unjudged = 0
        self._target = self._told = NO_DOCUMENT
        # answers
        self._pairs: deque[bytes] = deque()
        self._boxes: deque[bytes] = deque()
        self._copy: Copy | None = None
        self._at = 0
        if heard.order:
            self._events.append(Heard(heard))

    # what the node tells it

    def changed(self) -> None:
        """Say what we have: the ledger is another one."""
        ledger = self._ledger()
        self._head_due = True
        self._sought = {
            node: serial
            for node, serial in self._sought.items()
            if self._is_newer(node, serial)
        }
        if ledger.head != self._said:
            self._said = ledger.head
            self._compare()

    def want(self, head: Head, copy: bytes, offset: int) -> None:
        """Ask for this directory from here on; for no other any more."""
        if head != self._target.head:
            self._target = WantDocument(head, copy, offset)

    def want_nothing(self) -> None:
        """Ask for no directory any more."""
        self._target = NO_DOCUMENT

    def judged(self) -> None:
        """One descriptor that came was looked at."""
        self._unjudged -= 1

    def hand_over(self, want: WantDocument, copy: Copy) -> None:
        """Send a copy that is wanted: all of it, or from where the other side is."""
        self._copy = copy
        goes_on = want.copy == copy.name and want.offset < len(copy.octets)
        self._at = want.offset if goes_on else 0

    def next_event(self) -> Event | None:
        """Return the next event, None when there is none."""
        return self._events.popleft() if self._events else None

    # octets out

    @property
    def pending(self) -> bool:
        """`take` would give octets."""
        return bool(
            self._frame
            or self._head_due
            or self._target != self._told
            or self._boxes
            or self._pairs
            or self._copy
            or (self._differing and not self._pairs_asked)
            or self._may_ask_boxes
        )

    def take(self, limit: int) -> bytes:
        """Give the next octets, at most so many; b"" when there are none."""
        parts = []
        while limit > 0:
            if not self._frame:
                frame = self._next_frame()
                if frame is None:
                    break
                self._frame = memoryview(frame.encode())
            parts.append(bytes(self._frame[:limit]))
            self._frame = self._frame[limit:]
            limit -= len(parts[-1])
        return b"".join(parts)

    @property
    def _may_ask_boxes(self) -> bool:
        return bool(self._sought) and not (self._asked or self._unjudged)

    def _next_frame(self) -> Frame | None:
        """What we have, then questions, then answers, the longest last."""
        if self._head_due:
            self._head_due = False
            ledger = self._ledger()
            return HeadFrame(ledger.head, ledger.serial, ledger.sums)
        return self._next_question() or self._next_answer()

    def _next_question(self) -> Frame | None:
        if self._target != self._told:
            self._told = self._target
            return self._target
        if self._differing and not self._pairs_asked:
            buckets, self._differing = self._differing, 0
            self._pairs_asked = True
            return WantPairs(buckets)
        if not self._may_ask_boxes:
            return None
        nodes = tuple(self._sought)[:BOXES_MAX]
        for node in nodes:
            self._tried[node] = self._sought.pop(node)
        self._asked.extend(nodes)
        return WantBoxes(nodes)

    def _next_answer(self) -> Frame | None:
        if self._boxes:
            node = self._boxes.popleft()
            box = self._box_of(node) if self._ledger().tells(node) else None
            return Box(box or b"")
        if self._pairs:
            return Pairs(self._pairs.popleft())
        return self._next_part()

    def _next_part(self) -> Part | None:
        copy, at = self._copy, self._at
        if copy is None:
            return None
        self._at += CHUNK_MAX_LEN
        total = len(copy.octets)
        if self._at >= total:
            self._copy = None
        octets = copy.octets[at : self._at]
        return Part(copy.head, copy.name, total, at, octets)

    # octets in

    def receive_data(self, octets: bytes | memoryview) -> None:
        """Take octets of the other side; CellError for what no honest one sends."""
        self._reader.receive_data(octets)
        while (frame := self._reader.next_frame()) is not None:
            match frame:
                case HeadFrame():
                    self._receive_head(frame)
                case WantPairs():
                    self._receive_want_pairs_untrusted(frame)
                case Pairs():
                    self._receive_pairs_untrusted(frame)
                case WantBoxes():
                    self._receive_want_boxes_untrusted(frame)
                case Box():
                    self._receive_box_untrusted(frame)
                case WantDocument():
                    self._receive_want_document(frame)
                case _:
                    self._receive_part(frame)

    def _receive_head(self, frame: HeadFrame) -> None:
        self._theirs = frame
        self._events.append(Heard(frame.head))
        self._seek(self._peer, frame.serial)
        self._compare()

    def _compare(self) -> None:
        """Find what differs between two that have the same directory."""
        ledger = self._ledger()
        same = ledger.head == self._theirs.head != NO_HEAD and self._theirs.sums
        self._differing = ledger.differing(self._theirs.sums) if same else 0

    def _seek(self, node: bytes, serial: int) -> None:
        """Ask for a newer descriptor of a node that we list, once."""
        if self._is_newer(node, serial) and serial > self._tried.get(node, 0):
            self._sought[node] = serial

    def _is_newer(self, node: bytes, serial: int) -> bool:
        known = self._ledger().serial_of(node)
        return known is not None and serial > known

    def _receive_want_pairs_untrusted(self, frame: WantPairs) -> None:
        if self._pairs:
            raise CellError("a question before the answer to the last")
        for number, bucket in enumerate(self._ledger().buckets):
            if frame.buckets >> number & 1:
                for at in range(0, len(bucket), _PAIRS_STEP):
                    self._pairs.append(bucket[at : at + _PAIRS_STEP])
        self._pairs.append(b"")

    def _receive_pairs_untrusted(self, frame: Pairs) -> None:
        if not self._pairs_asked:
            raise CellError("pairs that nobody asked for")
        if not frame.octets:
            self._pairs_asked = False
        shared = self._ledger().shared
        for node, serial in frame.unpack():
            if node in shared:
                self._seek(node, serial)

    def _receive_want_boxes_untrusted(self, frame: WantBoxes) -> None:
        if self._boxes:
            raise CellError("a question before the answer to the last")
        self._boxes.extend(frame.nodes)

    def _receive_box_untrusted(self, frame: Box) -> None:
        if not self._asked:
            raise CellError("a descriptor that nobody asked for")
        node = self._asked.popleft()
        if frame.octets:
            self._unjudged += 1
            self._events.append(BoxCame(node, frame.octets))

    def _receive_want_document(self, frame: WantDocument) -> None:
        self._copy = None
        if frame != NO_DOCUMENT:
            self._events.append(Wanted(frame))

    def _receive_part(self, frame: Part) -> None:
        if frame.head != self._target.head:
            return
        self._events.append(PartCame(frame))
        if frame.offset + len(frame.octets) == frame.total:
            self._target = self._told = NO_DOCUMENT  # that was the last


class Mute:
    """The gossip of a link that has none: says nothing, hears nothing."""

    pending = False

    def take(self, limit: int) -> bytes:
        """Give nothing."""
        del limit
        return b""

    def receive_data(self, octets: bytes | memoryview) -> None:
        """Take no notice."""


MUTE: Final = Mute()
