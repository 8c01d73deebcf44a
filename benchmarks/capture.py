# SPDX-License-Identifier: MIT
"""A real link as its snooper sees it: two nodes, a veth pair, the kernel's timestamps.

    python -m benchmarks.capture [--rate R] [--blocks N] [--seconds S] [--loss P]
                                 [--json FILE] | --read FILE

As root, with ip (iproute2), ethtool and tcpdump.  Each node has a network namespace of
its own; MTU 1500, TSO, GSO and GRO off, so that a packet is what the wire would carry.
A coin is thrown for each block of S seconds: idle, or mail from the first node to the
other all the time.  Mail is handed over as fast as the link carries it, and has all
arrived before the next block begins, so that an idle block is idle.  P is the share of
packets that get lost, where the kernel has netem.

    capture(rate, coins, seconds, loss) -> [Row]    cells.py; save, load: as JSON
    look(rows) -> [Comparison]                      rank.py
"""

import argparse
import io
import os
import secrets
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.cells import NAMES, Row, load, packets, save, table
from benchmarks.rank import Comparison, Spread, compare
from mesh.cli.main import main as main_of_mesh
from mesh.core.cell import CELL_LEN

MESH: Final = (sys.executable, "-m", "mesh")
PORT: Final = 7000
UP_SECONDS: Final = 20.0
MAIL: Final = b"x" * 70 + b"\r\n"
MESSAGE_SECONDS: Final = 0.5
"""That a message takes on the link."""
ON_THE_WAY: Final = 3
"""Messages at once, so that the next one is always there."""
WAIT_SECONDS: Final = 0.02


class NoLossError(Exception):
    """Packets cannot be made to get lost here."""


FEATURES: Final[Mapping[str, Callable[[Row], float]]] = {
    "gap, ms": lambda row: 1e3 * row.gap,
    "ACK delay, ms": lambda row: 1e3 * row.ack_delay,
    "ACKs a cell": lambda row: row.acks,
    "segments": lambda row: len(row.sizes),
    "first segment, octets": lambda row: row.sizes[0],
    "sent again": lambda row: row.again,
}
"""What is compared: each alone.  A snooper would look at all together."""


def address(side: int) -> str:
    """A node's, in the network of the two."""
    return f"10.83.0.{side + 1}"


def run(*words: str) -> str:
    """Run a program of the system; its output."""
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def mesh(*words: str) -> str:
    """Run a verb of ours in this process, where that is no matter of time; its output."""
    with redirect_stdout(io.StringIO()) as printed:
        code = main_of_mesh(words)
    if code:
        raise RuntimeError(f"mesh {words[0]} ended with {code}")
    return printed.getvalue()


@contextmanager
def namespaces(loss: float = 0.0) -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a wire; NoLossError: it cannot lose packets."""
    one, other = (f"mesh-{name}-{os.getpid()}" for name in NAMES)
    with ExitStack() as stack:
        for name in (one, other):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
        run(
            "ip", "link", "add", "wire0", "netns", one, "mtu", "1500", "type", "veth",
            "peer", "name", "wire0", "netns", other, "mtu", "1500",
        )  # fmt: skip
        for side, name in enumerate((one, other)):
            inside = ("ip", "netns", "exec", name)
            run(*inside, "ethtool", "-K", "wire0", "tso", "off", "gso", "off",
                "gro", "off")  # fmt: skip
            run(*inside, "ip", "address", "add", f"{address(side)}/24", "dev", "wire0")
            for link in ("lo", "wire0"):
                run(*inside, "ip", "link", "set", link, "up")
            if loss:
                lose(name, loss)
        yield one, other


def lose(space: str, loss: float) -> None:
    """Let a share of the packets that leave a namespace get lost."""
    words = ("ip", "netns", "exec", space, "tc", "qdisc", "add", "dev", "wire0")
    try:
        run(*words, "root", "netem", "loss", f"{100 * loss:g}%")
    except (OSError, subprocess.CalledProcessError):
        raise NoLossError(
            "no loss: this kernel has no netem, or tc is missing"
        ) from None


def quiet(words: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a program whose words nobody reads."""
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End a program of ours at the end."""
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def make_nodes(folder: Path, rate: float) -> list[Path]:
    """Make two nodes that know each other; their node.toml."""
    configs = []
    for side, name in enumerate(NAMES):
        home = folder / name
        where = f"{address(side)}:{PORT}"
        mesh("init", str(home), "--name", name, "--address", where,
            "--remailer", f"mix@{name}.test")  # fmt: skip
        config = home / "node.toml"
        lines = []
        for line in config.read_text().splitlines():
            key = line.partition(" =")[0]
            changed = {
                "listen": f'["{where}"]',
                "cells_per_second": f"{rate:g}",
                "exit": "false",
            }.get(key)
            lines.append(f"{key} = {changed}" if changed else line)
        config.write_text("\n".join(lines) + "\n")
        configs.append(config)
    for side, config in enumerate(configs):
        other = folder / f"{NAMES[1 - side]}.mesh"
        other.write_text(mesh("export", "-c", str(configs[1 - side])))
        mesh("peers", "add", "-c", str(config),
            f"--serves=mix@{NAMES[1 - side]}.test", str(other))  # fmt: skip
    return configs


def wait_up(config: Path) -> None:
    """Wait for the link; RuntimeError when there is none."""
    until = time.monotonic() + UP_SECONDS
    while time.monotonic() < until:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if main_of_mesh(["status", "-c", str(config)]) == 0:
                return
        time.sleep(WAIT_SECONDS)
    raise RuntimeError("the link does not come up")


class Inbox:
    """What has come to a node's remailer since now."""

    def __init__(self, home: Path) -> None:
        self._new = home / "Maildir" / "new"
        self._before = self._count

    @property
    def _count(self) -> int:
        return sum(1 for _ in self._new.iterdir()) if self._new.exists() else 0

    @property
    def came(self) -> int:
        """How many messages."""
        return self._count - self._before


def send_mail(homes: Sequence[Path], rate: float, stop: threading.Event) -> None:
    """Hand in one message after the other, as fast as they arrive; end with none on its way."""
    inbox = Inbox(homes[1])
    content = MAIL * (1 + int(rate * CELL_LEN * MESSAGE_SECONDS) // len(MAIL))
    whom = [f"mix@{name}.test" for name in NAMES]
    handed = 0
    with smtplib.LMTP(str(homes[0] / "local.sock"), local_hostname="mix") as door:
        while not stop.is_set():
            while handed - inbox.came < ON_THE_WAY:
                door.sendmail(whom[0], [whom[1]], content)
                handed += 1
            stop.wait(WAIT_SECONDS)
    until = time.monotonic() + UP_SECONDS
    while inbox.came < handed:
        if time.monotonic() > until:
            raise RuntimeError("mail does not arrive")
        time.sleep(WAIT_SECONDS)


def capture(
    rate: float,
    coins: Sequence[bool],
    seconds: float,
    loss: float = 0.0,
    tick: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Run the two nodes, block after block; the table.  `tick` is called at each end."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # tcpdump writes as a user of its own
        configs = make_nodes(folder, rate)
        pair = stack.enter_context(namespaces(loss))
        file = folder / "wire.pcap"
        words = ["ip", "netns", "exec", pair[0], "tcpdump", "-i", "wire0", "-w"]
        words += [str(file), "-s", "96", "-B", "8192", "-U", "-Z", "root"]
        words += ["--time-stamp-precision=nano", "tcp"]
        snooper = quiet(words)
        stack.enter_context(ended(snooper))
        for config, space in zip(configs, pair, strict=True):
            words = ["ip", "netns", "exec", space, *MESH, "run", "-c", str(config)]
            stack.enter_context(ended(quiet(words)))
        wait_up(configs[0])
        homes = [config.parent for config in configs]
        blocks = []
        with ThreadPoolExecutor(1) as pool:
            for busy in coins:
                stop = threading.Event()
                begin = time.time()
                sending = busy and pool.submit(send_mail, homes, rate, stop)
                stop.wait(seconds)
                blocks.append((begin, time.time(), busy))
                stop.set()
                if sending:
                    sending.result()
                tick()
        snooper.terminate()
        snooper.wait()
        return table(packets(file.read_bytes()), blocks)


def look(rows: Sequence[Row], sender: str = NAMES[0]) -> list[Comparison]:
    """Compare each value of one node's cells, idle against busy."""
    sides: list[list[list[Row]]] = [[], []]
    mine = [row for row in rows if row.sender == sender]
    for block in sorted({row.block for row in mine}):
        some = [row for row in mine if row.block == block]
        sides[some[0].busy].append(some)
    found = []
    for name, value in FEATURES.items():
        idle, busy = ([list(map(value, some)) for some in side] for side in sides)
        found.append(compare(name, idle, busy))
    return found


def show(rows: Sequence[Row]) -> None:
    """Print what `look` found, for both nodes' cells."""
    for sender in NAMES:
        title = f"{sender}'s cells"
        screen = Table("value", "idle", "busy", "AUC", title=title)
        for each in look(rows, sender):
            idle, busy = _figures(each.idle), _figures(each.busy)
            sure = f"{each.auc:.3f} [{each.auc_low:.3f}, {each.auc_high:.3f}]"
            mark = " *" if each.tells else ""
            screen.add_row(f"{each.name}", idle, busy, sure + mark)
        Console(width=110).print(screen)
    print("mean; median [quartiles]; cells.  AUC 0.5: no difference; * outside of it")


def _figures(one: Spread) -> str:
    return (
        f"{one.mean:.3f}; {one.middle:.3f} [{one.low:.3f}, {one.high:.3f}]; {one.count}"
    )


def throw(blocks: int) -> list[bool]:
    """Throw so many coins, until both sides have come twice: nothing to compare else."""
    while True:
        coins = [bool(secrets.randbits(1)) for _ in range(blocks)]
        if min(sum(coins), blocks - sum(coins)) >= min(2, blocks // 2):
            return coins


def main() -> None:
    """Capture, and look at it for the first time: idle against busy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=8.0)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--loss", type=float, default=0.0, help="0.01: one in a hundred"
    )
    parser.add_argument("--json", type=Path, help="write the table there")
    parser.add_argument("--read", type=Path, help="look at this table, capture nothing")
    args = parser.parse_args()
    if args.read:
        show(load(args.read))
        return
    with Progress() as progress:
        task = progress.add_task("blocks", total=args.blocks)
        try:
            rows = capture(
                args.rate,
                throw(args.blocks),
                args.seconds,
                args.loss,
                lambda: progress.advance(task),
            )
        except NoLossError as error:
            parser.exit(69, f"{error}\n")
    if args.json:
        save(rows, args.json)
    show(rows)


if __name__ == "__main__":
    main()
