# SPDX-License-Identifier: MIT
"""`mesh connect PEER`: standard input and output are one stream of the link.

    swaks --pipe "mesh connect bravo" --to mix@bravo.example --data letter

Octets go as they come, no faster than the link carries them; from a terminal a line's
LF becomes CR LF, and to one a control character goes by its code (plain.py).  Exit code
0 when the last reply was QUIT's 221.
"""

import os
import select
import socket
from typing import Final

import click

from mesh.cli.asking import about_peer, asked
from mesh.cli.options import config_option, load_config
from mesh.cli.plain import plain_octets
from mesh.core.control import Ask
from mesh.errors import UnavailableError

LINK_SECONDS: Final = 60.0
"""For the node's answer: it waits 30 s for the link."""
READ_MAX: Final = 65_536
STDIN: Final = 0
STDOUT: Final = 1


@click.command("connect")
@config_option
@click.argument("peer")
def command(peer: str) -> None:
    """Speak to PEER by hand, or let a tool: one stream of the link.

    Waits up to 30 s for the link (69 without).  Any name in EHLO or HELO is replaced by
    ours, which the link has proven.  End with QUIT.
    """
    request = about_peer(Ask.CONNECT, peer)
    with asked(load_config(), request, LINK_SECONDS) as (sock, _):
        sock.settimeout(None)
        last = _Pump(sock).run()
    if not last.startswith(b"221 "):
        raise UnavailableError(f"{peer}: the dialogue ended without its 221")


class _Pump:
    """Carries octets both ways until the node ends the stream."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_terminal = os.isatty(STDIN)
        self._is_shown = os.isatty(STDOUT)
        self._out = b""
        self._listening = True
        self._last = b""
        """The last line of what came; its beginning is its code."""

    def run(self) -> bytes:
        """Carry; the last line that came."""
        while True:
            reading: list[int] = [self._sock.fileno()]
            if self._listening and not self._out:
                reading.append(STDIN)
            writing = [self._sock.fileno()] if self._out else []
            readable, writable, _ = select.select(reading, writing, [])
            if writable:
                self._send()
            if STDIN in readable:
                self._read_stdin()
            if self._sock.fileno() in readable and not self._read_node():
                return self._last

    def _send(self) -> None:
        try:
            sent = self._sock.send(self._out, socket.MSG_DONTWAIT)
        except OSError:  # the node has ended it, and says why
            sent = len(self._out)
        self._out = self._out[sent:]

    def _read_stdin(self) -> None:
        octets = os.read(STDIN, READ_MAX)
        if octets:
            self._out = octets.replace(b"\n", b"\r\n") if self._is_terminal else octets
            return
        self._listening = False
        self._sock.shutdown(socket.SHUT_WR)

    def _read_node(self) -> bool:
        try:
            octets = self._sock.recv(READ_MAX)
        except OSError:
            return False
        if not octets:
            return False
        begun = b"" if self._last.endswith(b"\n") else self._last
        self._last = (begun + octets).splitlines(keepends=True)[-1]
        if self._is_shown:
            octets = plain_octets(octets)
        while octets:
            octets = octets[os.write(STDOUT, octets) :]
        return True
