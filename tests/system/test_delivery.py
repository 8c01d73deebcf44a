# SPDX-License-Identifier: MIT
"""A message crosses two running nodes and lies there as it was, by whoever sent it."""

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.system.client import Client
from tests.system.nodes import LINK_SECONDS, World

Tool = Callable[[str, str], str]

BRAVO = "mix@bravo.test"
TEXT = (
    b"From: mix@alpha.test\r\nSubject: gr\xfc\xdfe\r\n\r\n"
    b".\r\n..\r\n.leading dot\r\ntrailing space \r\n\ttab\r\n\r\n\r\nend\r\n"
)
CONTENTS = {
    "empty": b"",
    "one line end": b"\r\n",
    "no last line end": b"Subject: cut\r\n\r\nno line end",
    "8-bit": b"Subject: all octets\r\n\r\n"
    + bytes(set(range(1, 256)) - {10, 13})
    + b"\r\n",
    "NUL": b"\0\0\r\n\0\r\n",
    "dots": b".\r\n.\r\n..\r\n...\r\n.. \r\n\r\n.\r\n",
    "long lines": (b"x" * 5000 + b"\r\n") * 3 + b"." * 5000 + b"\r\n",
    "very long line": b"y" * 99_990 + b"\r\n",
    "10 MB": b"".join(b"%078d\r\n" % number for number in range(131_072)),
}


def swaks(
    program: str, world: World, *options: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            program, "--socket", str(world.nodes[0].socket),
            "--from", "mix@alpha.test", "--helo", "remailer.test", *options,
        ],
        check=False, capture_output=True, encoding="latin-1", timeout=30,
    )  # fmt: skip


def test_swaks_octet_for_octet(pair: World, tool: Tool) -> None:
    program = tool("swaks", "swaks")
    pair.start()
    file = pair.folder / "message"
    file.write_bytes(TEXT.removesuffix(b"\r\n"))  # swaks adds the last line end
    for count, protocol in enumerate(("ESMTP", "SMTP", "LMTP"), 1):
        done = swaks(
            program, pair, "--to", BRAVO, "--protocol", protocol, "--data", f"@{file}"
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert pair.nodes[1].arrived(count) == [TEXT.replace(b"\r\n", b"\n")] * count


def test_swaks_pipelining_to_both_nodes(pair: World, tool: Tool) -> None:
    program = tool("swaks", "swaks")
    pair.start()
    done = swaks(
        program, pair, "--to", f"mix@alpha.test,{BRAVO}", "--pipeline",
        "--header", "Subject: both", "--body", "one body",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    [near], [far] = (node.arrived(1) for node in pair.nodes)
    assert near == far
    assert b"\none body\n" in near


def test_every_content_arrives_as_it_was(pair: World) -> None:
    pair.start()
    with Client(pair.nodes[0].socket) as client:
        for content in CONTENTS.values():
            assert client.envelope(BRAVO) == [250, 250]
            assert client.bdat(content) == 250
            assert client.send(BRAVO, content) == 250
        assert client.command(b"QUIT") == 221
    sent = []
    for content in CONTENTS.values():
        whole = (
            content if not content or content.endswith(b"\r\n") else content + b"\r\n"
        )
        sent += [content, whole]
    arrived = pair.nodes[1].arrived(len(sent), 30)
    assert sorted(arrived) == sorted(each.replace(b"\r\n", b"\n") for each in sent)


def test_large_and_small_on_a_clock(world: World) -> None:
    """On covered links too: 100 kB at 64 cells a second, both ways at once."""
    for name in ("alpha", "bravo"):
        world.node(name, clock='"renewal"', cells_per_second="64")
    world.introduce()
    world.start()
    alpha, bravo = world.nodes
    large = b"".join(b"%078d\r\n" % number for number in range(1280))
    for node, other, content in ((alpha, bravo, large), (bravo, alpha, b"small\r\n")):
        with Client(node.socket) as client:
            assert client.send(f"mix@{other.name}.test", content) == 250
    assert alpha.arrived(1) == [b"small\n"]
    assert bravo.arrived(1) == [large.replace(b"\r\n", b"\n")]


def test_bare_line_ends_are_refused(pair: World) -> None:
    alpha = pair.nodes[0]
    pair.start([alpha])
    with Client(alpha.socket) as client:
        for bad in (b"a\nb\r\n", b"a\rb\r\n", b"\n.\r\n", b"a\r\n\n", b"a\r\r\n"):
            assert client.send(BRAVO, bad) == 554
            assert client.envelope(BRAVO) == [250, 250]
            assert client.bdat(bad) == 554
            # The session goes on, and so does the node.
            assert client.send(BRAVO, b"good\r\n") == 250


def test_recipient_that_no_node_serves(pair: World, tool: Tool) -> None:
    alpha = pair.nodes[0]
    pair.start([alpha])
    with Client(alpha.socket) as client:
        assert client.envelope("who@example.org") == [250, 550]
        assert client.command(b"DATA") == 550
        assert client.command(b"RSET") == 250
        # One refused recipient refuses the transaction: nobody may miss it.
        assert client.envelope(BRAVO, "who@example.org") == [250, 250, 550]
        assert client.data(b"lost?\r\n") == 550
        assert client.command(b"RSET") == 250
        assert client.envelope("who@example.org") == [250, 550]
        assert client.bdat(b"lost?\r\n") == 550
    program = tool("swaks", "swaks")
    done = swaks(program, pair, "--to", "who@example.org")
    assert done.returncode != 0
    assert "<** 550" in done.stdout


def test_verbs_and_limits(pair: World) -> None:
    alpha = pair.nodes[0]
    alpha.set(message_bytes="10000")
    pair.start([alpha])
    with Client(alpha.socket, helo=b"") as client:
        assert client.greeting == 220
        assert client.command(b"hElO [127.0.0.1]") == 250
        assert client.command(b"TURN") == 502
        assert client.command(b"BOGUS") == 500
        assert client.command(b"VRFY mix") == 252
        assert client.command(b"x" * 5000) == 500
        assert client.command(b"mail from:<> size=10001") == 552
        assert client.command(b"mail from:<> body=8bitmime") == 250
        assert client.command(f"rcpt to:<{BRAVO}>".encode()) == 250
        assert client.data(b"z" * 11_000 + b"\r\n") == 552
        assert client.send(BRAVO, b"after all\r\n") == 250
        assert client.command(b"NOOP") == 250
        assert client.command(b"QUIT") == 221
        assert client.reply() == 0


@pytest.mark.parametrize("dialect", ["SMTP", "LMTP"])
def test_200_messages_over_20_sessions_into_lmtp(
    world: World, tool: Tool, dialect: str
) -> None:
    source, sink = tool("smtp-source", "postfix"), tool("smtp-sink", "postfix")
    path = world.folder / "sink.sock"
    world.node("alpha")
    world.node("bravo", deliver=f"lmtp:{path}")
    world.introduce()
    world.start()
    # As root it insists on giving that up, once its socket is bound.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    taking = subprocess.Popen(
        [sink, *user, "-L", "-M", "200", f"unix:{path}", "64"],
        stdout=subprocess.DEVNULL,
    )
    try:
        subprocess.run(
            [
                source, "-d", "-s", "20", "-m", "200", "-l", "10000",
                *(["-L"] if dialect == "LMTP" else []),
                "-f", "from@alpha.test", "-t", BRAVO,
                f"unix:{world.nodes[0].socket}",
            ],
            check=True, timeout=30, capture_output=True,
        )  # fmt: skip
        # It ends by itself when it has taken so many.
        assert taking.wait(LINK_SECONDS + 10) == 0
    finally:
        taking.kill()
        taking.wait()
