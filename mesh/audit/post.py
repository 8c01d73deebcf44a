# SPDX-License-Identifier: MIT
"""Mail in a lab: who writes it, who passes it on, and the truth about each message.

    places    names of machines; mail for a place is for `mix@PLACE.test`
    route     the places a message goes through, one after the other

                    a node beside each place          none: `plain`
    handed in       LMTP, the node's local socket     SMTP, the next place's port 25
    handed out      LMTP, to the place's own socket   SMTP, the place's port 25
    the last place  port 25, from the node before     the same

A place is a remailer that passes on at once what is not for itself: no delay of its own
hides anything.  What a message looks like is a matter of its `Letters`: here lines that
name its ident and the rest of its route, and filling; a chain of remailers has others.

An event (trace.py) is "in" where a place hands a message to its node, just before, and
"out" where a node has handed it to the place: whole, and not yet answered.  So what
goes from a to b is on that link between its "in" at a and its "out" at b.
"""

import asyncio
import secrets
import smtplib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, Self

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope

from mesh.audit.spaces import Space
from mesh.audit.trace import Event
from mesh.errors import IoError

SMTP_PORT: Final = 25
LINE: Final = b"x" * 70 + b"\r\n"
MESSAGE_MAX: Final = 1 << 25
"""Octets that a place takes: more than a node does."""
HAND_SECONDS: Final = 120.0
"""For one message to be taken: a node answers late under load."""


class Taken(NamedTuple):
    """What a remailer finds in a message."""

    ident: str
    to: str
    """The place to pass it on to; "": it is for this one."""
    content: bytes
    """What is passed on."""


class Letters(Protocol):
    """What messages look like."""

    def write(self, route: Sequence[str], octets: int, ident: str) -> bytes:
        """Write a message of about so many octets, as the first place hands it in."""

    def take(self, place: str, content: bytes) -> Taken:
        """Take it apart at a place."""


class PlainLetters:
    """Route and ident stand in the message's first lines."""

    def write(self, route: Sequence[str], octets: int, ident: str) -> bytes:
        """Write one."""
        head = f"Ident: {ident}\r\nRoute: {' '.join(route[2:])}\r\n\r\n".encode()
        return head + LINE * max(1, (octets - len(head)) // len(LINE))

    def take(self, place: str, content: bytes) -> Taken:
        """Read the lines; the filling goes on as it is."""
        head, _, filling = content.partition(b"\r\n\r\n")
        ident, route = (line.split()[1:] for line in head.decode().splitlines())
        to, rest = (route[0], route[1:]) if route else ("", [])
        lines = f"Ident: {ident[0]}\r\nRoute: {' '.join(rest)}\r\n\r\n".encode()
        return Taken(ident[0], to, lines + filling)


class Post:
    """All remailers of a lab; `events` and what is on its way, as they work.

    `doors`: the local socket of each place's node; the last place may have none, and
    has a port 25.  Without any, all have: mail goes from place to place uncovered.
    """

    def __init__(
        self,
        places: Mapping[str, Space],
        doors: Mapping[str, Path],
        letters: Letters,
    ) -> None:
        self._places, self._doors, self._letters = places, doors, letters
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._under_way: dict[str, tuple[str, int]] = {}
        self._left: set[str] = set()
        self._failed: list[BaseException] = []
        self._sessions: dict[str, smtplib.SMTP] = {}
        self._clerks: dict[str, ThreadPoolExecutor] = {}
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        for name, space in self._places.items():
            self._clerks[name] = ThreadPoolExecutor(1, initializer=space.enter)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        for clerk in self._clerks.values():
            clerk.shutdown(cancel_futures=True)
        for session in self._sessions.values():
            session.close()
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def box(self, place: str) -> Path:
        """The socket to which a node hands what is for this place."""
        return self._doors[place].with_name("box.sock")

    # what goes on

    def send(self, route: Sequence[str], octets: int) -> None:
        """Let the first place of a route hand a new message in."""
        ident = secrets.token_hex(8)
        with self._changed:
            self._left.add(ident)
            self._under_way[ident] = (route[0], octets)
        content = self._letters.write(route, octets, ident)
        self._pass_on(route[0], Taken(ident, route[1], content))

    @property
    def events(self) -> list[Event]:
        """The truth so far."""
        with self._changed:
            return list(self._events)

    @property
    def left(self) -> int:
        """Messages that have not come to the end of their route."""
        return len(self._left)

    def on_the_way_from(self, place: str) -> int:
        """Octets that the next place has not got yet."""
        with self._changed:
            return sum(octets for at, octets in self._under_way.values() if at == place)

    def wait(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Wait until something is so; whether it is.  IoError: a place has failed."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._failed or until(), seconds)
            if self._failed:
                raise IoError(f"mail goes no further: {self._failed[0]!r}")
            return bool(done)

    # a place

    def _pass_on(self, place: str, message: Taken) -> None:
        with suppress(RuntimeError):  # the lab is at its end
            self._clerks[place].submit(self._hand_in, place, message)

    def _hand_in(self, place: str, message: Taken) -> None:
        try:
            with self._changed:
                self._note("in", place, message.ident, message.content)
                self._under_way[message.ident] = (place, len(message.content))
            if place not in self._doors:
                self._mail(self._dial(place, message.to), place, message)
                return
            if place not in self._sessions:
                self._sessions[place] = self._knock(place)
            try:
                self._mail(self._sessions[place], place, message)
            except smtplib.SMTPServerDisconnected:  # nothing was said for long
                self._sessions[place] = self._knock(place)
                self._mail(self._sessions[place], place, message)
        except Exception as error:  # `wait` raises it
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failed.append(error)
            self._changed.notify_all()

    def _knock(self, place: str) -> smtplib.SMTP:
        door = str(self._doors[place])
        return smtplib.LMTP(door, local_hostname="mix", timeout=HAND_SECONDS)

    def _dial(self, place: str, to: str) -> smtplib.SMTP:
        host = self._places[to].address
        return smtplib.SMTP(host, SMTP_PORT, f"{place}.test", HAND_SECONDS)

    def _mail(self, session: smtplib.SMTP, place: str, message: Taken) -> None:
        session.sendmail(_address(place), [_address(message.to)], message.content)
        if place not in self._doors:
            session.quit()

    def _note(
        self, what: Literal["in", "out"], place: str, ident: str, content: bytes
    ) -> None:
        self._events.append(Event(time.time(), len(content), ident, what, place))

    def _came(self, place: str, content: bytes) -> None:
        try:
            message = self._letters.take(place, content)
        except Exception as error:  # a bounce, or a mistake in `letters`
            self._fail(error)
            return
        with self._changed:
            self._note("out", place, message.ident, content)
            self._under_way.pop(message.ident, None)
            if not message.to:
                self._left.discard(message.ident)
            self._changed.notify_all()
        if message.to:
            self._pass_on(place, message)

    # the servers

    async def _open(self) -> None:
        for place, space in self._places.items():
            make = partial(_server, place, self._came)
            if place in self._doors:
                server = await self._loop.create_unix_server(
                    partial(make, LMTP), str(self.box(place))
                )
            else:
                server = await self._loop.create_server(
                    partial(make, SMTP), sock=space.listen(SMTP_PORT)
                )
            self._servers.append(server)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _server(place: str, came: Callable[[str, bytes], None], kind: type[SMTP]) -> SMTP:
    """One connection to a place."""

    class Handler:
        async def handle_DATA(self, _s: SMTP, _n: object, envelope: Envelope) -> str:  # noqa: N802
            content = envelope.original_content
            assert content is not None  # noqa: S101  # for mypy
            came(place, content)
            return "250 ok"

    return kind(Handler(), hostname=f"{place}.test", data_size_limit=MESSAGE_MAX)


def _address(place: str) -> str:
    return f"mix@{place}.test"
