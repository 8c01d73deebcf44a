# SPDX-License-Identifier: MIT
"""The loopback port: for remailers that can do nothing but SMTP over TCP."""

import smtplib
import socket

import pytest

from tests.system.nodes import World, free_port, mesh


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_mail_comes_in_by_a_port(world: World, host: str) -> None:
    port = free_port()
    node = world.node("alpha", smtp=f'["{host}:{port}"]')
    node.start()
    with smtplib.SMTP(host.strip("[]"), port, timeout=10) as client:
        assert client.has_extn("size") or client.ehlo()[0] == 250
        client.sendmail("a@b.test", ["mix@alpha.test"], b"Subject: x\r\n\r\ny\r\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@b.test", ["nobody@nowhere.test"], b"x\r\n")
    assert node.arrived(1) == [b"Subject: x\n\ny\n"]
    assert node.stop() == 0
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))


def test_a_port_that_somebody_has(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = world.node("alpha", smtp=f'["127.0.0.1:{port}"]')
        line = mesh("run", "-c", str(node.config), code=73)
        assert f"cannot listen on 127.0.0.1:{port}" in line
        assert not node.socket.exists()
