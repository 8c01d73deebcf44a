# SPDX-License-Identifier: MIT
"""mesh-sendmail as a process: node up, node down, node gone; the folder nobody trusts."""

import os
import subprocess
import sys
from pathlib import Path

from tests.system.nodes import LINK_SECONDS, MESH, World, eventually

SENDMAIL = str(Path(MESH).with_name("mesh-sendmail"))
TEXT = b"From: a@alpha.test\nBcc: mix@alpha.test\n\n.\nhello\n"
ME = "mix@alpha.test"


def send(
    octets: bytes, *args: str, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    """Run it in an environment without anything else."""
    return subprocess.run(
        [SENDMAIL, *args], input=octets, env=environment, cwd=cwd,
        check=False, capture_output=True, timeout=30,
    )  # fmt: skip


def test_up_and_down_and_up_again(world: World) -> None:
    node = world.node("alpha")
    config = str(node.config)
    assert send(TEXT, "-ti", MESH_CONFIG=config).returncode == 75  # never ran: no keys
    node.start()
    assert send(TEXT, "-t", "-i", "-c", config).returncode == 0
    assert node.arrived(1) == [b"From: a@alpha.test\n\n.\nhello\n"]
    keys = node.home / "drop"
    eventually("keys", LINK_SECONDS, lambda: len(list(keys.glob("key.*"))) >= 3)
    assert node.stop() == 0
    for number in range(3):
        done = send(b"%d\n" % number, "-c", config, ME)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    node.start()
    assert sorted(node.arrived(4))[:3] == [b"0\n", b"1\n", b"2\n"]
    node.kill()
    assert send(b"3\n", "-c", config, ME).returncode == 0
    node.start()
    assert sorted(node.arrived(5))[3] == b"3\n"


def test_a_dialogue_on_standard_input(world: World) -> None:
    node = world.node("alpha")
    node.start()
    lines = f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{ME}>\r\nDATA\r\n".encode()
    done = send(lines + b"hello\r\n.\r\n", "-bs", "-c", str(node.config))
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == b"250 ok"
    assert node.arrived(1) == [b"hello\n"]


def test_the_working_directory_counts_for_nothing(world: World) -> None:
    node = world.node("alpha")
    node.start()
    done = send(b"x\n", ME, cwd=node.home)
    assert done.returncode == 66
    assert done.stderr.startswith(b"mesh: /etc/mesh/node.toml: ")


def test_what_it_does_not_import() -> None:
    """Each of these costs more than all the rest."""
    code = (
        "import sys; from mesh.cli import handin, submit, dropoff\n"
        "import mesh.core.headers, tomllib\n"
        "print(sorted({'trio', 'click', 'pydantic', 'cryptography', 'socket', 'msgpack',"
        " 'apsw', 'asyncio', 'email', 'argparse'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")},
    )  # fmt: skip
    assert found.stdout == "[]\n"
