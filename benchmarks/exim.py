# SPDX-License-Identifier: MIT
"""Two Exims between smtp-source and smtp-sink, from an unpacked package.

    smtp-source -> daemon -> spool -> smtp -- TLS --> daemon -> spool -> lmtp -> smtp-sink

Exim's package excludes Postfix's, so scripts/rivals unpacks it.  It insists on a user
`Debian-exim`: it runs where only it sees an /etc/passwd that has one (a mount namespace of
its own).  As it comes both files of a message are synced before the 250.  What is set for
speed: no limits on sessions and on messages of one session, each message delivered at once,
no look-ups of names, root's rights given up where they are of no use, logs without detail.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trustme

from benchmarks.pairs import Pair
from benchmarks.processes import (
    BenchmarkError,
    Group,
    find_tool,
    free_port,
    wait_listening,
)

ROOT: Final = Path(__file__).resolve().parent.parent / "build" / "rivals" / "exim"
BINARY: Final = ROOT / "usr" / "sbin" / "exim4"
USER: Final = "Debian-exim"
UID: Final = 64990
"""Debian gives no user this number."""
BIND: Final = 'mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && exec "$@"'
MAIN: Final = """\
primary_hostname = {name}.test
local_interfaces = 127.0.0.1.{port}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
pid_file_path = {folder}/spool/pid
log_selector = -all
keep_environment =
host_lookup =
helo_lookup_domains =
rfc1413_query_timeout = 0s
smtp_accept_max = 400
smtp_accept_max_per_connection = 1000000
smtp_accept_queue_per_connection = 0
smtp_connect_backlog = 512
smtp_enforce_sync = false
message_size_limit = 30M
deliver_drop_privilege = true
trusted_users = Debian-exim
acl_smtp_rcpt = take
tls_advertise_hosts = {advertise}
tls_certificate = {chain}
tls_privatekey = {key}
begin acl
take:
  accept
begin routers
next:
{router}
begin transports
{transport}
begin retry
* * F,1h,1s
"""
ON_ROUTER: Final = """\
  driver = manualroute
  route_list = * 127.0.0.1::{port} byname
  self = send
  transport = on"""
ON_TRANSPORT: Final = """\
on:
  driver = smtp
  hosts_require_tls = *
  tls_verify_hosts =
  tls_try_verify_hosts =
  hosts_try_dane =
  connection_max_messages = 500"""
OUT_ROUTER: Final = """\
  driver = accept
  transport = out"""
OUT_TRANSPORT: Final = """\
out:
  driver = lmtp
  socket = {sink}
  user = Debian-exim"""


def is_there() -> str:
    """Say why there can be no Exim here; nothing: there can."""
    if os.geteuid():
        return "Exim starts as root only"
    if not BINARY.exists() or find_tool("unshare") is None:
        return "Exim is not unpacked: scripts/rivals"
    return ""


def command(folder: Path, *arguments: str) -> list[str]:
    """Say what runs it where there is its user."""
    libraries = ROOT / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    return [
        "/usr/bin/env", f"LD_LIBRARY_PATH={libraries}", "unshare", "--mount", "/bin/sh",
        "-c", BIND, str(folder), str(BINARY), "-C", str(folder / "exim.conf"), *arguments,
    ]  # fmt: skip


def users(folder: Path) -> None:
    """Write the lists of users that it sees."""
    for name, line in (
        ("passwd", f"{USER}:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin"),
        ("group", f"{USER}:x:{UID}:"),
    ):
        there = Path("/etc", name).read_text().rstrip("\n")
        (folder / name).write_text(f"{there}\n{line}\n")
        (folder / name).chmod(0o644)


class Instance:
    """One Exim in a folder."""

    def __init__(self, folder: Path, name: str, **parts: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.group = Group(f"exim-{name}")
        for made in (folder, folder / "spool", folder / "log"):
            made.mkdir()
            os.chown(made, UID, UID)
        users(folder)
        text = MAIN.format(name=name, port=self.port, folder=folder, **parts)
        (folder / "exim.conf").write_text(text)

    def start(self) -> None:
        """Start its daemon."""
        with (self.folder / "said").open("wb") as said:
            words = command(self.folder, "-bdf", "-q1m")
            self.group.start(*words, stdout=said, stderr=subprocess.STDOUT)
        try:
            wait_listening(self.port)
        except BenchmarkError as error:
            logs = [self.folder / "said", *sorted((self.folder / "log").iterdir())]
            text = "".join(each.read_text(errors="replace") for each in logs)[-2000:]
            raise BenchmarkError(f"Exim does not start: {text}") from error


class Exim(Pair):
    """The pair."""

    name = "Exim"

    def __init__(self, folder: Path, sink: Path) -> None:
        folder.mkdir(parents=True)
        certificate = trustme.CA().issue_cert("bravo.test")
        chain, key = folder / "chain.pem", folder / "key.pem"
        for number, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(str(chain), append=number > 0)
        certificate.private_key_pem.write_to_path(str(key))
        os.chown(key, UID, UID)
        key.chmod(0o600)
        files = {"chain": str(chain), "key": str(key)}
        self.bravo = Instance(
            folder / "bravo", "bravo", advertise="*", router=OUT_ROUTER,
            transport=OUT_TRANSPORT.format(sink=sink), **files,
        )  # fmt: skip
        self.alpha = Instance(
            folder / "alpha", "alpha", advertise="",
            router=ON_ROUTER.format(port=self.bravo.port), transport=ON_TRANSPORT, **files,
        )  # fmt: skip
        self.parts = {"alpha": self.alpha.group, "bravo": self.bravo.group}
        self.entry = f"inet:127.0.0.1:{self.alpha.port}"
        self.second = f"inet:127.0.0.1:{self.bravo.port}"

    @property
    def settings(self) -> Mapping[str, str]:
        """Version, and what is set."""
        lines = (self.alpha.folder / "exim.conf").read_text().splitlines()
        main = lines[: lines.index("begin acl")]
        told = [line for line in main if "/" not in line and line[-1] != "="]
        return {
            self.name: version(self.alpha.folder),
            f"{self.name}, each": "; ".join(told),
        }

    def start(self) -> None:
        """Start both."""
        self.bravo.start()
        self.alpha.start()


def version(folder: Path) -> str:
    """Say which Exim this is."""
    done = subprocess.run(
        command(folder, "-bV"), check=True, capture_output=True, text=True
    )
    return done.stdout.partition(" #")[0]
