# SPDX-License-Identifier: MIT
"""Two mail servers between smtp-source and smtp-sink; ours.

    Pair    what all have: how mail goes in, the groups of their processes, what is set
    Mesh    two nodes

    smtp-source -> alpha's local socket -> spool -> link -> spool -> LMTP -> smtp-sink

The clock is greedy unless said otherwise: rivals have no clock either.
"""

import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from benchmarks.processes import (
    MESH,
    BenchmarkError,
    Group,
    free_port,
    mesh,
    wait_at_rest,
    wait_ready,
)

Link: TypeAlias = Mapping[str, str]
"""Keys of node.toml and what they are, in TOML."""
GREEDY: Final[Link] = {"clock": '"greedy"'}


def make_node(home: Path, deliver: str, link: Link = GREEDY) -> int:
    """Make a node that serves `@NAME.test`; the port of its links."""
    port = free_port()
    mesh(
        "init", str(home), "--name", home.name, "--address", f"127.0.0.1:{port}",
        "--remailer", f"@{home.name}.test={deliver}",
    )  # fmt: skip
    toml = home / "node.toml"
    text = toml.read_text()
    for key, value in link.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        if count != 1:
            raise BenchmarkError(f"node.toml has no {key}")
    toml.write_text(text)
    return port


def make_pair(folder: Path, sink: Path, link: Link = GREEDY) -> tuple[int, int]:
    """Two nodes that know each other; bravo delivers to the sink; their ports."""
    ports = (
        make_node(folder / "alpha", "maildir:Maildir", link),
        make_node(folder / "bravo", f"lmtp:{sink}", link),
    )
    for name, other in (("alpha", "bravo"), ("bravo", "alpha")):
        file = folder / f"{other}.mesh"
        file.write_text(mesh("export", "-c", str(folder / other / "node.toml")))
        mesh(
            "peers", "add", "-c", str(folder / name / "node.toml"),
            "--serves", f"@{other}.test", str(file),
        )  # fmt: skip
    return ports


class Pair(ABC):
    """Two servers, the second of which delivers to a sink; they run inside a `with`."""

    name: str
    entry: str
    """What smtp-source is told."""
    second: str
    """The same for who hands mail to the second server."""
    parts: Mapping[str, Group]

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, str]:
        """Versions, and what is set."""

    @abstractmethod
    def start(self) -> None:
        """Start both."""

    def cpu(self) -> float:
        """Seconds of processors so far, of all its processes."""
        return sum(group.cpu() for group in self.parts.values())

    def close(self) -> None:
        """End both."""
        for group in self.parts.values():
            group.close()

    def __enter__(self) -> Self:
        try:
            self.start()
            wait_at_rest(self.cpu)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Mesh(Pair):
    """Two nodes."""

    name = "mesh"

    def __init__(
        self,
        folder: Path,
        sink: Path,
        link: Link = GREEDY,
        program: Sequence[str] = (MESH,),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ports = make_pair(folder, sink, link)
        self.parts = {name: Group(name) for name in ("alpha", "bravo")}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.entry = f"unix:{folder / 'alpha' / 'local.sock'}"
        self.second = f"unix:{folder / 'bravo' / 'local.sock'}"
        self._link, self._program = link, program

    @property
    def settings(self) -> Mapping[str, str]:
        """Version and clock."""
        link = "; ".join(f"{key} = {value}" for key, value in self._link.items())
        return {self.name: f"{mesh('--version').strip()}; {link}"}

    def start(self) -> None:
        """Start both nodes."""
        self.start_nodes("alpha", "bravo")

    def start_nodes(self, *names: str) -> None:
        """Start some, and wait until they are ready."""
        for name in names:
            self.nodes[name] = self.parts[name].start(
                *self._program, "run", "-c", str(self.folder / name / "node.toml"),
                stderr=subprocess.PIPE,
            )  # fmt: skip
        for name in names:
            wait_ready(self.nodes[name])

    def close(self) -> None:
        """End both."""
        super().close()
        for node in self.nodes.values():
            if node.stderr:
                node.stderr.close()
