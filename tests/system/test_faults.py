# SPDX-License-Identifier: MIT
"""Disks that fail and disks that are full: what got a 250 is there all the same.

Of failing calls a sample (scripts/faults: each of the first hundred of a kind).
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesh.core.descriptor import parse_untrusted
from mesh.core.document import armour
from tests.directories import directory
from tests.system import faults
from tests.system.client import Client
from tests.system.faults import LATER, Case, Mail
from tests.system.nodes import MESH, NodeProcess, World, eventually, mesh_here
from tests.system.sink import Sink

Tool = Callable[[str, str], str]

SAMPLE = [
    Case("sync", "EIO", 14),
    Case("write", "ENOSPC", 40),
    Case("rename", "EDQUOT", 4),
    Case("open", "EMFILE", 45, 4),
]
FREE = 1_048_576
INODES = 64
SIZE = 12 * FREE
FILL = 20_000
"""Octets of a message of those that fill the disk."""
LATE = 0.06
"""Share of a free disk that is mail's: a commit of one such message is 96 kB in the log,
and its room in the database is set aside."""


def test_a_disk_that_fails_takes_nothing_back(tmp_path: Path, tool: Tool) -> None:
    tool("gcc", "gcc")
    outcome = faults.run(tmp_path, SAMPLE, at_once=1)
    assert outcome.good, outcome
    assert not outcome.unreached
    assert outcome.failed >= 24


@dataclass
class SmallDisk:
    """A file system of its own, in a mount namespace of its own, and what lies there."""

    path: Path
    holder: int

    @property
    def inside(self) -> Path:
        """The same folder as we see it."""
        return Path(f"/proc/{self.holder}/root{self.path}")

    @property
    def ballast(self) -> Path:
        return self.inside / "ballast"

    def fill(self, free: int) -> None:
        """Leave so many octets free."""
        found = os.statvfs(self.inside)
        with self.ballast.open("wb") as ballast:
            octets = found.f_bavail * found.f_frsize - free
            os.posix_fallocate(ballast.fileno(), 0, octets)

    def free(self) -> None:
        """Let there be room again, and names."""
        self.ballast.unlink()
        more = ["mount", "-o", f"remount,size={SIZE},nr_inodes=8192", str(self.path)]
        subprocess.run(
            ["nsenter", "-t", str(self.holder), "-m", "--", *more], check=True
        )


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk]:
    path.mkdir()
    script = (
        f"mount -t tmpfs -o size={SIZE},nr_inodes={INODES} small '{path}'"
        " && echo mounted && exec sleep 600"
    )
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() != b"mounted\n":
                pytest.skip("nothing may be mounted here")
            yield SmallDisk(path, holder.pid)
        finally:
            holder.kill()


def hand_in(node: NodeProcess, mail: Mail, ident: str, length: int) -> int:
    octets = mail.note(ident, (LATER,), faults.LINE * (length // len(faults.LINE)))
    with Client(node.socket) as client:
        code = client.send_at_once((LATER,), octets)
    if code == 250:
        mail.accepted.add(ident)
    return code


def in_there(node: NodeProcess, *args: str) -> "subprocess.CompletedProcess[str]":
    """Run one of our commands where the node sees its disk."""
    return subprocess.run(
        [*node.before, MESH, *args, "-c", str(node.config)],
        check=False, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_says_452_late_and_goes_on(world: World, tmp_path: Path) -> None:
    alpha = world.node("alpha", state='"small/state"', drop='"small/drop"')
    bravo = world.node("bravo")
    alpha.also_serves(LATER, f"lmtp:{tmp_path}/later.sock")
    shared = directory(
        nodes=[parse_untrusted(mesh_here("export", "-c", str(bravo.config)))[0]],
        now=time.time(),
    )
    file = tmp_path / "directory.mesh"
    file.write_text(armour(shared))
    mail = Mail()
    with small_disk(alpha.home / "small") as disk:
        shutil.copytree(alpha.home / "state", disk.inside / "state")
        alpha.before = ["nsenter", "-t", str(disk.holder), "-m", "--"]
        alpha.start()
        disk.fill(FREE)
        codes = [250]
        while codes[-1] == 250:
            codes.append(hand_in(alpha, mail, f"m-{len(codes)}", FILL))
        assert codes[-1] == 452
        assert FILL * len(mail.accepted) >= LATE * FREE
        # The folder for a node that is down is as full: it says so, or keeps its word.
        left = mail.leave(alpha, "left", {}, alpha.before)
        assert left in (0, 75)
        adopted = in_there(alpha, "directory", "adopt", str(file))
        assert (adopted.returncode, len(adopted.stderr.splitlines())) in (
            (74, 1),
            (73, 1),
        )
        assert hand_in(alpha, mail, "full", FILL) == 452
        disk.free()
        eventually(
            "mail is taken", 10, lambda: hand_in(alpha, mail, "free", FILL) == 250
        )
        adopted = in_there(alpha, "directory", "adopt", str(file))
        assert adopted.returncode == 0, adopted.stderr
        eventually(
            "keys lie ready", 10, lambda: any((disk.inside / "drop").glob("key.*"))
        )
        assert alpha.stop() == 0
        assert mail.leave(alpha, "late", {}, alpha.before) == 0
        with Sink(tmp_path / "later.sock") as sink:
            alpha.start()
            later = {who for who in mail.accepted if LATER in mail.places[who]}
            eventually("all", 60, lambda: len(sink.copies) >= len(later))
            here = alpha.arrived(len(mail.accepted - later), 60)
            assert alpha.stop() == 0
        octets = [*here, *(copy.content for copy in sink.copies)]
        found = {faults.ident_of(each): faults.digest(each) for each in octets}
        assert found == {who: mail.digests[who] for who in mail.accepted}
        assert set(alpha.errors().splitlines()) == {"mesh: ready"}
