# SPDX-License-Identifier: MIT
"""peers.d beside the shared directory: one snapshot, whoever changed what."""

from pathlib import Path

import pytest

from mesh.core.directory import Conflict, ToPeer
from mesh.core.document import Document
from mesh.errors import IoError
from mesh.node.listing import add, remove
from mesh.node.peers import Peers
from mesh.node.registry import Registry
from tests.descriptors import DAY, NOW, signed, text_of
from tests.directories import directory, members, public_of
from tests.disk import full_disk
from tests.node.registries import FIRST, SECOND, US


class Here:
    """A node's folders, as the node and its operator's commands see them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "peers.d"
        self.folder.mkdir()
        (folder / "state").mkdir()
        self.registry = Registry.open(folder / "state", US, NOW)
        self.peers = Peers(self.folder, US, self.registry, lambda: NOW)
        self.peers.poll()

    def adopt(self, document: Document) -> None:
        assert self.registry.consider_document(document, "x", NOW, begin=True).changed

    def names(self) -> list[str]:
        self.peers.poll()
        return list(self.peers.snapshot.by_name)

    def route(self, address: str) -> object:
        return self.peers.snapshot.directory.route(address)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_poll_sees_what_was_adopted_once(here: Here) -> None:
    assert not here.peers.poll()
    here.adopt(FIRST)
    assert [here.peers.poll(), here.peers.poll()] == [True, False]
    assert here.names() == ["bravo", "charlie"]
    assert here.peers.snapshot.by_signers == frozenset({"bravo", "charlie"})
    assert here.route("mix@bravo.test") == ToPeer("bravo")
    later = signed("bravo", serial=9)
    assert here.registry.consider_descriptors([later.box], NOW)
    assert [here.peers.poll(), here.peers.poll()] == [True, False]
    assert here.peers.snapshot.by_name["bravo"].descriptor == later
    assert here.peers.snapshot.mistakes == ()


def test_whom_the_signers_take_off_is_withheld(here: Here) -> None:
    here.adopt(FIRST)
    here.adopt(SECOND)
    assert here.names() == ["bravo"]
    assert here.route("mix@charlie.test") is None
    held = here.peers.snapshot.directory.is_withheld
    assert held("mix@charlie.test", NOW + 29 * DAY)
    assert not held("mix@charlie.test", NOW + 32 * DAY)


def test_added_by_hand_and_listed_too(here: Here) -> None:
    (here.folder / "bravo.mesh").write_text(text_of("bravo"))
    (here.folder / "zoe.mesh").write_text(text_of("zoe"))
    assert here.names() == ["bravo", "zoe"]
    for name in ("bravo", "zoe"):
        assert here.registry.consider_descriptors([signed(name, serial=9).box], NOW)
    here.adopt(FIRST)
    assert here.names() == ["bravo", "charlie", "zoe"]
    found = here.peers.snapshot
    assert {found.by_name[n].descriptor.serial for n in ("bravo", "zoe")} == {9}
    assert found.by_hand == frozenset({"bravo", "zoe"})
    assert list(here.registry.private) == [public_of("zoe")]
    here.adopt(directory(FIRST, members("alpha", "charlie")))
    assert here.names() == ["bravo", "charlie", "zoe"]


def test_a_conflict_over_an_address_is_shown_and_used_by_neither(here: Here) -> None:
    nodes = [signed("bravo", serves=("mix@zoe.test",)), *members("alpha")]
    here.adopt(directory(nodes=nodes, pairs=[("mix@zoe.test", "bravo")]))
    (here.folder / "zoe.mesh").write_text(text_of("zoe"))
    assert here.names() == ["bravo", "zoe"]
    assert here.route("mix@zoe.test") == Conflict()
    assert here.peers.snapshot.mistakes == (
        "mix@zoe.test: bravo and zoe both serve it: its mail waits until one gives it up",
    )


def test_two_files_that_contest_a_name_leave_it_nobodys(here: Here) -> None:
    here.adopt(FIRST)
    both = text_of("bravo", seed="mallory") + text_of("bravo")
    (here.folder / "both.mesh").write_text(both)
    assert here.names() == ["charlie"]


def test_removed_by_hand_and_added_again(here: Here) -> None:
    here.adopt(FIRST)
    (listed,) = (o for o in here.registry.shared.listed if o.descriptor.name == "bravo")
    remove(here.folder, "bravo", "alpha", NOW, listed)
    assert here.names() == ["charlie"]
    assert here.peers.snapshot.distrusted == frozenset({"bravo"})
    assert here.peers.snapshot.directory.is_withheld("mix@bravo.test", NOW)
    here.adopt(SECOND)
    assert here.names() == []
    add(here.folder, US, [("bravo", signed("bravo"))], (), NOW)
    assert here.names() == ["bravo"]
    assert here.peers.snapshot.distrusted == frozenset()
    (here.folder / "bravo.mesh").unlink()
    assert here.names() == ["bravo"]


def test_a_full_disk_trusts_nobody_again(here: Here) -> None:
    here.adopt(FIRST)
    (listed,) = (o for o in here.registry.shared.listed if o.descriptor.name == "bravo")
    with full_disk(), pytest.raises(IoError):
        remove(here.folder, "bravo", "alpha", NOW, listed)
    assert here.names() == ["bravo", "charlie"]
    add(here.folder, US, [("bravo", signed("bravo"))], (), NOW)
    for each in here.registry.shared.listed:
        remove(here.folder, each.descriptor.name, "alpha", NOW, each)
    (here.folder / "charlie.mesh").write_text(text_of("charlie"))
    with full_disk(), pytest.raises(IoError):
        add(here.folder, US, [("charlie", signed("charlie"))], (), NOW)
    assert here.names() == ["charlie"]
    assert here.peers.snapshot.distrusted >= {"bravo", "charlie"}
