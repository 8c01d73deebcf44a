# SPDX-License-Identifier: MIT
"""What is in force, whoever offers whatever, and what the operator is told of it."""

import base64
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mesh.core.adoption import Outcome, Verdict
from mesh.core.armour import wrap
from mesh.core.descriptor import Descriptor
from mesh.core.directory import Us
from mesh.core.document import (
    BEGIN,
    END,
    Document,
    armour,
    from_octets_untrusted,
    to_octets,
)
from mesh.errors import CannotCreateError, IoError
from mesh.node.registry import Registry
from mesh.node.watched import RETRY_SECONDS
from tests.descriptors import DAY, NOW, signed
from tests.directories import directory, members, public_of
from tests.disk import full_disk
from tests.node.registries import DAN, FIRST, FORK, SECOND, THIRD, US

Change = Callable[[Path], object]


def opened(state: Path, watched: Path | None = None, now: float = NOW) -> Registry:
    return Registry.open(state, US, now, watched)


def begun(state: Path, document: Document = FIRST, **others: Any) -> Registry:
    """A node whose operator has adopted this."""
    state.mkdir(exist_ok=True)
    registry = opened(state, **others)
    outcome = registry.consider_document(document, "typed", NOW, begin=True)
    assert outcome == Outcome(Verdict.ADOPTED)
    return registry


def offer(registry: Registry, document: Document, now: float = NOW) -> Verdict:
    return registry.consider_document(armour(document), "file", now).verdict


def serial_of(registry: Registry, name: str) -> int:
    return registry.members[public_of(name)].serial


# Offered


def test_begun_adopted_and_found_again(tmp_path: Path) -> None:
    registry = opened(tmp_path)
    assert (registry.head, registry.version) == ((0, bytes(32)), 0)
    assert registry.octets() == b""
    assert registry.notices(NOW) == []
    assert offer(registry, FIRST) is Verdict.REFUSED
    registry = begun(tmp_path)
    assert [offer(registry, d) for d in (FIRST, SECOND, SECOND, FIRST)] == [
        Verdict.SAME,
        Verdict.ADOPTED,
        Verdict.SAME,
        Verdict.OLDER,
    ]
    again = opened(tmp_path)
    assert again.head == registry.head == SECOND.head
    assert again.trusted.members == registry.trusted.members
    assert again.octets() == to_octets(SECOND)
    assert again.octets() is again.octets()
    assert sorted(d.name for d in again.members.values()) == ["alpha", "bravo"]


def test_octets_text_and_documents_alike(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    for offered in (to_octets(SECOND), armour(THIRD)):
        outcome = registry.consider_document(offered, "it", NOW)
        assert outcome == Outcome(Verdict.ADOPTED)
    for rubbish in (b"", b"\0" * 99, "", "rubbish"):
        outcome = registry.consider_document(rubbish, "it", NOW)
        assert outcome.verdict is Verdict.REFUSED
        assert outcome.why.startswith("it:")
    assert registry.head == THIRD.head


def test_whoever_asks_is_told_of_each_change(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    calls: list[int] = []
    registry.on_change.append(lambda: calls.append(registry.version))
    for document in (SECOND, SECOND, FIRST, THIRD, FORK):
        offer(registry, document)
    registry.tell_own(signed("alpha", serial=30))
    registry.tell_own(signed("alpha", serial=30))
    assert calls == [2, 3, 3]
    assert registry.own == signed("alpha", serial=30)


def test_the_descriptors_of_a_copy_are_taken(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    boxes = tuple(d.box for d in members(serial=9))
    assert offer(registry, replace(FIRST, boxes=boxes)) is Verdict.RENEWED
    assert serial_of(registry, "bravo") == serial_of(opened(tmp_path), "bravo") == 9


def test_our_own_descriptor_is_handed_on(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    before = registry.octets()
    assert registry.tell_own(signed("alpha", serial=30))
    after = registry.octets()
    assert after != before
    assert signed("alpha", serial=30).box in from_octets_untrusted(after).boxes
    offer(registry, THIRD)
    assert serial_of(registry, "alpha") == 30


def test_what_we_had_of_a_node_before_it_was_listed_is_kept(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    dave = signed("dave")
    registry.know({dave.identity: dave})
    assert registry.consider_descriptors([signed("dave", serial=12).box], NOW)
    assert registry.private == {dave.identity: signed("dave", serial=12)}
    offer(registry, SECOND)
    offer(registry, THIRD)
    assert serial_of(registry, "dave") == serial_of(opened(tmp_path), "dave") == 12
    assert registry.private == {}
    assert not list((tmp_path / "descriptors").iterdir())


def test_released_addresses_are_withheld(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    offer(registry, SECOND)
    for each in (registry, opened(tmp_path)):
        until = each.shared.withheld["mix@charlie.test"]
        assert 30 * DAY <= until - NOW <= 31 * DAY
        assert list(each.shared.withheld) == ["mix@charlie.test"]


def test_two_signed_of_one_version_are_kept_and_shown(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    offer(registry, SECOND)
    assert offer(registry, FORK) is offer(registry, FORK) is Verdict.FORK
    for each in (registry, opened(tmp_path)):
        assert each.head == SECOND.head
        assert len(each.evidence) == 2
        (line,) = each.notices(NOW)
        assert line.startswith("directory: the signers signed contradicting ones, kept")
        assert all(name in line for name in each.evidence)
    assert offer(registry, directory(FORK)) is Verdict.FORK  # its successor as well
    assert len(registry.evidence) == 3
    for path in (tmp_path / "evidence").iterdir():
        path.unlink()
    assert registry.poll(NOW)
    assert registry.notices(NOW) == []


def test_the_version_after_the_next_mends_a_fork(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    offer(registry, FORK)
    assert offer(registry, THIRD) is Verdict.FORK
    assert offer(registry, directory(THIRD)) is Verdict.ADOPTED


def test_other_signers_need_their_fingerprint_typed(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    dave = signed("bravo", serial=33)
    registry.consider_descriptors([dave.box], NOW)
    typed = registry.consider_document(DAN, "it", NOW, begin=True)
    assert typed.verdict is Verdict.REFUSED
    root = DAN.root.fingerprint
    assert not registry.consider_document(DAN, "it", NOW, root=root).changed
    assert registry.consider_document(DAN, "it", NOW, begin=True, root=root).changed
    for each in (registry, opened(tmp_path)):
        assert each.head == DAN.head
        assert serial_of(each, "bravo") == 33
    assert offer(registry, SECOND) is Verdict.REFUSED


# Descriptors


@pytest.mark.parametrize(
    "one",
    [
        signed("bravo", serial=7),
        signed("bravo", serial=6),
        signed("bravo", serial=9, network="else"),
        signed("bravo", serial=9, not_after=int(NOW) - 1),
        signed("bravo", serial=9, not_before=int(NOW) + 1),
        signed("mallory", seed="bravo", serial=9),
        signed("stranger", serial=9),
        signed("zoe", serial=7),
        signed("yan", seed="zoe", serial=9),
    ],
)
def test_descriptors_that_are_not_taken(tmp_path: Path, one: Descriptor) -> None:
    registry = begun(tmp_path)
    zoe = signed("zoe")
    registry.know({zoe.identity: zoe})
    seen = registry.shared
    assert not registry.consider_descriptors([one.box], NOW)
    assert not registry.consider_descriptors([one.box[:-1]], NOW)
    assert registry.shared is seen
    assert not (tmp_path / "descriptors").exists()


def test_descriptors_of_listed_nodes_are_taken_and_found_again(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    zoe = signed("zoe")
    registry.know({zoe.identity: zoe})
    assert registry.private == {zoe.identity: zoe}
    for one in (signed("bravo", serial=9), signed("zoe", serial=9)):
        assert registry.consider_descriptors([one.box], NOW)
        assert not registry.consider_descriptors([one.box], NOW)
    again = opened(tmp_path)
    again.know({zoe.identity: zoe})
    for each in (registry, again):
        assert serial_of(each, "bravo") == 9
        assert each.private[zoe.identity].serial == 9
        assert {one.descriptor.serial for one in each.shared.listed} == {7, 9}
        assert each.shared.renewed[zoe.identity].serial == 9
    again.know({zoe.identity: signed("other", seed="zoe")})
    assert again.private[zoe.identity].name == "other"


def test_a_descriptor_with_anothers_key_is_told_and_not_taken(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    liar = signed("bravo", serial=9, link_keys=signed("charlie").link_keys)
    assert not registry.consider_descriptors([liar.box], NOW)
    assert serial_of(registry, "bravo") == 7
    (line,) = registry.notices(NOW)
    assert line == "directory: bravo claims another node's key: ask the signers"
    assert not (tmp_path / "descriptors").exists()


def test_a_key_in_doubt_is_nobodys(tmp_path: Path) -> None:
    """Two renew themselves with one fresh key in one file: neither has it."""
    registry = begun(tmp_path)
    key = signed("fresh").link_keys
    nodes = [signed(n, serial=9, link_keys=key) for n in ("alpha", "bravo")]
    later = replace(SECOND, boxes=tuple(node.box for node in nodes))
    assert offer(registry, later) is Verdict.ADOPTED
    assert all(key != one.descriptor.link_keys for one in registry.shared.listed)
    assert any("another node's key" in line for line in registry.notices(NOW))


# Beside a command


def test_a_command_adopts_and_a_running_node_takes_it_up(tmp_path: Path) -> None:
    node, command = opened(tmp_path), opened(tmp_path)
    calls: list[int] = []
    node.on_change.append(lambda: calls.append(node.version))
    assert not node.poll(NOW)
    command.consider_document(FIRST, "typed", NOW, begin=True)
    assert node.poll(NOW)
    assert not node.poll(NOW)
    assert node.head == FIRST.head
    offer(command, SECOND)
    assert node.poll(NOW)
    assert node.head == SECOND.head
    assert list(node.shared.withheld) == ["mix@charlie.test"]
    root = DAN.root.fingerprint
    command.consider_document(DAN, "typed", NOW, begin=True, root=root)
    assert node.poll(NOW)
    assert node.head == DAN.head
    assert calls == [1, 2, 1]
    assert node.notices(NOW) == []


def test_two_at_once_one_after_the_other(tmp_path: Path) -> None:
    """Whoever comes later judges by what the other has adopted."""
    one, other = begun(tmp_path), opened(tmp_path)
    offer(one, SECOND)
    assert offer(other, FORK) is Verdict.FORK
    assert other.head == SECOND.head


def test_many_threads_and_one_order(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    documents = [FIRST, SECOND, THIRD, FORK] * 2
    threads = [
        threading.Thread(target=offer, args=(registry, document))
        for document in documents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.head in (THIRD.head, FORK.head)
    assert opened(tmp_path).head == registry.head


# Whatever lies in the file's place


def bomb(levels: int) -> str:
    """Arrays in arrays without end, in a directory's armour."""
    box = b"\0\0\0\4\x93\1\1\1" + (levels).to_bytes(4, "big") + b"\x91" * levels
    head = armour(FIRST).split("\n\n")[0]
    return "\n".join([head, "", *wrap(box), END, ""])


def device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:  # not root: a link to one is refused as a link
        path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50 << 20)


EXPIRED = directory(SECOND, days=1)
ELSE = directory(nodes=members(network="else"), network="else")
FEW = directory(SECOND, by=("ann",))

INTRUDERS: dict[str, tuple[Change, str]] = {
    "a symlink": (lambda p: p.symlink_to("real"), "a symbolic link"),
    "a FIFO": (os.mkfifo, "not a regular file"),
    "a folder": (lambda p: p.mkdir(), "not a regular file"),
    "a device": (device, ""),
    "50 MB": (huge, "more than 24 MiB"),
    "50 MB of lines": (lambda p: p.write_bytes(b"\n" * (20 << 20)), "no directory"),
    "nothing": (lambda p: p.write_text(""), "no directory in it"),
    "octets": (lambda p: p.write_bytes(os.urandom(5000)), "no directory in it"),
    "a bomb": (lambda p: p.write_text(bomb(4000)), "damaged"),
    "a great bomb": (lambda p: p.write_text(bomb(1 << 20)), "damaged"),
    "older": (lambda p: p.write_text(armour(FIRST)), "version 2 of root 1 is in force"),
    "expired": (lambda p: p.write_text(armour(EXPIRED)), "expired"),
    "of another network": (lambda p: p.write_text(armour(ELSE)), "of the network else"),
    "of other signers": (lambda p: p.write_text(armour(DAN)), "another root than ours"),
    "signed by too few": (lambda p: p.write_text(armour(FEW)), "signed by 1 of 3"),
    "a fork": (lambda p: p.write_text(armour(FORK)), "another version 2"),
    "two": (lambda p: p.write_text(armour(THIRD) * 2), "more than one directory"),
    "a descriptor": (lambda p: p.write_text(BEGIN), "cut off"),
}


@pytest.mark.parametrize("place", ["watched", "state/directory.mesh"])
@pytest.mark.parametrize(("put", "why"), INTRUDERS.values(), ids=INTRUDERS)
def test_the_last_good_one_stays_in_force(
    tmp_path: Path, place: str, put: Change, why: str
) -> None:
    path = tmp_path / place
    (tmp_path / "real").write_text(armour(THIRD))
    registry = begun(tmp_path / "state", watched=tmp_path / "watched")
    offer(registry, SECOND)
    (tmp_path / "watched").write_text(armour(SECOND))
    assert not registry.poll(NOW)
    assert registry.notices(NOW) == []
    path.unlink()
    put(path)
    registry.poll(NOW + 2 * DAY)
    assert registry.head == SECOND.head
    lines = [line for line in registry.notices(NOW) if line.startswith(f"{path}:")]
    assert [why in line for line in lines] == [True]
    assert lines[0].endswith("; version 2 stays in force")
    again = opened(tmp_path / "state", tmp_path / "watched", NOW + 2 * DAY)
    assert again.head == SECOND.head
    registry.poll(NOW + 2 * DAY)
    path.rmdir() if path.is_dir() else path.unlink()
    if place == "watched":
        path.write_text(armour(THIRD))
        assert registry.poll(NOW)
        assert not [line for line in registry.notices(NOW) if f"{path}:" in line]
    else:
        assert offer(registry, THIRD) is Verdict.ADOPTED
    assert registry.head == THIRD.head == opened(tmp_path / "state").head


@pytest.mark.parametrize("place", ["watched", "state/directory.mesh"])
def test_cut_off_at_every_octet(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    registry = begun(tmp_path / "state", watched=tmp_path / "watched")
    octets = armour(SECOND).encode()
    for length in range(len(octets) - 1):
        path.write_bytes(octets[:length])
        os.utime(path, ns=(length, length))
        assert not registry.poll(NOW) or place != "watched"
        assert registry.head == FIRST.head, length
        assert any(line.startswith(f"{path}:") for line in registry.notices(NOW))
    path.write_bytes(octets)
    assert registry.poll(NOW)
    assert registry.head == SECOND.head
    path.write_bytes(octets[:-1])
    registry.poll(NOW)
    assert not [line for line in registry.notices(NOW) if f"{path}:" in line]


def test_damaged_files_are_mended_by_adopting_again(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "directory.copy").write_text("rubbish")
    registry = opened(tmp_path)
    (line,) = registry.notices(NOW)
    assert line.endswith("; version 1 stays in force")
    assert offer(registry, FIRST) is Verdict.SAME
    assert registry.notices(NOW) == opened(tmp_path).notices(NOW) == []


def test_everything_damaged_is_a_notice_and_no_more(tmp_path: Path) -> None:
    begun(tmp_path)
    for name in ("directory.mesh", "directory.copy"):
        (tmp_path / name).write_text("rubbish")
    registry = opened(tmp_path)
    assert registry.version == 0
    lines = registry.notices(NOW)
    assert len(lines) == 2
    assert all(
        line.endswith("; no directory is in force: `mesh directory adopt` one")
        for line in lines
    )


def test_a_watched_file_never_begins(tmp_path: Path) -> None:
    state, path = tmp_path / "state", tmp_path / "watched"
    state.mkdir()
    path.write_text(armour(FIRST))
    registry = opened(state, path)
    assert registry.version == 0
    (line,) = registry.notices(NOW)
    assert f"compare its root {FIRST.root.fingerprint} with a signer" in line
    assert list(state.iterdir()) == [state / "directory.lock"]


def test_a_watched_file_that_is_early_counts_when_its_time_has_come(
    tmp_path: Path,
) -> None:
    path = tmp_path / "watched"
    registry = begun(tmp_path / "state", watched=path)
    path.write_text(armour(directory(FIRST, members(not_after=int(NOW) + 9 * DAY))))
    early = NOW - 2 * DAY
    assert not registry.poll(early)
    assert "in the future" in registry.notices(NOW)[0]
    assert not registry.poll(early + RETRY_SECONDS - 1)
    assert registry.poll(NOW)
    assert registry.notices(NOW) == []


def test_a_watched_file_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "watched"
    registry = begun(tmp_path / "state", watched=path)
    assert not registry.poll(NOW)
    (line,) = registry.notices(NOW)
    assert line == f"{path}: No such file or directory; version 1 stays in force"
    path.write_text(armour(SECOND))
    assert registry.poll(NOW)
    assert registry.notices(NOW) == []


# The disk


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    path = tmp_path / "watched"
    registry = begun(tmp_path / "state", watched=path)
    path.write_text(armour(SECOND))
    with full_disk():
        with pytest.raises(IoError):
            offer(registry, SECOND)
        assert not registry.consider_descriptors([signed("bravo", serial=9).box], NOW)
        assert not registry.poll(NOW)
        assert "File too large" in registry.notices(NOW)[0]
    assert registry.head == FIRST.head
    assert serial_of(registry, "bravo") == 7
    assert registry.poll(NOW)
    assert registry.head == opened(tmp_path / "state").head == SECOND.head
    (tmp_path / "state" / "directory.lock").unlink()
    (tmp_path / "state" / "directory.lock").mkdir()
    with pytest.raises(CannotCreateError):
        offer(registry, THIRD)


# What the operator is told


def test_the_end_nears_and_what_is_in_force_stays(tmp_path: Path) -> None:
    registry = begun(tmp_path)
    end = FIRST.roster.not_after
    assert registry.notices(end - 15 * DAY) == []
    (line,) = registry.notices(end - 5.5 * DAY)
    assert line == "directory: version 1 expires in 5 days: ask the signers"
    (line,) = registry.notices(end + 3.5 * DAY)
    assert "expired 3 days ago and stays in force" in line
    assert opened(tmp_path, now=end + 9 * DAY).head == FIRST.head


def test_a_node_that_is_not_in_it_is_told(tmp_path: Path) -> None:
    us = Us("zoe", "main", {}, public_of("zoe"))
    registry = Registry.open(tmp_path, us, NOW)
    registry.consider_document(FIRST, "typed", NOW, begin=True)
    (line,) = registry.notices(NOW)
    assert line.startswith(
        "directory: version 1 does not list this node: give a signer"
    )


def test_the_header_is_base64() -> None:
    """The bomb's armour is otherwise in order."""
    lines = bomb(9).split("\n\n")[1].splitlines()[:-1]
    assert base64.b64decode("".join(lines))


# What a command changed at the moment that something was offered


def test_what_is_taken_up_beside_an_offer_is_told(tmp_path: Path) -> None:
    """Nothing else would: a poll finds it taken up already."""
    for number, offered in enumerate([FORK, FIRST, DAN]):
        node = begun(tmp_path / str(number))
        told: list[int] = []
        node.on_change.append(partial(told.append, 2))
        opened(tmp_path / str(number)).consider_document(SECOND, "typed", NOW)
        assert not node.consider_document(offered, "bravo", NOW).changed
        assert node.head == SECOND.head
        assert told == [2]
        assert not node.poll(NOW)


def test_what_is_taken_up_beside_a_descriptor_is_told(tmp_path: Path) -> None:
    node = begun(tmp_path)
    told: list[int] = []
    node.on_change.append(lambda: told.append(node.version))
    opened(tmp_path).consider_document(SECOND, "typed", NOW)
    assert not node.consider_descriptors([signed("bravo", serial=1).box], NOW)
    assert told == [2]


# Many at once


def test_a_batch_is_settled_and_told_once(tmp_path: Path) -> None:
    zoe = signed("zoe")
    batch = [
        signed("bravo", serial=8),
        signed("stranger", serial=9),
        signed("zoe", serial=8),
        signed("bravo", serial=9),
        signed("charlie", serial=9),
        signed("bravo", serial=8),
        signed("zoe", serial=9),
        signed("zoe", serial=8),
    ]
    told: list[int] = []
    one_by_one, at_once = begun(tmp_path / "one"), begun(tmp_path / "all")
    for each in (one_by_one, at_once):
        each.know({zoe.identity: zoe})
    at_once.on_change.append(lambda: told.append(at_once.version))
    assert sum(one_by_one.consider_descriptors([one.box], NOW) for one in batch) == 5
    boxes = [b"junk", *(one.box for one in batch)]
    assert at_once.consider_descriptors(boxes, NOW) == 3
    assert told == [1]
    assert at_once.members == one_by_one.members
    assert at_once.private == one_by_one.private
    for each in (at_once, opened(tmp_path / "all")):
        assert serial_of(each, "bravo") == serial_of(each, "charlie") == 9
    assert at_once.consider_descriptors(boxes, NOW) == 0
    assert told == [1]


def test_one_that_cannot_be_written_keeps_no_other_out(tmp_path: Path) -> None:
    node = begun(tmp_path)
    in_the_way = tmp_path / "descriptors" / f"{public_of('bravo').hex()}.mesh"
    in_the_way.mkdir(parents=True)
    batch = [signed(name, serial=9).box for name in ("bravo", "charlie")]
    assert node.consider_descriptors(batch, NOW) == 1
    for each in (node, opened(tmp_path)):
        assert serial_of(each, "bravo") == 7
        assert serial_of(each, "charlie") == 9


def test_evidence_is_told_until_it_is_removed(tmp_path: Path) -> None:
    node = begun(tmp_path, SECOND)
    assert offer(node, FORK) is Verdict.FORK
    (line,) = node.notices(NOW)
    assert line.endswith("adopt two versions more, then remove the files")
    for each in (tmp_path / "evidence").iterdir():
        each.unlink()
    node.poll(NOW)
    assert node.notices(NOW) == []
