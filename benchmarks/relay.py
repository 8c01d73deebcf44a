# SPDX-License-Identifier: MIT
"""How many messages a second two nodes relay, each hop durable.

    smtp-source -> alpha's socket -> spool -> link (greedy) -> spool -> LMTP -> smtp-sink

`python -m benchmarks.relay [--messages N] [--length OCTETS] [--sessions N] [--json]`
makes two nodes in a temporary folder, links them on loopback, drives them with
Postfix's smtp-source over kept-open sessions, and waits until bravo's smtp-sink has
taken every message.  Printed: messages a second from the first octet in to the last
message out; CPU a message of each process (user and system, /proc/PID/stat); peak
memory (VmHWM).  Everything is on the disk of TMPDIR, twice.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

TICKS = os.sysconf("SC_CLK_TCK")
MESH = str(Path(sys.executable).with_name("mesh"))
STALL_SECONDS = 20


@dataclass
class Result:
    """One run."""

    messages: int
    length: int
    sessions: int
    seconds: float
    messages_per_second: float
    accepted_per_second: float
    cpu_us: dict[str, float]
    peak_mb: dict[str, float]


def free_port() -> int:
    """Return a port that nobody has at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def mesh(*args: str) -> str:
    """Run a command of the product and return its output."""
    done = subprocess.run([MESH, *args], check=True, capture_output=True, text=True)
    return done.stdout


def tool(name: str) -> str:
    """Find a program of Postfix, which Debian puts into /usr/sbin."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        sys.exit(f"{name} is not installed: apt-get install postfix")
    return found


def make_pair(folder: Path, sink: Path) -> None:
    """Two nodes that know each other; bravo delivers to the sink."""
    for name, deliver in (("alpha", "maildir:Maildir"), ("bravo", f"lmtp:{sink}")):
        home = folder / name
        address = f"127.0.0.1:{free_port()}"
        remailer = f"mix@{name}.test={deliver}"
        mesh(
            "init",
            str(home),
            "--name",
            name,
            "--address",
            address,
            "--remailer",
            remailer,
        )
        toml = home / "node.toml"
        toml.write_text(
            toml.read_text().replace('clock = "renewal"', 'clock = "greedy"')
        )
    for name, other in (("alpha", "bravo"), ("bravo", "alpha")):
        file = folder / f"{other}.mesh"
        file.write_text(mesh("export", "-c", str(folder / other / "node.toml")))
        mesh(
            "peers", "add", "-c", str(folder / name / "node.toml"),
            "--serves", f"mix@{other}.test", str(file),
        )  # fmt: skip


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program and end it, and only it, in the end."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(15)


def wait_ready(node: subprocess.Popen[bytes]) -> None:
    """Return when the node has said that it is ready."""
    if node.stderr is None or b"ready" not in node.stderr.readline():
        sys.exit("a node did not start")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mb(pid: int) -> float:
    """Greatest resident memory of a process so far."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def source(path: Path, count: int, length: int, sessions: int) -> list[str]:
    """Command line of the driver: kept-open sessions, one recipient."""
    return [
        tool("smtp-source"), "-d", "-s", str(sessions), "-m", str(count),
        "-l", str(length), "-f", "from@alpha.test", "-t", "mix@bravo.test",
        f"unix:{path}",
    ]  # fmt: skip


def sink_for(path: Path, messages: int) -> list[str]:
    """Command line of a sink that ends when it has taken so many messages."""
    path.unlink(missing_ok=True)
    # As root it insists on giving that up.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    return [tool("smtp-sink"), *user, "-L", "-M", str(messages), f"unix:{path}", "512"]


def wait_listening(path: Path) -> None:
    """Return when somebody accepts on a socket."""
    for _ in range(500):
        with socket.socket(socket.AF_UNIX) as sock:
            if sock.connect_ex(str(path)) == 0:
                return
        time.sleep(0.01)
    sys.exit("the sink did not start")


def wait_taken(sink: subprocess.Popen[bytes], what: str) -> None:
    """Return when the sink has ended by itself: it has them all."""
    try:
        code = sink.wait(STALL_SECONDS)
    except subprocess.TimeoutExpired:
        sys.exit(f"the sink still waits for messages of {what}")
    if code:
        sys.exit(f"the sink ended with {code} in {what}")


def run(messages: int, length: int, sessions: int) -> Result:
    """Make, drive, measure, clean up."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-")))
        sink_path = folder / "sink.sock"
        make_pair(folder, sink_path)
        nodes = {
            name: stack.enter_context(
                running(MESH, "run", "-c", str(folder / name / "node.toml"))
            )
            for name in ("alpha", "bravo")
        }
        for node in nodes.values():
            wait_ready(node)
        local = folder / "alpha" / "local.sock"
        with running(*sink_for(sink_path, sessions)) as sink:
            wait_listening(sink_path)
            subprocess.run(source(local, sessions, length, sessions), check=True)
            wait_taken(sink, "the warming up")
        with running(*sink_for(sink_path, messages)) as sink:
            wait_listening(sink_path)
            pids = {name: node.pid for name, node in nodes.items()}
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            children = os.times()
            start = time.monotonic()
            subprocess.run(source(local, messages, length, sessions), check=True)
            accepted = time.monotonic() - start
            wait_taken(sink, "the run")
            seconds = time.monotonic() - start
            after = os.times()
        cpu = {
            n: (cpu_seconds(p) - before[n]) / messages * 1e6 for n, p in pids.items()
        }
        both = after.children_user + after.children_system
        both -= children.children_user + children.children_system
        cpu["source and sink"] = both / messages * 1e6
        return Result(
            messages,
            length,
            sessions,
            seconds,
            messages / seconds,
            messages / accepted,
            cpu,
            {name: peak_mb(pid) for name, pid in pids.items()},
        )


def main() -> None:
    """Run as often as asked and print a table or JSON."""
    parser = argparse.ArgumentParser(description="relay through two nodes")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=10_000, help="octets")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("relay", total=args.runs)
        for _ in range(args.runs):
            results.append(run(args.messages, args.length, args.sessions))
            progress.advance(task)
    if args.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    table = Table(
        "run",
        "msg/s",
        "accepted/s",
        *results[0].cpu_us,
        *(f"{n} MB" for n in results[0].peak_mb),
    )
    for number, r in enumerate(results, 1):
        table.add_row(
            str(number), f"{r.messages_per_second:.0f}", f"{r.accepted_per_second:.0f}",
            *(f"{v:.0f} us" for v in r.cpu_us.values()),
            *(f"{v:.0f}" for v in r.peak_mb.values()),
        )  # fmt: skip
    rates = [r.messages_per_second for r in results]
    print(
        f"{args.messages} messages of {args.length} octets over {args.sessions} sessions"
    )
    Console().print(table)
    print(
        f"median {statistics.median(rates):.0f} messages/s, {min(rates):.0f} to {max(rates):.0f}"
    )


if __name__ == "__main__":
    main()
