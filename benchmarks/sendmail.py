# SPDX-License-Identifier: MIT
"""How long a remailer waits for mesh-sendmail: to a running node, and to a stopped one.

    up      process start -> node.toml -> local socket -> the spool's fsync -> exit 0
    down    process start -> node.toml -> sealed -> drop folder's fsyncs -> exit 0

`python -m benchmarks.sendmail [--runs N] [--length OCTETS] [--json]` makes a node in a
temporary folder.  Each run is one process with an empty environment, from its start to
its end, by the wall clock; beside it a Python that does nothing and `cat` as the floor.
Targets: 60 ms up, 120 ms down (medians, on a machine with nothing else to do).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.processes import MESH, free_port, mesh, running, wait_ready
from benchmarks.result import Figure, Result, Scale, Series, Tell

SENDMAIL = str(Path(MESH).with_name("mesh-sendmail"))
TARGETS = {"up": 60.0, "down": 120.0}
RECIPIENT = "mix@alpha.test"


def once(command: list[str], message: bytes) -> float:
    """Run one process to its end; milliseconds."""
    started = time.perf_counter()
    subprocess.run(command, input=message, env={}, check=True)
    return (time.perf_counter() - started) * 1000


def measure(runs: int, length: int) -> dict[str, list[float]]:
    """Make a node, hand mail over to it, stop it, hand mail over to nobody."""
    message = b"Subject: x\n\n" + b"x" * 70 + b"\n"
    message += (b"y" * 69 + b"\n") * (length // 70)
    with (
        tempfile.TemporaryDirectory(prefix="mesh-") as name,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        home = Path(name) / "alpha"
        address = f"127.0.0.1:{free_port()}"
        mesh(
            "init", str(home), "--name", "alpha", "--address", address,
            "--remailer", RECIPIENT,
        )  # fmt: skip
        config = str(home / "node.toml")
        send = [SENDMAIL, "-c", config, "-i", RECIPIENT]
        task = progress.add_task("runs", total=4 * runs)

        def several(command: list[str]) -> list[float]:
            once(command, message)  # loads the disk's cache
            found = []
            for _ in range(runs):
                found.append(once(command, message))
                progress.advance(task)
            return found

        with running(MESH, "run", "-c", config) as node:
            wait_ready(node)
            up = several(send)
        return {
            "up": up,
            "down": several(send),
            "python": several([sys.executable, "-c", "pass"]),
            "cat": several(["/bin/cat", "/dev/null"]),
        }


def run(scale: Scale, tell: Tell) -> Result:
    """Time it for the suite."""
    tell("processes", 0.1)
    found = measure(scale.of(40, 3), 28_000)
    figures = tuple(
        Figure(
            f"28 kB, {name}", "ms", (Series("mesh", tuple(times)),), TARGETS.get(name),
            at_least=False,
        )
        for name, times in found.items()
    )  # fmt: skip
    return Result("sendmail", "mesh-sendmail, from start to end", figures)


def main() -> None:
    """Print a table or JSON."""
    parser = argparse.ArgumentParser(description="time mesh-sendmail")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--length", type=int, default=28_000, help="octets")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.runs, args.length)
    rows = {
        name: {
            "median_ms": statistics.median(times),
            "least_ms": min(times),
            "p90_ms": sorted(times)[len(times) * 9 // 10],
        }
        for name, times in found.items()
    }
    if args.json:
        print(json.dumps({"length": args.length, "runs": args.runs, **rows}, indent=2))
        return
    table = Table("", "median ms", "least", "p90", "target")
    for name, row in rows.items():
        target = f"<= {TARGETS[name]:.0f}" if name in TARGETS else ""
        table.add_row(name, *(f"{value:.1f}" for value in row.values()), target)
    print(f"one message of {args.length} octets, {args.runs} processes each")
    Console().print(table)


if __name__ == "__main__":
    main()
