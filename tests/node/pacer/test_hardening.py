# SPDX-License-Identifier: MIT
"""What the pacer gave up, asked of the kernel and tried out in a child of our own."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from mesh.node.pacer.hardening import program

TRIES = """
import os, socket, sys
from mesh.node.pacer.hardening import follow_parent, give_up, hurry
follow_parent(int(sys.argv[1]))
hurry()
print("filter", give_up())
def tried(what):
    try:
        what()
    except OSError as error:
        return error.errno
    return 0
print("open", tried(lambda: os.open("/etc/hostname", os.O_RDONLY)))
print("socket", tried(socket.socket))
print("fork", tried(os.fork))
print("exec", tried(lambda: os.execv("/bin/true", ["true"])))
print("unlink", tried(lambda: os.unlink("/nowhere")))
print("rename", tried(lambda: os.rename("/nowhere", "/nowhere2", src_dir_fd=0)))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for at in (428, 429, 430, 438, 440):
    libc.syscall(at, -1, 0, 0, 0, 0)
    print(at, ctypes.get_errno())
print("dumpable", libc.prctl(3, 0, 0, 0, 0))
signal = ctypes.c_int()
libc.prctl(2, ctypes.byref(signal), 0, 0, 0)
print("signal", signal.value)
"""


def test_it_can_open_connect_start_and_remove_nothing_any_more() -> None:
    run = subprocess.run(
        [sys.executable, "-c", TRIES, str(os.getpid())],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    names = "open socket fork exec unlink rename 428 429 430 438 440"
    refused = [f"{name} {errno.EPERM}" for name in names.split()]
    assert run.stdout.splitlines() == [
        "filter True",
        *refused,
        "dumpable 0",
        f"signal {signal.SIGKILL:d}",
    ]


NO_REAL_TIME = """
import os, resource
from mesh.node.pacer.hardening import hurry
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # as its parent
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
hurry()
print(os.sched_getscheduler(0))
"""


def test_who_may_not_run_in_real_time_is_no_batch_as_its_parent_is() -> None:
    command = [sys.executable, "-c", NO_REAL_TIME]
    run = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert int(run.stdout) == os.SCHED_OTHER


def test_a_child_of_somebody_else_ends_at_once() -> None:
    run = subprocess.run(
        [sys.executable, "-c", TRIES, "1"], capture_output=True, check=True, text=True
    )
    assert not run.stdout


def test_the_filter_refuses_other_machines_calls_and_jumps_where_it_should() -> None:
    code = program(0xC000003E, [2, 41])
    lines = [code[at : at + 8] for at in range(0, len(code), 8)]
    assert len(lines) == 4 + 2 + 2
    assert lines[1][3] == len(lines) - 3  # another machine's: to the last line
    assert lines[3][2] == len(lines) - 5  # x32: there too
    for at in (4, 5):
        assert at + 1 + lines[at][2] == len(lines) - 1


def test_the_process_itself_has_all_that(tmp_path: object) -> None:
    del tmp_path
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            pacer = subprocess.Popen(
                [sys.executable, "-I", "-m", "mesh.node.pacer", str(os.getpid())],
                stdin=theirs.fileno(),
            )
        from mesh.node.pacer.histogram import Histogram
        from mesh.node.pacer.word import NUMBER, Kind, say

        _, memory = Histogram.create()
        say(ours, Kind.HELLO, value=1, descriptors=[memory])
        assert ours.recv(NUMBER.size) == bytes(4)  # its trial is over: it is ready
        lines = Path(f"/proc/{pacer.pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert int(status["VmRSS"].split()[0]) <= 25_000
    assert pacer.wait(timeout=5) == 0  # its parent's end of the socket is gone
