# SPDX-License-Identifier: MIT
"""The life of a key: zero before, zero after, nowhere else."""

import pickle

import pytest

from mesh.core import memory
from mesh.core.memory import Key
from mesh.errors import LocalProtocolError
from tests.harness import FixedEntropy


def test_wiping_zeroes_the_slot_and_forbids_use() -> None:
    secret = FixedEntropy().key()
    place = secret.address
    view = memory.ffi.buffer(place, 32)
    assert bytes(view) != bytes(32)
    secret.wipe()
    assert bytes(view) == bytes(32)
    secret.wipe()
    with pytest.raises(LocalProtocolError):
        secret.copy()


def test_dropping_a_key_zeroes_its_slot() -> None:
    secret = FixedEntropy().key()
    view = memory.ffi.buffer(secret.address, 32)
    del secret
    assert bytes(view) == bytes(32)


def test_a_copy_lives_by_itself() -> None:
    first = FixedEntropy().key()
    second = first.copy()
    assert first == second
    first.wipe()
    assert second.unsafe_bytes() == FixedEntropy().key().unsafe_bytes()


def test_keys_show_nothing_and_go_nowhere() -> None:
    secret = FixedEntropy().key()
    assert repr(secret) == "<Key of 32 octets>"
    assert len(secret) == 32
    with pytest.raises(LocalProtocolError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert secret != FixedEntropy("another").key()
    assert secret != Key(64)
    assert secret != secret.unsafe_bytes()
    with pytest.raises(LocalProtocolError):
        Key(16)


def test_the_slab_grows_past_one_region() -> None:
    entropy = FixedEntropy()
    keys = [entropy.key() for _ in range(2 * memory.SLAB_LEN // memory.SLOT_LEN)]
    again = FixedEntropy()
    assert all(each == again.key() for each in keys)


def test_two_threads_may_find_the_slab_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread takes a slot while this one asks for a region."""
    slab, taken = memory._Slab(), list[object]()
    real = memory.new_locked

    def interrupted(length: int) -> object:
        if not taken:
            taken.append(None)
            taken[0] = slab.take()
        return real(length)

    monkeypatch.setattr(memory, "new_locked", interrupted)
    first = slab.take()
    slots = 2 * memory.SLAB_LEN // memory.SLOT_LEN
    assert len(slab._free) == slots - 2
    rest = [slab.take() for _ in range(slots - 2)]
    assert len(slab._regions) == 2
    addresses = {int(memory.ffi.cast("uintptr_t", s)) for s in (first, *taken, *rest)}
    assert len(addresses) == slots


def test_a_key_may_be_copied_into_a_place_of_its_length_alone() -> None:
    secret = FixedEntropy().key()
    memory_ = bytearray(b"-" * 100)
    place = memoryview(memory_)
    secret.copy_into(place[10:42])
    assert memory_ == b"-" * 10 + secret.unsafe_bytes() + b"-" * 58
    for wrong in (place[10:41], place[10:43], place[:0]):
        with pytest.raises(LocalProtocolError):
            secret.copy_into(wrong)
    assert memory_ == b"-" * 10 + secret.unsafe_bytes() + b"-" * 58
    with pytest.raises(BufferError):
        secret.copy_into(memoryview(bytes(32)))
    secret.wipe()
    with pytest.raises(LocalProtocolError):
        secret.copy_into(place[10:42])


def test_a_buffer_is_zeroed_and_nothing_beside_it() -> None:
    octets = bytearray(b"x" * 64)
    memory.wipe_buffer(memoryview(octets)[16:48])
    assert octets == b"x" * 16 + bytes(32) + b"x" * 16
    words = memoryview(bytearray(b"x" * 64)).cast("Q")
    memory.wipe_buffer(words[1:3])  # its octets, whatever its items are
    assert words.tobytes() == b"x" * 8 + bytes(16) + b"x" * 40
    with pytest.raises(BufferError):
        memory.wipe_buffer(memoryview(b"x" * 32))
