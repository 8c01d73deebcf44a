# SPDX-License-Identifier: MIT
"""The world outside of the mesh, on loopback: a name server, and mail servers.

The name server is a real one: dnspython's wire code over UDP and TCP.  The mail servers are
aiosmtpd, somebody else's, each in a thread of its own.
"""

import socket
import ssl
import threading
from asyncio import Server
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Address, ip_network
from typing import Any, cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from mesh.core.ip import Address, is_public, within

Zone = Mapping[tuple[str, str], list[str]]
"""(name, type) -> records as a zone file has them; a name that is not there is none."""
BROKEN = "broken"
SILENT = "silent"
LYING = "no"
"""Names with which the server fails (broken-aaaa.: for that type alone), says nothing, or
says that they do not exist (no-aaaa.: for that type alone)."""


DOCUMENTATION = ("192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32")


def public_here(address: Address) -> bool:
    """As the world has it, but that names for documentation are somebody's."""
    inner = within(address) if address.version == 6 else None
    if inner is not None and not cast("IPv6Address", address).ipv4_mapped:
        return public_here(inner)
    documented = any(address in ip_network(each) for each in DOCUMENTATION)
    return documented or is_public(address)


@dataclass
class NameServer:
    """What was asked, and when; what is answered."""

    zone: dict[tuple[str, str], list[str]]
    port: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    by_tcp: int = 0
    tcp_says: bytes | None = None
    """In the place of an answer."""
    always_cut: bool = False

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def answer(self, octets: bytes, *, tcp: bool = False) -> bytes | None:
        query = dns.message.from_wire(octets)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append((name, kind))
        if name.startswith(SILENT):
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        broken = f"{BROKEN}-{kind.lower()}."
        if name.startswith((f"{BROKEN}.", broken)):
            response.set_rcode(dns.rcode.SERVFAIL)
            return response.to_wire()
        followed: set[str] = set()
        while (alias := self.zone.get((name, "CNAME"))) and name not in followed:
            followed.add(name)
            response.answer.append(
                dns.rrset.from_text(name + ".", 60, "IN", "CNAME", *alias)
            )
            name = alias[0].rstrip(".")
        records = self.zone.get((name, kind))
        if records is not None:
            response.answer.append(
                dns.rrset.from_text(name + ".", 60, "IN", kind, *records)
            )
        elif name.startswith(f"{LYING}-{kind.lower()}.") or not any(
            name == known for known, _ in self.zone
        ):
            response.set_rcode(dns.rcode.NXDOMAIN)
        wire = response.to_wire(max_size=65535)
        if self.always_cut or (len(wire) > query.payload and not tcp):
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()
        return wire


@asynccontextmanager
async def name_server(zone: Zone) -> AsyncIterator[NameServer]:
    """Run a name server."""
    server = NameServer(dict(zone))
    sock, listener = _bound_twice()
    server.port = sock.getsockname()[1]

    async def serve() -> None:
        while True:
            octets, source = await sock.recvfrom(4096)
            if (reply := server.answer(octets)) is not None:
                await sock.sendto(reply, source)

    async def serve_tcp(stream: trio.SocketStream) -> None:
        octets = await stream.receive_some(4096)
        if not octets:  # who connected has ended
            return
        server.by_tcp += 1
        reply = server.answer(octets[2:], tcp=True) or b""
        framed = len(reply).to_bytes(2, "big") + reply
        if server.tcp_says is not None:
            framed = server.tcp_says
        with suppress(trio.BrokenResourceError):
            await stream.send_all(framed[:3])
            await stream.send_all(framed[3:])

    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await nursery.start(trio.serve_listeners, serve_tcp, [listener])
            yield server
            nursery.cancel_scope.cancel()


def _bound_twice() -> tuple[trio.socket.SocketType, trio.SocketListener]:
    """A port of UDP whose number is free for TCP as well."""
    while True:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        try:
            tcp = socket.create_server(sock.getsockname())
        except OSError:  # somebody else's: try another
            sock.close()
            continue
        tcp.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(tcp))
        return trio.socket.from_stdlib_socket(sock), listener


@dataclass
class Letter:
    """One message as it came."""

    reverse_path: str
    recipients: list[str]
    content: bytes
    encrypted: bool
    helo: str
    session: int


class MailServer:
    """One mail server: what came in, and what it says to whom."""

    def __init__(self, replies: Mapping[str, str] | None = None) -> None:
        self.letters: list[Letter] = []
        self.replies = dict(replies or {})
        """Recipient -> reply at RCPT; `data` -> at the final dot."""
        self.port = 0

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, _: Any
    ) -> str:
        reply = self.replies.get(address, "250 ok")
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        reply = self.replies.get("data", "250 ok")
        if reply.startswith("2"):
            assert isinstance(envelope.original_content, bytes)
            self.letters.append(
                Letter(
                    envelope.mail_from or "",
                    list(envelope.rcpt_tos),
                    envelope.original_content,
                    session.ssl is not None,
                    session.host_name or "",
                    id(session),
                )
            )
        return reply


class _Controller(Controller):
    def _trigger_server(self) -> None:
        """Connect once, to the port that the kernel chose."""
        assert isinstance(self.server, Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


@contextmanager
def mail_server(
    replies: Mapping[str, str] | None = None,
    *,
    tls: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[MailServer]:
    """Run a mail server; with `tls` it offers STARTTLS with a certificate of nobody's."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("mx.elsewhere.test").configure_cert(context)
    handler = MailServer(replies)
    controller = _Controller(
        handler, hostname=host, port=port, tls_context=context, decode_data=False,
        data_size_limit=1_000_000,
    )  # fmt: skip
    controller.start()
    try:
        handler.port = controller.port
        yield handler
    finally:
        controller.stop()


@contextmanager
def scripted(*sessions: bytes | None) -> Iterator[int]:
    """Run a server that says the same whatever it hears: its port.

    It serves one connection after the other; None: closes at once.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for said in sessions:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                # Whoever is cut off resets the connection.
                with connection, suppress(ConnectionError):
                    if said is None:
                        continue
                    connection.sendall(said)
                    while connection.recv(65_536):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def puppet(
    serve: Callable[[trio.SocketStream], Awaitable[object]],
    *hosts: str,
) -> AsyncIterator[int]:
    """Run a server that does with each connection what it is told, then closes it.

    It is at one port of 127.0.0.1, or of all of `hosts`.
    """

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # the other side has gone
            await serve(stream)

    async with trio.open_nursery() as nursery:
        port = 0
        for host in hosts or ("127.0.0.1",):
            serving = partial(trio.serve_tcp, handle, port, host=host)
            [listener] = await nursery.start(serving)
            port = listener.socket.getsockname()[1]
        yield port
        nursery.cancel_scope.cancel()


REPLIES = {
    "": b"220 here\r\n",
    "EHLO": b"250-here\r\n250 8BITMIME\r\n",
    "MAIL": b"250 ok\r\n",
    "RCPT": b"250 ok\r\n",
    "DATA": b"354 go on\r\n",
    ".": b"250 ok\r\n",
    "RSET": b"250 ok\r\n",
    "QUIT": b"221 bye\r\n",
}
"""What a mail server of few words says; "" is the connection, "." the final dot."""


async def converse(
    stream: trio.SocketStream,
    said: Callable[[str, bytes], Awaitable[bytes | None]],
) -> list[bytes]:
    """Be a mail server: the contents that came, dots as they were on the wire.

    `said` hears each verb with its line and gives what to answer in the place of
    REPLIES, b"" for that, None to close.
    """
    buffer = bytearray()
    contents: list[bytes] = []

    async def until(end: bytes) -> bytes:
        while end not in buffer:
            octets = await stream.receive_some()
            if not octets:
                raise trio.BrokenResourceError
            buffer.extend(octets)
        line, _, rest = bytes(buffer).partition(end)
        buffer[:] = rest
        return line + end

    verb, line = "", b""
    while (reply := await said(verb, line)) is not None:
        reply = reply or REPLIES[verb]
        if verb == "." and reply.startswith(b"2"):
            contents.append(line.removesuffix(b".\r\n"))
        await stream.send_all(reply)
        if verb == "QUIT":
            break
        if verb == "DATA" and reply.startswith(b"3"):
            verb, line = ".", (await until(b"\r\n.\r\n"))
        else:
            line = await until(b"\r\n")
            verb = line[:4].decode().strip()
    return contents
