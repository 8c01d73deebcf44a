# SPDX-License-Identifier: MIT
"""Where a run was made: what its figures depend on, and nothing that names the machine."""

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import apsw

RIVALS = ("postfix", "stunnel4", "openssl")
LIBRARIES = ("trio", "PyNaCl", "cryptography", "apsw")


def facts() -> Mapping[str, str]:
    """Processor, kernel, disk, versions."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    return {
        "processor": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "system": f"Linux {platform.release()}, load {load} at the start",
        "queues": f"{file_system(Path(tempfile.gettempdir()))}",
        "rivals": packages(),
        "Python": f"{platform.python_version()}, {built()}",
        "libraries": ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES
        )
        + f", SQLite {apsw.sqlite_lib_version()}, {ssl.OPENSSL_VERSION}",
    }


def built() -> str:
    """Say whose Python it is: one built without a profile takes a tenth longer."""
    return "the system's own" if sys.base_prefix == "/usr" else "not the system's own"


def packages() -> str:
    """Say which of the rivals' packages are installed; Exim's is told by itself."""
    with suppress(OSError):
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *RIVALS],
            check=False,
            capture_output=True,
            text=True,
        )
        return ", ".join(line for line in done.stdout.splitlines() if line[-1] != " ")
    return "no packages of Debian's"


def file_system(path: Path) -> str:
    """Say what kind of file system a folder is on."""
    number = os.stat(path).st_dev  # noqa: PTH116
    device = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == device:
            return kind.split()[0]
    return "a file system of no name"
