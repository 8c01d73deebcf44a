# SPDX-License-Identifier: MIT
"""A stranger on the port: whatever he sends and however long, not one octet back."""

import selectors
import socket
import time

from tests.system.client import Client
from tests.system.nodes import World

LENGTHS = (0, 1, 4095, 4096, 4097, 20_000)
"""Around the length of a handshake message."""
LISTEN_SECONDS = 2.5
"""An honest answer leaves 0.1 to 1.1 s after the message."""
GREETINGS = (b"EHLO stranger\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01" * 1400)


def test_strangers_hear_nothing(pair: World) -> None:
    alpha = pair.nodes[0]
    pair.start([alpha])
    sent = [bytes(length) for length in LENGTHS]
    sent += [_noise(length) for length in LENGTHS]
    sent += GREETINGS
    strangers = [socket.create_connection(("127.0.0.1", alpha.port)) for _ in sent]
    try:
        with selectors.DefaultSelector() as heard:
            for stranger, octets in zip(strangers, sent, strict=True):
                stranger.sendall(octets)
                heard.register(stranger, selectors.EVENT_READ)
            until = time.monotonic() + LISTEN_SECONDS
            while (left := until - time.monotonic()) > 0:
                assert heard.select(left) == []
        for stranger in strangers:
            stranger.settimeout(5)
            stranger.shutdown(socket.SHUT_WR)
            # Closed in order when we close: the end, neither octets nor a reset.
            assert stranger.recv(1) == b""
    finally:
        for stranger in strangers:
            stranger.close()
    assert alpha.errors() == "mesh: ready\n"


def test_a_crowd_of_strangers_keeps_no_peer_out(pair: World) -> None:
    alpha, bravo = pair.nodes
    alpha.start()
    crowd = [socket.create_connection(("127.0.0.1", alpha.port)) for _ in range(150)]
    try:
        bravo.start()
        with Client(bravo.socket) as client:
            assert client.send("mix@alpha.test", b"through\r\n") == 250
        assert alpha.arrived(1) == [b"through\n"]
    finally:
        for stranger in crowd:
            stranger.close()


def _noise(length: int) -> bytes:
    return bytes(number * 167 % 251 for number in range(length))
