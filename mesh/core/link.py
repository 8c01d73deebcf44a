# SPDX-License-Identifier: MIT
"""The inside of one link: streams and dialogues to cell bodies, and back.

    our stream n    Sender (smtp.py)      our commands, kind 1 ->   <- replies, kind 2
                    or RawSender (raw.py): a person or a tool instead of mail
    their stream n  Dialogue (dialogue.py) <- their commands, kind 1   replies, kind 2 ->

A body is filled in this order: credit, replies (while a message's last chunk comes or is
stored, none before its last), gossip (gossip.py; at most half of the rest while commands wait),
commands of the streams in turn, a segment each: 10 MB on one do not stop 10 kB on another.

Credit: a stream starts with WINDOW octets of commands; the receiver of them grants
more (kind 3) as it takes them in.  Flow control is inside the cells and never TCP's
window, which a snooper sees.  While a message on a stream is larger than
SMALL_MESSAGE_LEN its stream gets credit only when it is the link's one large stream.
That it is until its message is answered; or until its last chunk has begun and has all
credit, where none so large is about to be stored yet and it has no more than STORED_MAX.
So a peer holds at most 32 x (WINDOW +
SMALL_MESSAGE_LEN) + STORED_MAX + one message of memory (of DATA as it comes, with all its
dots: a third more), however slow the disk is.

A stream that says QUIT may be used again: its next octet begins a new dialogue.  Of
ours, one that was used by a person is free only after its 221, and one on which mail
has spoken says QUIT before a person may have it.

Events, from `next_event`:

    Received(stream, message)   a whole message of theirs; `answer` it
    Done(ids)                   they will not repeat these ids
    Finished(token, replies)    one of ours was answered
    Answered(stream, event)     for the person on this stream: a reply, or RawEnded

Invariant: what `next_body` returns is BODY_LEN octets, whatever happened; nothing
here holds a key, looks at a clock, or decides when a body is asked for.
Raises RemoteProtocolError for what no honest peer does: nothing more goes in or out.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

from mesh.core import bodies
from mesh.core.cell import (
    BODY_LEN,
    CELL_LEN,
    CREDIT,
    PADDING,
    STREAMS_MAX,
    BodyWriter,
    Kind,
    Segment,
    parse_untrusted,
)
from mesh.core.dialogue import Dialogue, DialogueKind, IdsDone, MessageReceived
from mesh.core.gossip import MUTE, Gossip, Mute
from mesh.core.raw import RawEnded, RawSender
from mesh.core.reply import Reply
from mesh.core.smtp import Finished, Outgoing, Sender, SenderClosed, SenderDialect
from mesh.core.streams import GRANT_STEP, Event, Inbound, Large, Outbound, Tally
from mesh.core.streams import SMALL_MESSAGE_LEN as SMALL_MESSAGE_LEN
from mesh.core.streams import WINDOW as WINDOW
from mesh.core.streams import Answered as Answered
from mesh.core.streams import Done as Done
from mesh.core.streams import Received as Received
from mesh.core.transfer import StartTls
from mesh.errors import CellError, LocalProtocolError, RemoteProtocolError

REPLIES_MAX: Final = 65_536
"""Octets of replies that may wait on one stream: an honest sender has one transaction
under way (a few hundred); only a flood of NOOPs gets here."""


class Link:
    """Streams of one link, both directions; see the module's text."""

    def __init__(
        self,
        *,
        name: str,
        peer: str,
        accepts: Callable[[str], Reply | None],
        max_message: int,
        gossip: Gossip | Mute = MUTE,
    ) -> None:
        self._name, self._peer = name, peer
        self._accepts, self._max_message = accepts, max_message
        self.gossip = gossip
        self._in: dict[int, Inbound] = {}
        self._out: dict[int, Outbound] = {}
        self._free: list[int] = list(range(STREAMS_MAX - 1, -1, -1))
        self._turns: dict[int, None] = {}  # streams with octets and credit, in turn
        self._replying: dict[int, None] = {}
        self._credits: dict[int, int] = {}
        self._done: list[bytes] = []
        self._told: dict[int, list[bytes]] = {}  # on a stream, and not sure to be heard
        self._large = Large()
        self._events: deque[Event] = deque()
        self.closing = self.broken = False  # broken: by what no honest peer does
        self.said, self.heard = Tally(), Tally()
        self.up = False  # a body of the other side has opened: key confirmation
        self.peer_closed = False
        """The other side has said, to the connection, that this link ends."""

    # ours

    @property
    def can_offer(self) -> bool:
        """A stream is free for another message of ours."""
        ending = self.closing or self.peer_closed or self.broken
        return bool(self._free) and self.up and not ending

    def offer(self, outgoing: Outgoing) -> None:
        """Give a message to a free stream; its token comes back in a Finished."""
        if not self.can_offer:
            raise LocalProtocolError("no stream is free")
        number = self._free.pop()
        self._tell_done(number)
        self._sender(number).send(outgoing)
        self._turn(number)

    def _sender(self, number: int) -> Sender:
        """Give the sender of a free stream."""
        stream = self._out.get(number) or self._out.setdefault(number, Outbound())
        if stream.sender is None:
            stream.sender = Sender(dialect=SenderDialect.LINK, helo=self._name)
        return stream.sender

    def _turn(self, number: int) -> None:
        """Give the stream its place in the turns while it has octets and credit."""
        stream = self._out[number]
        if stream.credit > 0 and stream.speaker and stream.speaker.pending:
            self._turns[number] = None

    # a person's

    def open_raw(self) -> int:
        """Begin a dialogue of a person or a tool on a free stream; its number."""
        if not self.can_offer:
            raise LocalProtocolError("no stream is free")
        # Mail takes the last that became free, so the first was seldom spoken on.
        number = self._free.pop(0)
        stream = self._out.setdefault(number, Outbound())
        stream.raw = RawSender(self._name)
        if stream.sender:
            stream.sender.quit()
        self._turn(number)
        return number

    def raw_room(self, stream: int) -> int:
        """Octets that may be written now; 0 when the dialogue is over."""
        raw = self._raw(stream)
        return raw.room if raw else 0

    def write_raw(self, stream: int, octets: bytes) -> None:
        """Take what its user says; dropped when the dialogue is over."""
        if raw := self._raw(stream):
            raw.write(octets)
            self._turn(stream)

    def end_raw(self, stream: int, *, gone: bool) -> None:
        """Its user says no more; `gone`: nor reads.  A RawEnded follows."""
        if raw := self._raw(stream):
            raw.end(gone=gone)
            self._turn(stream)

    def _raw(self, number: int) -> RawSender | None:
        stream = self._out.get(number)
        return stream.raw if stream else None

    def _tell_done(self, number: int) -> None:
        if self._done:
            self._sender(number).done(tuple(self._done))
            self._told.setdefault(number, []).extend(self._done)
            self._done.clear()

    def done(self, ids: Sequence[bytes]) -> None:
        """Tell the peer, in the next body, that these ids may be forgotten."""
        self._done += ids

    @property
    def has_done(self) -> bool:
        """The next body tells of ids; for which alone none need leave (`has_data`)."""
        return bool(self._done and self._free) and self.up and not self.broken

    def untold(self) -> list[bytes]:
        """Ids given to `done` that the peer may not have heard: for its next link.

        What stood before a message that it answered, on the same stream, it has.
        """
        return [*(i for ids in self._told.values() for i in ids), *self._done]

    def answer(self, stream: int, *replies: Reply) -> None:
        """Answer the message that a Received brought."""
        if self.broken:
            return
        inbound = self._in[stream]
        if inbound.dialogue is None:
            raise LocalProtocolError("nothing to answer on this stream")
        try:
            inbound.dialogue.answer(*replies)
            self._large.answer(stream)
            inbound.due = True
            self._serve(stream, inbound)
        except RemoteProtocolError:
            self.broken = True
            raise

    def close(self) -> None:
        """Take no more messages of ours; the connection says that it ends (strand.py)."""
        self.closing = True

    # bodies in

    def receive_body(self, body: bytes) -> None:
        """Take a body that opened; what it brought is in `next_event`."""
        self.up = True
        if body == PADDING:
            return
        try:
            for segment in parse_untrusted(body):
                self._RECEIVERS[segment.kind](self, segment)
        except RemoteProtocolError:
            self.broken = True
            raise

    def receive_full(self, room: memoryview, at: int) -> int:
        """Take full bodies that follow each other in cells from `at` on; their end."""
        end, streams = bodies.take_full_untrusted(room, at, self._in, self.heard)
        for number in streams:
            self._grant(number, self._in[number])
        return end

    def next_event(self) -> Event | None:
        """Return the next event, None when there is none."""
        return self._events.popleft() if self._events else None

    def _receive_commands_untrusted(self, segment: Segment) -> None:
        number = segment.stream
        inbound = self._in.get(number) or self._in.setdefault(number, Inbound())
        self.heard.commands += len(segment.octets)
        inbound.received += len(segment.octets)
        if inbound.received > inbound.granted:
            raise CellError("more octets than credit")
        if inbound.dialogue is None:
            inbound.dialogue = Dialogue(
                name=self._name,
                kind=DialogueKind.LINK,
                accepts=self._accepts,
                peer=self._peer,
                max_message=self._max_message,
            )
        if len(segment.octets) < inbound.dialogue.chunk_left:
            inbound.dialogue.take_chunk(segment.octets)
            self._grant(segment.stream, inbound)
        else:
            inbound.dialogue.receive_data(segment.octets)
            self._serve(segment.stream, inbound)

    def _serve(self, number: int, inbound: Inbound) -> None:
        """Collect what a dialogue has to say, and grant credit for what it took in."""
        dialogue = inbound.dialogue
        if dialogue is None:
            raise AssertionError("a stream without its dialogue")
        while (event := dialogue.next_event()) is not None:
            if isinstance(event, MessageReceived):
                self._events.append(Received(number, event))
                self._large.end(number, len(event.content))
            elif isinstance(event, IdsDone):
                self._events.append(Done(event.ids))
            else:
                inbound.dialogue = None  # QUIT: the next octet begins another
        inbound.replies += dialogue.data_to_send()
        if len(inbound.replies) > REPLIES_MAX:
            raise CellError("more commands than anybody waits for")
        if dialogue.behind:
            dialogue.go_on()
            return self._serve(number, inbound)
        if inbound.replies and (inbound.due or not dialogue.concluding):
            self._replying[number] = None
        else:  # they go with the answer: no peer waits for them before
            self._replying.pop(number, None)
        if inbound.ends and dialogue.chunk_left:
            self._large.end(number, dialogue.content_octets + dialogue.chunk_left)
        for waiting in self._large.leave(number, dialogue):
            self._grant(waiting, self._in[waiting])
        self._grant(number, inbound)

    def _grant(self, number: int, inbound: Inbound) -> None:
        more = inbound.received + WINDOW - inbound.granted
        if more < GRANT_STEP:
            return
        if (dialogue := inbound.dialogue) is not None:
            if inbound.ends:
                return
            is_large = dialogue.content_octets > SMALL_MESSAGE_LEN
            if is_large and not self._large.take(number):
                return
        inbound.granted += more
        self._credits[number] = self._credits.get(number, 0) + more

    def _receive_replies_untrusted(self, segment: Segment) -> None:
        number = segment.stream
        stream = self._out.get(number)
        if stream is None or stream.speaker is None:
            raise CellError("a reply on a stream where nobody speaks")
        speaker = stream.speaker
        self.heard.replies += len(segment.octets)
        speaker.receive_data(bytes(segment.octets))
        while (event := speaker.next_event()) is not None:
            if isinstance(event, Finished):
                self._events.append(event)
                self._told.pop(number, None)
                self._free.append(number)
            elif not isinstance(event, SenderClosed | StartTls):
                self._events.append(Answered(number, event))
                if isinstance(event, RawEnded):
                    stream.raw = None
                    self._free.insert(0, number)
            elif stream.raw is None:
                raise CellError("the peer ended a dialogue of ours")
            else:
                stream.sender = None  # its 221: now the person may speak
                self._told.pop(number, None)
        self._turn(number)

    def _receive_credit_untrusted(self, segment: Segment) -> None:
        stream = self._out.get(segment.stream)
        if stream is None:
            raise CellError("credit for a stream that was never opened")
        stream.credit += CREDIT.unpack(segment.octets)[0]
        if stream.credit > WINDOW:
            raise CellError("more credit than the window")
        self._turn(segment.stream)

    def _receive_alone(self, _: Segment) -> None:
        raise CellError("a move or a close among other words")

    _RECEIVERS: ClassVar[Mapping[int, Callable[["Link", Segment], None]]] = {
        Kind.COMMANDS: _receive_commands_untrusted,
        Kind.REPLIES: _receive_replies_untrusted,
        Kind.CREDIT: _receive_credit_untrusted,
        Kind.GOSSIP: lambda link, each: link.gossip.receive_data(each.octets),
        Kind.MOVE: _receive_alone,  # strand.py's
        Kind.CLOSE: _receive_alone,
    }

    # bodies out

    @property
    def has_data(self) -> bool:
        """The next body would not be padding, nor ids alone."""
        waits = self._replying or self._credits or self._turns or self._gossips()
        return not self.broken and bool(waits)

    def next_body(self) -> bytes:
        """Return the next body: BODY_LEN octets, padding when there is nothing."""
        if self.broken:
            return PADDING
        writer = BodyWriter()
        bodies.write_credits(writer, self._credits)
        bodies.write_replies(writer, self._replying, self._in, self.said)
        self._write_gossip(writer)
        self._write_commands(writer)
        return PADDING if writer.empty else writer.finish()

    def write_bodies(self, room: memoryview) -> int:
        """Write next bodies into cells: octets of those that have one, one at least."""
        others = self._credits or self._replying or self.has_done or self._gossips()
        turns = {} if others or self.broken else self._turns
        if end := bodies.write_full(room, turns, self._out, self.said):
            return end
        room[:BODY_LEN] = self.next_body()
        return CELL_LEN

    def _write_commands(self, writer: BodyWriter) -> None:
        if self.has_done:
            self._tell_done(self._free[-1])
            self._turn(self._free[-1])
        for number in list(self._turns):
            if (space := writer.space) <= 0:
                break
            del self._turns[number]
            stream = self._out[number]
            speaker = stream.speaker
            if speaker is None:
                raise AssertionError("a turn of nobody's")
            octets = speaker.take(min(space, stream.credit))
            stream.credit -= len(octets)
            self.said.commands += len(octets)
            writer.add(Kind.COMMANDS, number, octets)
            if stream.credit > 0 and speaker.pending:
                self._turns[number] = None  # behind the others

    def _gossips(self) -> bool:
        return self.up and not self.closing and self.gossip.pending

    def _write_gossip(self, writer: BodyWriter) -> None:
        if self._gossips() and writer.space > 1:
            limit = writer.space // 2 if self._turns else writer.space
            writer.add(Kind.GOSSIP, 0, self.gossip.take(limit))
