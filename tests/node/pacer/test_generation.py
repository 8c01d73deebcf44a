# SPDX-License-Identifier: MIT
"""The kernel's word about a machine that was begun from a snapshot."""

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.node.pacer import generation
from mesh.node.pacer.generation import WORDS_MAX, Generation, listen
from mesh.node.pacer.loop import FRESH_SECONDS, Machine

NEW = b"\0".join(
    [
        b"change@/devices/LNXSYSTM:00/LNXSYBUS:00/QEMUVGID:00",
        b"ACTION=change",
        b"SUBSYSTEM=acpi",
        b"NEW_VMGENID=1",
        b"SEQNUM=1234",
        b"",
    ]
)
OTHER = [
    b"",
    b"change@/devices/virtual/NEW_VMGENID=1\0ACTION=change\0",
    NEW.replace(b"NEW_VMGENID=1", b"SYNTH_ARG_NEW_VMGENID=1"),
    NEW.replace(b"NEW_VMGENID=1", b"NEW_VMGENID=10"),
    bytes(9000),
]


class Kernel:
    """Its end of the socket, and the number that our end has for it."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.generation = Generation(_Numbered(theirs, 0))


class _Numbered(socket.socket):
    """A socket whose words come from a sender of this number, as netlink's do."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        super().__init__(fileno=sock.detach())
        self.setblocking(False)
        self.number = number

    def recvfrom(self, *args: int) -> tuple[bytes, tuple[int, int]]:
        return self.recv(args[0]), (self.number, 1)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.ours.close()
    made.generation.close()
    made.generation.close()  # again is no error


def test_it_has_changed_when_the_kernel_says_so_and_stays_so(kernel: Kernel) -> None:
    assert not kernel.generation.changed()
    for word in (*OTHER, NEW, *OTHER):
        kernel.ours.send(word)
    assert kernel.generation.changed()
    assert kernel.generation.changed()


def test_words_of_other_devices_are_nothing(kernel: Kernel) -> None:
    for word in OTHER:
        kernel.ours.send(word)
        assert not kernel.generation.changed()


def test_many_words_take_several_looks(kernel: Kernel) -> None:
    sent = 0
    kernel.ours.setblocking(False)
    while sent < WORDS_MAX:
        try:
            kernel.ours.send(OTHER[1])
        except BlockingIOError:  # the host keeps few: they are read meanwhile
            assert not kernel.generation.changed()
        sent += 1
    assert not kernel.generation.changed()
    kernel.ours.send(NEW)
    assert kernel.generation.changed()


def test_who_is_not_the_kernel_is_not_believed() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    looks = Generation(_Numbered(theirs, 4711))
    ours.send(NEW)
    assert not looks.changed()
    looks.close()
    ours.close()


def test_words_that_the_kernel_dropped_end_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    class Full(_Numbered):
        full = True

        def recvfrom(self, *args: int) -> tuple[bytes, tuple[int, int]]:
            if self.full:
                self.full = False
                raise OSError(105, os.strerror(105))  # ENOBUFS
            return super().recvfrom(*args)

    looks = Generation(Full(theirs, 0))
    ours.send(NEW)
    assert looks.changed()  # and those before are read
    looks.close()
    ours.close()


def test_without_netlink_there_is_no_such_sign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "NETLINK_KOBJECT_UEVENT", 31)  # there is none
    assert listen() is None
    looks = Generation(None)
    assert not looks.changed()
    looks.close()


def test_a_machine_that_was_begun_from_a_snapshot_has_moved(
    kernel: Kernel, tmp_path: Path
) -> None:
    """Whatever its clocks and its boot id show."""
    theirs = kernel.generation._sock
    kernel.generation._sock = None
    now = 0.0
    boot = tmp_path / "boot_id"
    boot.write_text("one\n")
    machine = Machine(boot, lambda: now, lambda: theirs)
    assert not machine.moved(now, now)
    now += FRESH_SECONDS
    kernel.ours.send(NEW)
    assert machine.moved(now, now)
    machine.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lets a device speak")
def test_the_kernel_speaks_to_this_socket() -> None:
    """A word about a device that exists, as the kernel sends it; not that of a clone."""
    sock = listen()
    device = Path("/sys/devices/virtual/mem/null/uevent")
    if sock is None or not os.access(device, os.W_OK):
        pytest.skip("no netlink, or /sys may not be written to")
    named = uuid.uuid4()
    with sock:
        device.write_text(f"change {named} NEWVMGENID=1\n")
        sock.setblocking(True)
        sock.settimeout(10)
        while True:
            word, sender = sock.recvfrom(8192)
            if str(named).encode() in word:
                break
    assert sender[0] == generation.KERNEL_PORT
    assert b"ACTION=change" in word.split(b"\0")
