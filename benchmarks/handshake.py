# SPDX-License-Identifier: MIT
"""How many handshakes a second: two nodes', and TLS 1.3's beside them.

    python -m benchmarks.handshake [--count N] [--runs N] [--json]

    mesh      three messages between an Initiator and a Gate: X25519 three times and
              ML-KEM-768, both sides proven by Ed25519
    OpenSSL   TLS 1.3 through Python's `ssl` with memory BIOs, no tickets, both sides
              proven by ECDSA P-256 certificates, its fastest: X25519MLKEM768 where
              this OpenSSL has it (3.5), else X25519 alone

Both ends are in this process, and nothing is sent: what is measured is the work of
both.  CPU is the thread's own time, which a busy machine does not stretch.
Runs of the two take turns.
"""

import argparse
import json
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mesh.core.clock import Clock
from mesh.core.crypto import (
    MlKem768,
    SystemEntropy,
    signing_key,
    signing_public,
    x25519_public,
)
from mesh.core.gate import Gate
from mesh.core.handshake import Initiator, PeerKeys

KLASS: Final = 3
HYBRID_SINCE: Final = (3, 5)
"""OpenSSL's version from which X25519MLKEM768 is there, and is its first choice."""
ROUNDS: Final = 10
"""Flights until both ends of a TLS handshake are ready, at most."""


@dataclass
class Result:
    """One run of both."""

    handshakes: int
    rival: str
    per_second: dict[str, float]
    cpu_us: dict[str, float]


class Mesh:
    """Two nodes that know each other."""

    def __init__(self) -> None:
        self._entropy, self._kem = SystemEntropy(), MlKem768()
        self._identity, self._static = (
            signing_key(self._entropy.key()),
            (self._entropy.key()),
        )
        theirs, static = signing_key(self._entropy.key()), self._entropy.key()
        us = PeerKeys(
            "near", signing_public(self._identity), (x25519_public(self._static),)
        )
        self._peer = PeerKeys("far", signing_public(theirs), (x25519_public(static),))
        self._gate = Gate(
            network="mesh",
            identity=theirs,
            statics=[static],
            find_peer=lambda key: us if key == us.link_keys[0] else None,
            counters={},
            clock=Clock.GREEDY,
            klass=KLASS,
            kem=self._kem,
            entropy=self._entropy,
        )
        self._counter = 0

    def shake(self) -> None:
        """Make one handshake, and wipe its keys."""
        self._counter += 1
        initiator = Initiator(
            network="mesh",
            identity=self._identity,
            static=self._static,
            peer=self._peer,
            counter=self._counter,
            clock=Clock.GREEDY,
            klass=KLASS,
            kem=self._kem,
            entropy=self._entropy,
        )
        now = float(self._counter)
        responder = self._gate.receive_message_1_untrusted(initiator.message_1(), now)
        message_3 = initiator.receive_message_2_untrusted(responder.message_2)
        responder.receive_message_3_untrusted(message_3, now).wipe()
        initiator.session().wipe()


class Tls:
    """Two ends of TLS 1.3 that know each other's certificates."""

    def __init__(self, folder: Path) -> None:
        self._near = _context(ssl.PROTOCOL_TLS_CLIENT, folder, "near", "far")
        self._far = _context(ssl.PROTOCOL_TLS_SERVER, folder, "far", "near")

    def shake(self) -> None:
        """Make one handshake."""
        to_far, to_near = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            self._near.wrap_bio(to_near, to_far),
            self._far.wrap_bio(to_far, to_near, server_side=True),
        ]
        for _ in range(ROUNDS):
            ends = [end for end in ends if not _is_ready(end)]
            if not ends:
                return
        raise RuntimeError("the rival's handshake does not end")


def _is_ready(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _context(protocol: int, folder: Path, name: str, other: str) -> ssl.SSLContext:
    """Make one end's settings, and its certificate if it has none."""
    for each in (name, other):
        if not (folder / f"{each}.pem").exists():
            words = [
                "openssl", "req", "-x509", "-newkey", "ec", "-nodes",
                "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-days", "2", "-subj", f"/CN={each}",
                "-keyout", str(folder / f"{each}.key"),
                "-out", str(folder / f"{each}.pem"),
            ]  # fmt: skip
            subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    context.load_verify_locations(folder / f"{other}.pem")
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


def rival() -> str:
    """Name the rival by what it agrees a key with."""
    hybrid = ssl.OPENSSL_VERSION_INFO[:2] >= HYBRID_SINCE
    group = "X25519MLKEM768" if hybrid else "X25519"
    version = " ".join(ssl.OPENSSL_VERSION.split()[:2])
    return f"{version} {group}"


def _measure(shake: Callable[[], None], count: int) -> tuple[float, float]:
    """Do it so often; seconds and CPU seconds of one."""
    shake()
    start, cpu = time.monotonic(), time.thread_time()
    for _ in range(count):
        shake()
    return (time.monotonic() - start) / count, (time.thread_time() - cpu) / count


def run(count: int = 500) -> Result:
    """Measure both once, one after the other."""
    result = Result(count, rival(), {}, {})
    with tempfile.TemporaryDirectory() as folder:
        for name, shake in (("mesh", Mesh().shake), ("tls", Tls(Path(folder)).shake)):
            seconds, cpu = _measure(shake, count)
            result.per_second[name] = 1 / seconds
            result.cpu_us[name] = cpu * 1e6
    return result


def main() -> None:
    """Run as often as asked and print a table or JSON."""
    parser = argparse.ArgumentParser(description="handshakes a second, both ends")
    parser.add_argument("--count", type=int, default=500, help="handshakes a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        track = progress.track(range(args.runs), description="handshakes")
        results = [run(args.count) for _ in track]
    if args.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return
    table = Table("", "a second", "from", "to", "CPU us", "from", "to")
    for name, shown in (("mesh", "mesh"), ("tls", results[0].rival)):
        row = []
        for values in (
            [result.per_second[name] for result in results],
            [result.cpu_us[name] for result in results],
        ):
            row += [statistics.median(values), min(values), max(values)]
        table.add_row(shown, *(f"{value:,.0f}" for value in row))
    Console().print(table)
    shares = [result.cpu_us["tls"] / result.cpu_us["mesh"] for result in results]
    print(
        f"of the rival's, by CPU: {statistics.median(shares):.2f}, "
        f"{min(shares):.2f} to {max(shares):.2f}"
    )


if __name__ == "__main__":
    main()
