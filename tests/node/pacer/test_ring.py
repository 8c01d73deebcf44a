# SPDX-License-Identifier: MIT
"""The memory between the two processes: nothing lost, nothing left behind."""

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.cell import BODY_LEN, PADDING
from mesh.core.clock import rate_of
from mesh.core.crypto import Key, address_of, memmove
from mesh.node.pacer.ring import (
    INTO_MIN,
    INTO_SECONDS,
    KEYS_AT,
    OUT_MAX,
    PAGE,
    Ring,
    length_of,
    slots_of,
)


def body(number: int) -> bytes:
    return number.to_bytes(8, "big") * (BODY_LEN // 8)


def put_come(ring: Ring, octets: bytes) -> None:
    """As a lane does."""
    memmove(ring.place, octets, BODY_LEN)
    ring.came()


@given(st.lists(st.sampled_from(["put", "take", "come", "put_come"]), max_size=200))
def test_both_ways_are_queues_of_a_bounded_length(steps: list[str]) -> None:
    ring = Ring(bytearray(length_of(3)), 3)
    out_slots, into_slots = slots_of(3)
    out: deque[bytes] = deque()
    into: deque[bytes] = deque()
    taken = bytearray(BODY_LEN)
    for number, step in enumerate(steps, 1):
        assert ring.room == out_slots - len(out)
        assert ring.into_room == into_slots - len(into)
        if step == "put" and ring.room:
            ring.put(body(number))
            out.append(body(number))
        elif step == "take":
            ring.take(address_of(taken))
            assert taken == (out.popleft() if out else PADDING)
        elif step == "put_come" and ring.into_room:
            put_come(ring, body(number))
            into.append(body(number))
        elif step == "come":
            assert ring.come() == (into.popleft() if into else None)


def test_what_was_taken_is_zeroed() -> None:
    memory = bytearray(length_of(3))
    ring = Ring(memory, 3)
    ring.put(b"\xaa" * BODY_LEN)
    put_come(ring, b"\xaa" * BODY_LEN)
    assert memory.count(0xAA) == 2 * BODY_LEN
    ring.take(address_of(bytearray(BODY_LEN)))
    assert ring.come() == b"\xaa" * BODY_LEN
    assert 0xAA not in memory


def test_keys_pass_and_stay_nowhere() -> None:
    memory = bytearray(length_of(0))
    ring = Ring(memory, 0)
    sealer, opener = Key.from_bytes(b"\xaa" * 32), Key.from_bytes(b"\xbb" * 32)
    ring.put_keys(sealer, opener)
    assert memory[KEYS_AT] == 0xAA
    assert ring.take_keys() == (sealer, opener)
    assert not any(memory)


def test_the_two_ends_see_one_memory() -> None:
    ours, fd = Ring.create(3)
    theirs = Ring.attach(fd, 3)
    ours.put_keys(Key(), Key())
    put_come(theirs, body(7))
    assert ours.come() == body(7)
    assert ours.ended == 0
    theirs.end(2)
    assert ours.ended == 2
    ours.close()
    theirs.close()


def test_keys_that_nobody_took_are_zeroed_at_the_end() -> None:
    memory = bytearray(length_of(3))
    ring = Ring(memory, 3)
    ring.put_keys(Key.from_bytes(b"\xaa" * 32), Key.from_bytes(b"\xbb" * 32))
    ring.close()
    assert not any(memory)


@pytest.mark.parametrize("klass", range(16))
def test_slots_follow_the_class_alone(klass: int) -> None:
    out, into = slots_of(klass)
    assert 2 <= out <= OUT_MAX < 64  # what a replaced link has left
    assert into == max(INTO_MIN, INTO_SECONDS * rate_of(klass))
    if rate_of(klass) <= 1:
        assert PAGE * (1 + out + into) <= 80_000


def locked() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmLck:")[1].split()[0])


def test_it_is_locked_and_all_there_from_the_beginning() -> None:
    before = locked()
    ring, fd = Ring.create(3)
    assert locked() - before == length_of(3)
    assert os.fstat(fd).st_blocks * 512 == length_of(3)
    ring.close()
    os.close(fd)


def test_it_is_in_no_dump_and_in_no_child() -> None:
    ring, fd = Ring.create(3)
    mappings = Path("/proc/self/smaps").read_text().split("mesh-link")[1:]
    assert mappings  # and perhaps some that other tests have left
    for each in mappings:
        flags = each.partition("VmFlags:")[2].split("\n")[0]
        assert {"dd", "dc"} <= set(flags.split())
    ring.close()
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lose CAP_IPC_LOCK")
def test_without_a_right_to_lock_it_works() -> None:
    code = """
import os, resource
from mesh.node.pacer.ring import Ring, length_of
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
os.setgid(65534)
os.setuid(65534)
ring, fd = Ring.create(3)
assert os.fstat(fd).st_blocks * 512 == length_of(3)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
