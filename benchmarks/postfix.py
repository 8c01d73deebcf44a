# SPDX-License-Identifier: MIT
"""Two Postfixes between smtp-source and smtp-sink, from configurations of their own.

    smtp-source -> smtpd, cleanup -> queue -> qmgr, smtp -- TLS --> smtpd, cleanup -> queue
                -> qmgr, lmtp -> smtp-sink

The programs are those that are installed (scripts/rivals); main.cf, master.cf, queues,
data and the certificate are made in a folder, and nothing of /etc/postfix is read but
what Postfix's own start looks at.  As it comes each queue file is synced before the 250.
What is set for speed: no delay of the intake (in_flow_delay), no limits on one client, as
many processes as are asked for, 20 deliveries at once from the start; and, in one of the
two variants, TLS connections that are used again.  There is no syslog: what an operator's
host would write of each message to its log is not written.
"""

import os
import pwd
import shutil
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
    tool,
    wait_listening,
)

SESSIONS_MAX: Final = 300
SERVICES: Final = """\
127.0.0.1:{port} inet n - n - {most} smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
"""
COMMON: Final = {
    "compatibility_level": "3.6",
    "myhostname": "{name}.test",
    "mydestination": "",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "mynetworks": "127.0.0.0/8",
    "alias_maps": "",
    "alias_database": "",
    "local_recipient_maps": "",
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
    "smtpd_peername_lookup": "no",
    "smtpd_client_connection_count_limit": "0",
    "in_flow_delay": "0",
    "message_size_limit": "30000000",
    "mailbox_size_limit": "0",
    "default_process_limit": str(SESSIONS_MAX),
    "initial_destination_concurrency": "20",
    "default_destination_concurrency_limit": "20",
}


def is_there() -> str:
    """Say why there can be no Postfix here; nothing: there can."""
    if os.geteuid():
        return "Postfix starts as root only"
    if find_tool("postfix") is None or find_tool("smtp-source") is None:
        return "Postfix is not installed: scripts/rivals"
    return ""


class Instance:
    """One Postfix in a folder."""

    def __init__(
        self, folder: Path, name: str, without: str = "", **settings: str
    ) -> None:
        """Make its files; `without`: a service that it does not have."""
        self.port = free_port()
        self.group = Group(f"postfix-{name}")
        self.etc, queue, data = (folder / each for each in ("etc", "queue", "data"))
        for made in (folder, self.etc, queue, data):
            made.mkdir()
        user = pwd.getpwnam("postfix")
        os.chown(data, user.pw_uid, user.pw_gid)
        self.settings = {
            **{key: value.format(name=name) for key, value in COMMON.items()},
            **settings,
        }
        lines = {
            **self.settings,
            "queue_directory": str(queue),
            "data_directory": str(data),
        }
        main = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (self.etc / "main.cf").write_text(main)
        self._write_services(without)

    def start(self) -> None:
        """Start it; it makes its queues."""
        with (self.etc.parent / "said").open("wb") as said:
            self.group.start(
                tool("postfix"), "-c", str(self.etc), "start-fg",
                stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            wait_listening(self.port)
        except BenchmarkError as error:
            text = (self.etc.parent / "said").read_text(errors="replace")[-2000:]
            raise BenchmarkError(f"Postfix does not start: {text}") from error

    def _write_services(self, without: str = "") -> None:
        lines = SERVICES.format(port=self.port, most=SESSIONS_MAX).splitlines(True)
        kept = (line for line in lines if not without or line.split()[0] != without)
        (self.etc / "master.cf").write_text("".join(kept))

    def complete(self) -> None:
        """Give a running one all services."""
        self._write_services()
        subprocess.run(
            [tool("postfix"), "-c", str(self.etc), "reload"],
            check=True,
            capture_output=True,
        )


class Postfix(Pair):
    """The pair."""

    def __init__(self, folder: Path, sink: Path, *, reuse: bool) -> None:
        self.name = f"Postfix, {'reuse' if reuse else 'no reuse'}"
        folder.mkdir(parents=True)
        certificate = trustme.CA().issue_cert("bravo.test")
        files = folder / "chain.pem", folder / "key.pem"
        for number, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(str(files[0]), append=number > 0)
        certificate.private_key_pem.write_to_path(str(files[1]))
        files[1].chmod(0o600)
        self.bravo = Instance(
            folder / "bravo", "bravo",
            default_transport=f"lmtp:unix:{sink}",
            smtpd_tls_security_level="may",
            smtpd_tls_cert_file=str(files[0]),
            smtpd_tls_key_file=str(files[1]),
        )  # fmt: skip
        self.alpha = Instance(
            folder / "alpha", "alpha",
            relayhost=f"[127.0.0.1]:{self.bravo.port}",
            smtp_tls_security_level="encrypt",
            smtp_tls_connection_reuse="yes" if reuse else "no",
            smtp_tls_session_cache_database="btree:$data_directory/smtp_scache",
        )  # fmt: skip
        self.parts = {"alpha": self.alpha.group, "bravo": self.bravo.group}
        self.entry = f"inet:127.0.0.1:{self.alpha.port}"
        self.second = f"inet:127.0.0.1:{self.bravo.port}"

    @property
    def settings(self) -> Mapping[str, str]:
        """Version, and what is set."""
        told = {
            each.etc.parent.name: "; ".join(
                f"{key} = {value}"
                for key, value in each.settings.items()
                if "/" not in value and value
            )
            for each in (self.alpha, self.bravo)
        }
        return {
            self.name: version(),
            f"{self.name}, first": told["alpha"],
            f"{self.name}, second": told["bravo"],
        }

    def start(self) -> None:
        """Start both."""
        self.bravo.start()
        self.alpha.start()


def version() -> str:
    """Say which Postfix this is."""
    postconf = shutil.which("postconf", path="/usr/sbin:/usr/bin") or "postconf"
    done = subprocess.run(
        [postconf, "-d", "-h", "mail_version"],
        check=True,
        capture_output=True,
        text=True,
    )
    return f"Postfix {done.stdout.strip()}"
