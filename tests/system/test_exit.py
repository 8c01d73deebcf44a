# SPDX-License-Identifier: MIT
"""A real node between a remailer that is a program and somebody else's mail server."""

import sys

from tests.node.outside import mail_server
from tests.system.client import Client
from tests.system.nodes import World, eventually

WHO = "who@example.org"
TEXT = b"From: mix@alpha.test\r\nSubject: out\r\n\r\n.\r\n..\r\n.x\r\ngr\xfc\xdfe\r\n"


def test_out_by_a_fixed_route_and_refused_by_the_list(world: World) -> None:
    with mail_server({"never@example.org": "550 5.1.1 no"}, tls=True) as server:
        alpha = world.node(
            "alpha", exit="true", tick_seconds="0.2", refuse='"refused"',
            routes=f'{{ "example.org" = "127.0.0.1:{server.port}" }}',
        )  # fmt: skip
        refused = alpha.home / "refused"
        refused.write_text("no@example.org\n")
        world.start()
        with Client(alpha.socket) as client:
            assert client.envelope("no@example.org") == [250, 550]
            assert client.command(b"RSET") == 250
            assert client.send(WHO, TEXT) == 250
            eventually("it arrives", 10, lambda: bool(server.letters))
            refused.write_text(f"{WHO}\n")
            eventually("the list is read", 5, lambda: client.envelope(WHO)[-1] == 550)
            assert client.command(b"RSET") == 250
            assert client.envelope("never@example.org") == [250, 250]
            assert client.data(TEXT) == 250
        [letter] = server.letters
        assert letter.content == TEXT
        assert letter.encrypted
        assert letter.helo == "[127.0.0.1]"
        assert alpha.stop() == 0
    assert alpha.errors() == "mesh: ready\n"


def test_nobody_sends_us_into_our_own_network(world: World) -> None:
    """An address literal needs no zone: this machine, private, and with a scope."""
    statuses = {
        "who@[127.0.0.1]": b"5.4.6",
        "who@[10.255.255.254]": b"5.4.4",
        "who@[IPv6:::ffff:10.255.255.254]": b"5.4.4",
        "who@[IPv6:2001:db8::9%lo]": b"5.1.2",
    }
    alpha = world.node("alpha", exit="true", tick_seconds="0.2")
    world.start()
    with Client(alpha.socket) as client:
        for recipient in statuses:
            assert client.send(recipient, TEXT) == 250
    bounces = b"".join(alpha.arrived(len(statuses), 20)).lower()
    for recipient, status in statuses.items():
        words = b"<%s>:\n    550 %s " % (recipient.lower().encode(), status)
        assert words in bounces


def test_into_a_program(world: World) -> None:
    out = world.folder / "out"
    script = world.folder / "take.py"
    script.write_text(
        "import sys, os\n"
        f"open({str(out)!r} + '.new', 'wb').write(sys.stdin.buffer.read())\n"
        f"os.rename({str(out)!r} + '.new', {str(out)!r})\n"
    )
    alpha = world.node("alpha", deliver=f"pipe:{sys.executable} -I -S {script}")
    world.start()
    with Client(alpha.socket) as client:
        assert client.send("mix@alpha.test", TEXT) == 250
    eventually("the program has it", 10, out.exists)
    assert out.read_bytes() == TEXT.replace(b"\r\n", b"\n")
