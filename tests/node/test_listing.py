# SPDX-License-Identifier: MIT
"""Adding and removing peers: all or none, one at a time, no rollback."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mesh.config import parse
from mesh.core.descriptor import Descriptor
from mesh.core.directory import Directory, Us
from mesh.errors import CannotCreateError, DescriptorError, IoError, NoInputError
from mesh.node.listing import add, remove
from mesh.node.peers import Peers, Snapshot
from mesh.node.routing import Routing
from tests.descriptors import DAY, NOW, signed, text_of
from tests.disk import NOBODY, forbidden_folder, full_disk

US = Us("alpha", "main", {"mix@alpha.test": 0, "postmaster": 0})


def offer(folder: Path, *peers: Descriptor, serves: tuple[str, ...] = ()) -> list[str]:
    """What became of each."""
    pairs = [(f"{peer.name}.txt", peer) for peer in peers]
    return [one.change for one in add(folder, US, pairs, serves, NOW)]


def refused(
    folder: Path, *peers: Descriptor, serves: tuple[str, ...] = ()
) -> list[str]:
    """The lines of the refusal, which changed nothing."""
    before = contents(folder)
    with pytest.raises(DescriptorError) as caught:
        offer(folder, *peers, serves=serves)
    assert contents(folder) == before
    assert caught.value.exit_code == 65
    return str(caught.value).splitlines()


def contents(folder: Path) -> dict[str, bytes]:
    found = folder.glob("*") if folder.exists() else []
    return {path.name: path.read_bytes() for path in found if path.name != ".lock"}


def snapshot(folder: Path) -> Snapshot:
    peers = Peers(folder, US)
    peers.poll()
    return peers.snapshot


def test_add_then_again_then_newer(tmp_path: Path) -> None:
    folder = tmp_path / "peers.d"
    assert offer(folder, signed("bravo")) == ["added"]
    assert offer(folder, signed("bravo")) == ["unchanged"]
    assert offer(folder, signed("bravo", serial=8)) == ["updated"]
    assert snapshot(folder).by_name["bravo"].descriptor == signed("bravo", serial=8)
    assert sorted(contents(folder)) == ["bravo.mesh"]
    assert (folder / "bravo.mesh").read_text() == text_of("bravo", serial=8)
    assert stat.S_IMODE((folder / "bravo.mesh").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_several_at_once_and_one_twice(tmp_path: Path) -> None:
    bravo, carol = signed("bravo"), signed("carol")
    assert offer(tmp_path, bravo, carol, bravo) == ["added", "added"]
    newer = signed("bravo", serial=8)
    assert offer(tmp_path, bravo, newer) == ["updated"]
    assert refused(tmp_path, newer, bravo) == [
        "bravo.txt: bravo: serial 7 is older than 8: ask for the latest"
    ]


def test_all_or_none_and_every_mistake(tmp_path: Path) -> None:
    offer(tmp_path, signed("carol", serial=9))
    lines = refused(
        tmp_path,
        signed("bravo"),
        signed("alpha", seed="other"),
        signed("carol"),
        serves=("x@nobody.test", "a@nobody.test"),
    )
    assert lines == [
        "--serves a@nobody.test: no FILE claims it: compare its Serves: lines",
        "--serves x@nobody.test: no FILE claims it: compare its Serves: lines",
        "alpha.txt: alpha: alpha is this node's own name: a peer needs another",
        "carol.txt: carol: serial 7 is older than 9: ask for the latest",
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"network": "test"}, "of the network test: this node is of main"),
        (
            {"serial": 8, "not_after": int(NOW) - 1},
            "expired 2027-01-15: ask for a fresh `mesh export`",
        ),
        (
            {"serial": 8, "not_before": int(NOW) + 1},
            "valid from 2027-01-15 only: compare the clocks",
        ),
        ({"serial": 6}, "serial 6 is older than 7: ask for the latest"),
        ({"klass": 4}, "two statements with serial 7: ask for a fresh `mesh export`"),
        ({"seed": "dave", "serial": 8}, "`mesh peers remove bravo` first"),
        (
            {"serves": ("mix@alpha.test",), "serial": 8},
            "mix@alpha.test: this node serves",
        ),
        ({"serves": ("@alpha.test",), "serial": 8}, "@alpha.test: this node serves it"),
        (
            {"serves": ("mix@carol.test",), "serial": 8},
            "mix@carol.test: carol serves it",
        ),
        ({"serves": ("@carol.test",), "serial": 8}, "@carol.test: carol serves it"),
        ({"link_keys": "carol", "serial": 8}, "carol has one of its keys"),
    ],
)
def test_each_objection(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    offer(tmp_path, signed("bravo"), signed("carol"))
    if "link_keys" in changes:
        changes["link_keys"] = signed("carol").link_keys
    (line,) = refused(tmp_path, signed("bravo", **changes))
    assert line.startswith("bravo.txt: bravo: ")
    assert why in line


def test_a_node_under_a_second_name(tmp_path: Path) -> None:
    offer(tmp_path, signed("bravo"))
    (line,) = refused(tmp_path, signed("dave", seed="bravo"))
    assert "bravo has one of its keys: `mesh peers remove bravo` first" in line


def test_two_new_ones_that_claim_one_address(tmp_path: Path) -> None:
    both = {"serves": ("x@else.test",)}
    lines = refused(
        tmp_path,
        signed("bravo", **both),
        signed("carol", **both),
        serves=("x@else.test",),
    )
    assert lines == [
        "carol.txt: carol: x@else.test: bravo serves it: one must give it up"
    ]


def test_a_claim_that_does_not_count_is_in_nobodys_way(tmp_path: Path) -> None:
    liar = signed("liar", serves=("mix@bravo.test",))
    assert offer(tmp_path, liar) == ["added"]
    assert offer(tmp_path, signed("bravo")) == ["added"]
    assert snapshot(tmp_path).by_name["liar"].not_counted == ("mix@bravo.test",)
    assert snapshot(tmp_path).mistakes == ()


def test_the_operators_word_is_kept_as_long_as_it_is_claimed(tmp_path: Path) -> None:
    claims = ("a@else.test", "b@else.test")
    bravo = signed("bravo", serves=claims)
    assert offer(tmp_path, bravo) == ["added"]
    assert offer(tmp_path, bravo, serves=("a@else.test",)) == ["updated"]
    assert offer(tmp_path, bravo) == ["unchanged"]
    assert snapshot(tmp_path).by_name["bravo"].counted == ("a@else.test",)
    assert offer(tmp_path, bravo, serves=("b@else.test",)) == ["updated"]
    assert snapshot(tmp_path).by_name["bravo"].counted == claims
    assert offer(tmp_path, signed("bravo", serves=claims[1:], serial=8)) == ["updated"]
    assert snapshot(tmp_path).by_name["bravo"].confirmed == {"b@else.test"}
    assert offer(tmp_path, signed("bravo", serves=claims, serial=9)) == ["updated"]
    assert snapshot(tmp_path).by_name["bravo"].counted == ("b@else.test",)


def test_a_bad_file_is_repaired(tmp_path: Path) -> None:
    (tmp_path / "bravo.mesh").write_text("rubbish")
    (tmp_path / "carol.mesh").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".bravo.mesh.new").write_text("left by a crash")
    assert offer(tmp_path, signed("bravo"), signed("carol")) == ["added", "added"]
    assert sorted(snapshot(tmp_path).by_name) == ["bravo", "carol"]
    assert not (tmp_path / "elsewhere").exists()


def test_remove(tmp_path: Path) -> None:
    offer(tmp_path, signed("bravo"))
    remove(tmp_path, "bravo")
    assert list(contents(tmp_path)) == [".removed"]
    with pytest.raises(NoInputError, match=r"bravo\.mesh: not there: .*peers list"):
        remove(tmp_path, "bravo")
    assert offer(tmp_path, signed("bravo", serial=1)) == ["added"]


@pytest.mark.parametrize("name", ["../x", "", "/etc/passwd", "a/b", "Bravo"])
def test_remove_takes_names_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.mesh").touch()
    with pytest.raises(NoInputError, match="is no name"):
        remove(tmp_path / "peers.d", name)
    assert (tmp_path / "x.mesh").exists()


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotCreateError, match="file: "):
        offer(tmp_path / "file", signed("bravo"))
    with pytest.raises(CannotCreateError, match="No such file"):
        offer(tmp_path / "a" / "b", signed("bravo"))
    (tmp_path / "bravo.mesh").mkdir()
    with pytest.raises(CannotCreateError, match="Is a directory"):
        offer(tmp_path, signed("bravo"))
    with pytest.raises(IoError, match="Is a directory"):
        remove(tmp_path, "bravo")
    (tmp_path / ".carol.mesh.new").mkdir()
    with pytest.raises(CannotCreateError, match="Is a directory"):
        offer(tmp_path, signed("carol"))


def test_a_failure_before_the_names_are_given_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / ".carol.mesh.new").mkdir()
    with pytest.raises(CannotCreateError):
        offer(tmp_path, signed("bravo"), signed("carol"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".carol.mesh.new", ".lock"]


def test_a_lock_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotCreateError):
        offer(tmp_path, signed("bravo"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    offer(tmp_path, signed("bravo"))
    with full_disk(), pytest.raises(IoError, match="File too large"):
        offer(tmp_path, signed("bravo", serial=8), signed("carol"))
    assert contents(tmp_path) == {"bravo.mesh": text_of("bravo").encode()}


def test_a_command_waits_for_the_one_before_it(tmp_path: Path) -> None:
    """While another holds the lock nothing is read: its change is seen after it."""
    claim = {"serves": ("x@else.test",)}
    lines: list[str] = []

    def second() -> None:
        carol = signed("carol", **claim)
        with pytest.raises(DescriptorError) as caught:
            offer(tmp_path, carol, serves=("x@else.test",))
        lines.append(str(caught.value))

    thread = threading.Thread(target=second)
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        word = "Serves-Confirmed: x@else.test\n"
        (tmp_path / "bravo.mesh").write_text(word + text_of("bravo", **claim))
    thread.join()
    assert lines == [
        "carol.txt: carol: x@else.test: bravo serves it: one must give it up"
    ]


ADD = """
import sys
from pathlib import Path
from mesh.core.directory import Us
from mesh.node.listing import add
from tests.descriptors import NOW, signed
us = Us("alpha", "main", {})
names = sys.argv[2].split(",")
for _ in range(3):
    add(Path(sys.argv[1]), us, [(n, signed(n)) for n in names], (), NOW)
"""


def test_several_commands_at_once(tmp_path: Path) -> None:
    names = [[f"n{group}-{n}" for n in range(5)] for group in range(6)]
    running = [
        subprocess.Popen([sys.executable, "-c", ADD, str(tmp_path), ",".join(group)])
        for group in names
    ]
    assert [process.wait(60) for process in running] == [0] * 6
    found = snapshot(tmp_path)
    assert sorted(found.by_name) == sorted(name for group in names for name in group)
    assert found.mistakes == ()


def test_a_folder_that_may_not_be_written() -> None:
    refusal = pytest.raises(CannotCreateError, match="Permission denied")
    with forbidden_folder() as folder, refusal:
        offer(folder, signed("bravo"))


def test_remove_of_one_among_many_keeps_the_others(tmp_path: Path) -> None:
    """Also a later statement, and the operator's word; we ourselves are nobody."""
    word = "Serves-Confirmed: list@else.test\n"
    carol = text_of("carol", serial=8, serves=("list@else.test",))
    (tmp_path / "carol.mesh").write_text(text_of("carol"))
    (tmp_path / "dave.mesh").write_text(text_of("dave", serial=9))
    (tmp_path / "all.mesh").write_text(
        text_of("alpha") + text_of("bravo") + word + carol + text_of("dave")
    )
    (tmp_path / "bad.mesh").write_text("bravo")
    (tmp_path / "bravo.mesh").write_text(text_of("bravo"))
    remove(tmp_path, "bravo", "alpha")
    (tmp_path / "bad.mesh").unlink()
    found = snapshot(tmp_path)
    assert found.mistakes == ()
    assert {n: one.descriptor.serial for n, one in found.by_name.items()} == {
        "carol": 8,
        "dave": 9,
    }
    assert found.by_name["carol"].confirmed == {"list@else.test"}
    assert sorted(path.name for path in tmp_path.glob("*.mesh")) == [
        "carol.mesh",
        "dave.mesh",
    ]


def test_what_a_removed_peer_served_is_withheld_for_a_month(tmp_path: Path) -> None:
    word = "Serves-Confirmed: list@else.test\n"
    text = text_of("bravo", serves=("list@else.test", "spam@else.test"))
    (tmp_path / "bravo.mesh").write_text(word + text)
    (tmp_path / ".removed").write_text("nonsense\n2000-01-01 old@else.test\n")
    remove(tmp_path, "bravo", "alpha", NOW)
    directory = snapshot(tmp_path).directory
    assert directory.is_withheld("list@else.test", NOW + 30 * DAY)
    assert not directory.is_withheld("list@else.test", NOW + 32 * DAY)
    assert not directory.is_withheld("spam@else.test", NOW)
    removed = tmp_path / ".removed"
    assert "old@" not in removed.read_text()
    assert removed.stat().st_mode & 0o777 == 0o600
    (tmp_path / "carol.mesh").write_text(text_of("carol"))
    remove(tmp_path, "carol", "alpha", NOW + DAY)
    directory = snapshot(tmp_path).directory
    assert directory.is_withheld("mix@carol.test", NOW + 31 * DAY)
    assert directory.is_withheld("list@else.test", NOW + 30 * DAY)


def test_what_cannot_be_read_of_the_removed_is_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "bravo.mesh").write_text(text_of("bravo"))
    removed = tmp_path / ".removed"
    removed.mkdir()
    with pytest.raises(DescriptorError, match="removed: not a regular file"):
        remove(tmp_path, "bravo", "alpha", NOW)
    assert (tmp_path / "bravo.mesh").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_the_nodes_user_can_read(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    offer(tmp_path, signed("bravo"), signed("carol"))
    remove(tmp_path, "bravo", "alpha", NOW)
    for name in ("carol.mesh", ".removed"):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid, found.st_mode) == (
            NOBODY,
            NOBODY,
            stat.S_IFREG | 0o600,
        )


def test_a_watching_node_sees_what_is_withheld(tmp_path: Path) -> None:
    (tmp_path / "bravo.mesh").write_text(text_of("bravo"))
    peers = Peers(tmp_path, US)
    assert peers.poll()
    remove(tmp_path, "bravo", "alpha", NOW)
    assert peers.poll()
    assert peers.snapshot.directory.is_withheld("mix@bravo.test", NOW)
    assert not peers.poll()


def test_what_is_withheld_does_not_go_to_port_25(tmp_path: Path) -> None:
    config = parse('[node]\nname = "alpha"\n', tmp_path / "node.toml")
    soon = {"mix@bravo.test": 1 << 40}
    routing = Routing(config, lambda: Directory({}, [], soon))
    assert routing.route("mix@bravo.test") is None
    assert routing.route("other@bravo.test") == "exit:bravo.test"
