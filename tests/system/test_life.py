# SPDX-License-Identifier: MIT
"""A node's start, end, and sudden death, as its operator sees them."""

import os
import resource
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system import nodes
from tests.system.client import Client
from tests.system.nodes import MESH, NodeProcess, World, eventually, mesh

BRAVO = "mix@bravo.test"


def test_socket_comes_last(world: World) -> None:
    """Whoever connects finds a ready node: the port is bound, the spool is open."""
    alpha = world.node("alpha")
    alpha.start(wait=False)
    eventually("a socket", 10, alpha.socket.exists)
    with Client(alpha.socket) as client:
        with socket.create_connection(("127.0.0.1", alpha.port), 1):
            pass
        assert client.send("mix@alpha.test", b"first\r\n") == 250
    assert alpha.arrived(1) == [b"first\n"]


def test_ready_is_said_on_standard_error(world: World) -> None:
    alpha = world.node("alpha")
    alpha.start()
    assert alpha.errors() == "mesh: ready\n"


@pytest.mark.parametrize(
    ("clock", "policy"), [("greedy", os.SCHED_BATCH), ("renewal", os.SCHED_OTHER)]
)
def test_who_hides_nothing_takes_the_processor_from_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, clock: str, policy: int
) -> None:
    """The loop and its threads; the process that sends cells is not among them."""
    monkeypatch.setattr(nodes, "MESH", _under("--other", world.folder))
    alpha = world.node("alpha", clock=f'"{clock}"')
    alpha.start()
    pacer = alpha.pacer()
    assert alpha.process is not None
    assert pacer is not None
    threads = Path(f"/proc/{alpha.process.pid}/task").iterdir()
    policies = set()
    for thread in threads:
        with suppress(ProcessLookupError):  # some end when they have nothing to do
            policies.add(os.sched_getscheduler(int(thread.name)))
    assert policies == {policy}
    assert os.sched_getscheduler(pacer) in {os.SCHED_FIFO, os.SCHED_OTHER}


def test_the_operator_s_own_policy_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "MESH", _under("--idle", world.folder))
    alpha = world.node("alpha")
    alpha.start()
    assert alpha.process is not None
    assert os.sched_getscheduler(alpha.process.pid) == os.SCHED_IDLE


def _under(policy: str, folder: Path) -> str:
    """Write a program that is ours under a policy of the scheduler, not under this one's."""
    program = folder / f"mesh{policy}"
    program.write_text(f'#!/bin/sh\nexec chrt {policy} 0 {MESH} "$@"\n')
    program.chmod(0o700)
    return str(program)


@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-", "2> >(:)"])
def test_nobody_need_listen_on_standard_error(
    world: World, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """Closed, or a pipe whose reader went: it is ready all the same, and ends with 0."""
    alpha = world.node("alpha")
    program = world.folder / "mesh-that-is-not-heard"
    program.write_text(f'#!/bin/bash\nexec {MESH} "$@" {closed}\n')
    program.chmod(0o700)
    monkeypatch.setattr(nodes, "MESH", str(program))
    alpha.start()
    assert alpha.process is not None
    for number in (0, 1, 2):  # none of the spool's files
        there = Path(f"/proc/{alpha.process.pid}/fd/{number}").readlink()
        assert not there.is_relative_to(world.folder / "alpha" / "state")
    with Client(alpha.socket) as client:
        assert client.send("mix@alpha.test", b"heard\r\n") == 250
    assert alpha.arrived(1) == [b"heard\n"]
    assert alpha.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_in_order(pair: World, number: signal.Signals) -> None:
    """Both nodes linked and holding mail: exit 0 within 10 s, and nothing stays."""
    alpha, bravo = pair.nodes
    pair.start()
    with Client(alpha.socket) as client:
        assert client.send(BRAVO, b"up\r\n") == 250
        bravo.arrived(1)
        assert client.send(BRAVO, b"kept or there\r\n") == 250
        started = time.monotonic()
        assert alpha.process is not None
        alpha.process.send_signal(number)
        assert client.reply() in (421, 0)
    assert alpha.process.wait(10) == 0
    assert time.monotonic() - started < 10
    alpha.process = None
    assert not alpha.socket.exists()
    assert not alpha.leftovers()
    assert bravo.stop() == 0
    assert alpha.errors() == bravo.errors() == "mesh: ready\n"
    pair.start()
    assert sorted(bravo.arrived(2)) == [b"kept or there\n", b"up\n"]


def test_mail_waits_for_a_node_that_is_down(pair: World) -> None:
    alpha, bravo = pair.nodes
    alpha.start()
    with Client(alpha.socket) as client:
        assert client.send(BRAVO, b"waits\r\n") == 250
    assert alpha.stop() == 0
    pair.start()
    assert bravo.arrived(1) == [b"waits\n"]


def test_hang_up_looks_at_the_peers(world: World) -> None:
    alpha, bravo = world.node("alpha"), world.node("bravo")
    world.start()
    with Client(alpha.socket) as client:
        assert client.envelope(BRAVO) == [250, 550]
    world.introduce()
    assert alpha.process is not None
    alpha.process.send_signal(signal.SIGHUP)
    eventually("bravo is known", 2, lambda: _knows(alpha))
    with Client(alpha.socket) as client:
        assert client.send(BRAVO, b"hello\r\n") == 250
    assert bravo.arrived(1) == [b"hello\n"]


def _knows(node: NodeProcess) -> bool:
    with Client(node.socket) as client:
        return client.envelope(BRAVO) == [250, 250]


def test_removed_peer_gets_nothing_and_mail_waits(pair: World) -> None:
    """Within 2 s by itself; what waits goes when the peer is back."""
    alpha, bravo = pair.nodes
    pair.start()
    with Client(alpha.socket) as client:
        assert client.send(BRAVO, b"before\r\n") == 250
        bravo.arrived(1)
        mesh("peers", "remove", "-c", str(alpha.config), "bravo")
        eventually("bravo is a stranger", 2, lambda: not _knows(alpha))
    pair.introduce()
    eventually("bravo is back", 2, lambda: _knows(alpha))
    with Client(alpha.socket) as client:
        assert client.send(BRAVO, b"after\r\n") == 250
    assert sorted(bravo.arrived(2)) == [b"after\n", b"before\n"]


def test_startable_at_once_after_sudden_death(pair: World) -> None:
    alpha, bravo = pair.nodes
    pair.start()
    with Client(alpha.socket) as client:
        assert client.send(BRAVO, b"accepted\r\n") == 250
        alpha.kill()
    assert alpha.socket.exists()  # a stale one, which the next start replaces
    assert not alpha.leftovers()
    alpha.start()
    assert bravo.arrived(1) == [b"accepted\n"]
    bravo.kill()
    bravo.start()


def test_second_node_on_the_same_state(world: World) -> None:
    alpha = world.node("alpha")
    alpha.start()
    errors = mesh("run", "-c", str(alpha.config), code=69)
    assert errors.startswith("mesh: ")
    assert "in use by another node" in errors
    assert errors.count("\n") == 1
    with Client(alpha.socket) as client:
        assert client.greeting == 220


def test_taken_port(world: World) -> None:
    alpha = world.node("alpha")
    with socket.create_server(("127.0.0.1", alpha.port)):
        errors = mesh("run", "-c", str(alpha.config), code=73)
    assert f"127.0.0.1:{alpha.port}" in errors
    assert errors.count("\n") == 1
    assert not alpha.socket.exists()
    alpha.start()  # nothing of the failed start is in the way


def test_taken_socket(world: World) -> None:
    alpha = world.node("alpha")
    alpha.socket.write_text("somebody's file\n")
    errors = mesh("run", "-c", str(alpha.config), code=73)
    assert "local.sock" in errors
    assert alpha.socket.read_text() == "somebody's file\n"


def test_a_client_that_leaves_before_the_banner_is_nothing(world: World) -> None:
    alpha = world.node("alpha")
    alpha.start()
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(alpha.socket))
    with Client(alpha.socket) as client:
        assert client.send("mix@alpha.test", b"still here\r\n") == 250
    assert alpha.errors() == "mesh: ready\n"


def test_a_crowd_of_sessions_takes_no_files_from_the_spool(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soft limit of 256 files, 300 silent sessions, and mail is delivered at once."""
    alpha = world.node("alpha")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("the hard limit of open files is too low here")
    monkeypatch.setattr(nodes, "MESH", str(_with_few_files(world.folder)))
    alpha.start()
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    try:
        for one in crowd:
            one.connect(str(alpha.socket))
        with Client(alpha.socket) as client:
            assert client.send("mix@alpha.test", b"room for one more\r\n") == 250
        assert alpha.arrived(1, 3) == [b"room for one more\n"]
    finally:
        for one in crowd:
            one.close()


def _with_few_files(folder: Path) -> Path:
    """Write a program that is ours under a lower soft limit."""
    program = folder / "mesh-with-few-files"
    program.write_text(f'#!/bin/sh\nulimit -S -n 256\nexec {MESH} "$@"\n')
    program.chmod(0o700)
    return program


def test_nothing_of_a_message_is_on_any_disk_in_clear(pair: World) -> None:
    """Neither on its way nor after: only the remailer's own Maildir has it."""
    alpha, bravo = pair.nodes
    alpha.start()
    with Client(alpha.socket) as client:
        assert client.command(b"MAIL FROM:<s3cret@alpha.test>") == 250
        assert client.command(f"RCPT TO:<{BRAVO}>".encode()) == 250
        assert client.data(b"Message-ID: <s3cret@x>\r\n\r\n") == 250
    _has_no_secret(alpha)
    bravo.start()
    bravo.arrived(1)
    for node in pair.nodes:
        assert node.stop() == 0
        _has_no_secret(node)


def _has_no_secret(node: NodeProcess) -> None:
    files = [path for path in node.home.rglob("*") if path.is_file()]
    assert any(path.is_relative_to(node.home / "state" / "spool") for path in files)
    for path in files:
        public = path.name == "stderr" or path.parent.name == "drop"  # one-time keys
        assert path.stat().st_mode & 0o077 == 0 or public, path
        if "Maildir" not in path.parts:
            assert b"s3cret" not in path.read_bytes(), path


def test_two_nodes_of_the_demo(world: World) -> None:
    done = subprocess.run(
        [MESH, "demo"],
        check=False, capture_output=True, text=True, timeout=60,
        env={**os.environ, "TMPDIR": str(world.folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("demo: delivered 1 of 1; idle "), last
    assert last.endswith(" cells/s a link")
    assert not list(world.folder.iterdir())
