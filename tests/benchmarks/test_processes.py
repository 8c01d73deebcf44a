# SPDX-License-Identifier: MIT
"""Groups of processes, and which control group they come to."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import benchmarks.processes
from benchmarks.processes import (
    REST_SECONDS,
    BenchmarkError,
    Group,
    cgroup_home,
    wait_at_rest,
    wait_ready,
)

BUSY = (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    while time.process_time() < 0.2: pass\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "left = os.fork()\n"
    "if left == 0:\n"
    "    os.setsid()\n"
    "    time.sleep(600)\n"
    "print(left, flush=True)\n"
    "time.sleep(600)\n"
)
MOUNTS = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"


def has_ended(pid: int) -> bool:
    """Whether it is gone, or has nobody who waits for it; a kill is not at once."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_where_control_groups_are() -> None:
    found = cgroup_home(MOUNTS, "1:cpu:/a\n0::/user.slice/x\n")
    assert found == Path("/sys/fs/cgroup/user.slice/x")
    assert cgroup_home("proc /proc proc rw 0 0\n", "0::/\n") is None
    assert cgroup_home(MOUNTS, "1:cpu:/a\n") is None


@pytest.mark.parametrize("may_make", [True, False])
def test_a_group_counts_what_has_ended_and_ends_the_rest(
    may_make: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not may_make:
        monkeypatch.setattr(benchmarks.processes, "_new_cgroup", lambda _: None)
    with Group("test") as group:
        process = group.start(sys.executable, "-c", BUSY, stdout=subprocess.PIPE)
        assert process.stdout
        with process.stdout as said:
            left = int(said.readline())
        assert {process.pid, left} <= set(group.pids())
        assert group.cpu() >= 0.2
        assert group.memory() > 100_000
    assert process.returncode == -15
    assert has_ended(left)


def said_by(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)


def test_a_node_is_ready_when_it_says_so_whatever_it_said_before() -> None:
    code = (
        "import sys; sys.stderr.write('already\\nmesh: ready\\n'); sys.stderr.flush()"
    )
    with said_by(code) as node:
        wait_ready(node)
        assert node.stderr is not None
        assert node.stderr.read() == b""


@pytest.mark.parametrize("words", ["this host wakes 9 us late,\nset 64", "already"])
def test_what_a_node_says_that_does_not_start_is_told(words: str) -> None:
    with (
        said_by(f"import sys; sys.exit({words!r})") as node,
        pytest.raises(
            BenchmarkError, match="did not start.*" + " ".join(words.split())
        ),
    ):
        wait_ready(node)


@pytest.mark.parametrize(
    ("used", "looks"),
    [((0.0, 0.0), 1), ((0.1, 0.3, 0.6, 0.61), 3), (tuple(map(float, range(99))), 20)],
)
def test_programs_are_waited_for_until_they_are_at_rest(
    used: tuple[float, ...], looks: int
) -> None:
    slept: list[float] = []
    told = iter(used)
    wait_at_rest(lambda: next(told), slept.append)
    assert slept == [REST_SECONDS] * looks
