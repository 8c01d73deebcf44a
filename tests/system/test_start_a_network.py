# SPDX-License-Identifier: MIT
"""The handbook's page "Start a network", typed line by line on three machines.

Each machine is a network namespace with a name, an address and a shell of its own,
joined by a bridge in a fourth.  Lines `alpha$ ...` go to alpha's shell as they stand;
lines `FILE: from alpha to bravo, carol` carry a file.
"""

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from mesh.cli.help import topics
from tests.system.nodes import MESH, eventually, find_tool

OPERATORS = ("alpha", "bravo", "carol")
LINE_SECONDS = 60.0
"""For one line: the longest waits until links are up."""
BLOCK = re.compile(r"(?m)^    (?:.*\\\n)*.*$")
TYPED = re.compile(r"(?s)    (alpha|bravo|carol)\$ (.*)")
CARRIED = re.compile(r"    (\S+): from (\w+) to (\w+(?:, \w+)*)")
ETC = Path("/etc/netns")


def ip(*args: str) -> None:
    program = find_tool("ip")
    assert program is not None
    done = subprocess.run([program, *args], check=False, capture_output=True, text=True)
    assert done.returncode == 0, (args, done.stderr)


class Network:
    """Three namespaces on one bridge; everything goes again."""

    def __init__(self) -> None:
        self.prefix = f"mesh{os.getpid()}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._namespace("wire")
            ip("-n", self.name("wire"), "link", "add", "bridge", "type", "bridge")
            ip("-n", self.name("wire"), "link", "set", "bridge", "up")
            for number, operator in enumerate(OPERATORS, 1):
                self._machine(operator, number)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def name(self, machine: str) -> str:
        return f"{self.prefix}-{machine}"

    def _namespace(self, machine: str) -> None:
        name = self.name(machine)
        ip("netns", "add", name)
        self._stack.callback(ip, "netns", "del", name)

    def _machine(self, operator: str, number: int) -> None:
        self._namespace(operator)
        name, wire = self.name(operator), self.name("wire")
        ip("-n", wire, "link", "add", f"to{number}", "type", "veth",
           "peer", "name", "eth0", "netns", name)  # fmt: skip
        ip("-n", wire, "link", "set", f"to{number}", "master", "bridge", "up")
        ip("-n", name, "addr", "add", f"10.0.0.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", name, "link", "set", device, "up")
        etc = ETC / name  # `ip netns exec` puts it over /etc
        etc.mkdir(parents=True)
        self._stack.callback(shutil.rmtree, etc)
        hosts = [
            f"10.0.0.{at} {who}.example.net\n" for at, who in enumerate(OPERATORS, 1)
        ]
        (etc / "hosts").write_text("127.0.0.1 localhost\n" + "".join(hosts))


class Shell:
    """One operator's, in his own folder, on his own machine."""

    def __init__(self, namespace: str, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        program = find_tool("ip")
        assert program is not None
        path = f"{Path(MESH).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path}
        env.pop("MESH_CONFIG", None)
        self._bash = subprocess.Popen(
            [program, "netns", "exec", namespace, "bash", "--norc"],
            cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def type(self, line: str) -> str:
        """Type one line; what the screen shows until it is done."""
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{line}\ncode=$?; echo; echo done: $code\n".encode())
        self._bash.stdin.flush()
        screen = self._read_until_done(line)
        text, _, code = screen.rpartition("\ndone: ")
        assert code == "0\n", (line, screen)
        return text

    def _read_until_done(self, line: str) -> str:
        assert self._bash.stdout is not None
        shown = b""
        deadline = time.monotonic() + LINE_SECONDS
        while not re.search(rb"\ndone: \d+\n\Z", shown):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._bash.stdout], [], [], max(0, left))
            assert ready, (line, shown)
            octets = os.read(self._bash.stdout.fileno(), 65536)
            assert octets, (line, shown)
            shown += octets
        return shown.decode()

    def close(self) -> None:
        """End the node and the shell; every program in it is of this shell."""
        try:
            self.type("kill $(jobs -p); wait")
        finally:
            self._bash.kill()
            self._bash.communicate()


def wait_for_letters(folder: Path) -> None:
    """As long as somebody would who does not know yet how long it takes."""
    eventually("the others' mail", 40, lambda: len(list(folder.glob("*"))) == 2)


@pytest.fixture
def network(tool: object) -> Iterator[Network]:
    if find_tool("ip") is None:
        assert callable(tool)
        tool("ip", "iproute2")
    if os.geteuid() != 0:
        pytest.skip("namespaces need root")
    with Network() as made:
        yield made


def test_the_page_as_it_is_typed(network: Network, tmp_path: Path) -> None:
    page = topics()["start-a-network"].read_text()
    blocks = BLOCK.findall(page)
    screens: list[tuple[str, str]] = []
    with ExitStack() as stack:
        shells = {}
        for who in OPERATORS:
            shells[who] = Shell(network.name(who), tmp_path / who)
            stack.callback(shells[who].close)
        for block in blocks:
            if carried := CARRIED.fullmatch(block):
                file, source, to = carried.groups()
                for other in to.split(", "):
                    shutil.copy(tmp_path / source / file, tmp_path / other / file)
                continue
            found = TYPED.fullmatch(block)
            assert found, block
            who, line = found.groups()
            if line.startswith("cat Maildir"):
                wait_for_letters(tmp_path / who / "Maildir" / "new")
            screens.append((line, shells[who].type(line)))
    check(screens, tmp_path)


def check(screens: list[tuple[str, str]], folder: Path) -> None:
    """What was on the screens is what the page says."""
    shown = dict(screens)
    assert shown["mesh directory adopt directory.mesh"].startswith(
        "version 2 of main: adopted, 3 nodes"
    )
    roots = {
        re.search(r"root is ((?:\w{4} ?){8})", screen).group(1)  # type: ignore[union-attr]
        for line, screen in screens
        if "adopt" in line and "version 1" in screen
    }
    assert len(roots) == 1
    mail = [screen for line, screen in screens if line.startswith("cat Maildir")]
    for who, screen in zip(OPERATORS, mail, strict=True):
        others = {f"from {other}" for other in OPERATORS if other != who}
        assert set(re.findall(r"from \w+", screen)) == others
    public = (folder / "alpha" / "public.mesh").read_text()
    assert "Version: 2\n" in public
