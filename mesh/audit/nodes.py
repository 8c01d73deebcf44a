# SPDX-License-Identifier: MIT
"""The nodes of a lab: made, introduced to their neighbours, run, and waited for.

Each is `python -m mesh` in a namespace of its own, as an operator runs it: made by
`mesh init`, known to its neighbours by `mesh export` and `mesh peers add`, and changed
by lines of its node.toml.  Only the last one has an exit.
"""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from mesh.audit.spaces import Space, Wire, started
from mesh.core.control import (
    ANSWER_MAX_LEN,
    CONTROL_NAME,
    Ask,
    Refusal,
    Request,
    encode_request,
    parse_answer_untrusted,
)
from mesh.errors import IoError

MESH: Final = (sys.executable, "-m", "mesh")
ALL_OF: Final = """
import contextlib, io, json, sys
from mesh.cli.main import main
said = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if code := main(words):
            sys.exit(code)
    said.append(printed.getvalue())
print(json.dumps(said))
"""
"""Commands of ours from standard input, and what each printed: one start for all."""
PORT: Final = 7000
UP_SECONDS: Final = 240.0
"""For all links to be up: 10 s, on a host that has nothing else to do; minutes, where
dozens of labs begin side by side."""
LOOK_SECONDS: Final = 0.5
"""Between two looks whether they are: each costs the node milliseconds, and there may be
dozens of labs."""


def make_nodes(
    folder: Path,
    spaces: Mapping[str, Space],
    wires: Sequence[Wire],
    changes: Mapping[str, Mapping[str, str]],
) -> dict[str, Path]:
    """Make a node for each name in `changes`, keys of its node.toml; their folders."""
    homes = {name: folder / name for name in changes}
    _mesh(
        folder,
        [
            ("init", str(home), "--name", name, "--address",
             f"{spaces[name].address}:{PORT}", "--remailer", f"mix@{name}.test")
            for name, home in homes.items()
        ],
    )  # fmt: skip
    for name, home in homes.items():
        _change(home / "node.toml", changes[name])
    descriptors = _mesh(
        folder, [("export", "-c", str(home / "node.toml")) for home in homes.values()]
    )
    for name, descriptor in zip(homes, descriptors, strict=True):
        (folder / f"{name}.mesh").write_text(descriptor)
    _mesh(
        folder,
        [
            ("peers", "add", "-c", str(home / "node.toml"),
             *(f"--serves=mix@{other}.test" for other in others),
             *(str(folder / f"{other}.mesh") for other in others))
            for name, home in homes.items()
            if (others := list(_neighbours(name, wires, homes)))
        ],
    )  # fmt: skip
    return homes


def _neighbours(
    name: str, wires: Iterable[Wire], nodes: Iterable[str]
) -> Iterator[str]:
    for wire in wires:
        if name in wire:
            other = wire.second if name == wire.first else wire.first
            if other in nodes:
                yield other


def _change(file: Path, changes: Mapping[str, str]) -> None:
    """Write other values for keys; each stands in one line."""
    lines = []
    for line in file.read_text().splitlines():
        key = line.partition(" =")[0]
        lines.append(f"{key} = {changes[key]}" if key in changes else line)
    file.write_text("\n".join(lines) + "\n")


def _mesh(folder: Path, commands: Sequence[Sequence[str]]) -> list[str]:
    """Run some of our own commands, in one process; what each printed."""
    done = subprocess.run(  # noqa: S603  # our own words
        [sys.executable, "-c", ALL_OF], input=json.dumps(commands), cwd=folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise IoError(f"a node of the lab cannot be made: {done.stderr.strip()}")
    printed: list[str] = json.loads(done.stdout)
    return printed


@contextmanager
def running(
    homes: Mapping[str, Path], spaces: Mapping[str, Space]
) -> Iterator[Mapping[str, int]]:
    """Run the nodes until the end, all links up; their processes' ids.

    IoError: one does not come up.
    """
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                started(
                    spaces[name].words(*MESH, "run", "-c", str(home / "node.toml")),
                    home,
                    home / "log",
                )
            )
            for name, home in homes.items()
        }
        until = time.monotonic() + UP_SECONDS
        for name, home in homes.items():
            while not _is_up(home):
                if processes[name].poll() is not None:
                    said = (home / "log").read_text().strip()
                    raise IoError(f"a node of the lab ended: {said}")
                if time.monotonic() > until:
                    raise IoError("a link of the lab does not come up")
                time.sleep(LOOK_SECONDS)
        yield {name: process.pid for name, process in processes.items()}
        for process in processes.values():  # all at once: each takes a second or two
            process.terminate()


def _is_up(home: Path) -> bool:
    """Whether a node has all its links."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(UP_SECONDS)
        try:
            sock.connect(str(home / "state" / CONTROL_NAME))
            sock.sendall(encode_request(Request(Ask.STATUS)))
            with sock.makefile("rb") as answers:
                answer = parse_answer_untrusted(answers.readline(ANSWER_MAX_LEN))
        except OSError:
            return False
    if isinstance(answer, Refusal):
        return False
    links = answer["status"]["links"]
    return bool(links) and all(link["up"] for link in links)
