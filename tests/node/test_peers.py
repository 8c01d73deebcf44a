# SPDX-License-Identifier: MIT
"""The watched folder: what counts, what does not, and what stays in force."""

import errno
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.core.descriptor import END
from mesh.core.directory import Conflict, Local, ToPeer, Us
from mesh.node.peers import FILE_MAX_LEN, PEERS_MAX, Peers, Snapshot
from tests.descriptors import DAY, NOW, signed, text_of
from tests.disk import unprivileged

US = Us("alpha", "main", {"mix@alpha.test": 0})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bravo.mesh").write_text(text_of("bravo"))
    return tmp_path


def watch(folder: Path) -> Peers:
    peers = Peers(folder, US)
    peers.poll()
    return peers


def test_what_the_folder_says(folder: Path) -> None:
    (folder / "carol.mesh").write_text(
        "Serves-Confirmed: list@else.test\n"
        "Serves-Confirmed: never@claimed.test\n"
        " Serves-Confirmed: spam@else.test\n"
        + text_of("carol", serves=("list@else.test", "spam@else.test"))
    )
    for ignored in ("README", ".dave.mesh", ".lock", "dave.mesh.new", "dave.MESH"):
        (folder / ignored).write_text("hello")
    snapshot = watch(folder).snapshot
    assert snapshot.mistakes == ()
    assert sorted(snapshot.by_name) == ["bravo", "carol"]
    assert snapshot.by_name["carol"].counted == ("list@else.test",)
    assert snapshot.by_name["carol"].confirmed == {"list@else.test"}
    assert snapshot.by_link_key[signed("bravo").link_keys[0]].descriptor.name == "bravo"
    assert snapshot.directory.route("mix@bravo.test") == ToPeer("bravo")
    assert snapshot.directory.route("list@else.test") == ToPeer("carol")
    assert snapshot.directory.route("spam@else.test") is None
    assert snapshot.directory.route("mix@alpha.test") == Local(0)


def test_find_looks_at_the_time(folder: Path) -> None:
    snapshot = watch(folder).snapshot
    key = signed("bravo").link_keys[0]
    found = snapshot.find(key, NOW)
    assert found is snapshot.by_name["bravo"]
    assert snapshot.find(key, NOW + 2 * DAY) is None
    assert snapshot.find(bytes(32), NOW) is None
    assert snapshot.directory.route("mix@bravo.test") == ToPeer("bravo")


def test_before_the_first_poll_there_is_nobody(folder: Path) -> None:
    peers = Peers(folder, US)
    assert peers.snapshot.by_name == {}
    assert peers.snapshot.directory.route("mix@alpha.test") == Local(0)


def test_poll_sees_each_change_once(folder: Path) -> None:
    peers = Peers(folder, US)
    assert [peers.poll(), peers.poll()] == [True, False]
    (folder / "carol.mesh").write_text(text_of("carol"))
    assert [peers.poll(), peers.poll()] == [True, False]
    (folder / "bravo.mesh").write_text(text_of("bravo", serial=8))
    assert [peers.poll(), peers.poll()] == [True, False]
    assert peers.snapshot.by_name["bravo"].descriptor.serial == 8
    (folder / "bravo.mesh").unlink()
    assert [peers.poll(), peers.poll()] == [True, False]
    assert list(peers.snapshot.by_name) == ["carol"]


def test_the_last_good_one_stays_until_the_file_goes(folder: Path) -> None:
    peers = watch(folder)
    (folder / "carol.mesh").write_text(text_of("carol"))
    (folder / "bravo.mesh").write_text(text_of("bravo")[:-40])
    assert peers.poll()
    (line,) = peers.snapshot.mistakes
    assert line.startswith(f"{folder}/bravo.mesh:1: ")
    assert sorted(peers.snapshot.by_name) == ["bravo", "carol"]
    (folder / "bravo.mesh").write_text("worse")
    assert peers.poll()
    assert sorted(peers.snapshot.by_name) == ["bravo", "carol"]
    assert list(watch(folder).snapshot.by_name) == ["carol"]
    (folder / "bravo.mesh").unlink()
    assert peers.poll()
    assert list(peers.snapshot.by_name) == ["carol"]
    assert not peers.snapshot.mistakes


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def loop(path: Path) -> None:
    path.symlink_to(path)


def link(path: Path) -> None:
    (path.parent / "real").write_text(text_of("carol"))
    path.symlink_to(path.parent / "real")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse


BAD: list[tuple[Callable[[Path], object], str]] = [
    (unix_socket, "not a regular file: remove it"),
    (fifo, "not a regular file: remove it"),
    (loop, "a symbolic link: put the file itself here"),
    (link, "a symbolic link: put the file itself here"),
    (device, "a symbolic link: put the file itself here"),
    (lambda path: path.mkdir(), "not a regular file"),
    (huge, "more than 4 MiB"),
    (lambda path: path.write_bytes(bytes(FILE_MAX_LEN + 1)), "more than 4 MiB"),
    (lambda path: path.write_bytes(b"\xff" * 100), "1: no descriptor in it"),
    (lambda path: path.write_text(""), "1: no descriptor in it"),
    (lambda path: path.write_text(text_of("dave")), "holds the descriptor of dave"),
    (
        lambda path: path.write_text(text_of("carol") + text_of("dave")[:-40]),
        "cut off",
    ),
    (
        lambda path: path.write_text(text_of("carol") + text_of("dave", network="x")),
        "of the network x",
    ),
    (lambda path: path.write_text(text_of("carol", network="x")), "of the network x"),
]


@pytest.mark.parametrize(("make", "why"), BAD)
def test_what_does_not_count_is_named(
    folder: Path, make: Callable[[Path], object], why: str
) -> None:
    make(folder / "carol.mesh")
    peers = watch(folder)
    assert list(peers.snapshot.by_name) == ["bravo"]
    (line,) = peers.snapshot.mistakes
    assert line.startswith(f"{folder}/carol.mesh:")
    assert why in line
    assert not peers.poll()


def test_our_own_name_and_a_name_in_another_file(folder: Path) -> None:
    (folder / "alpha.mesh").write_text(text_of("alpha"))
    snapshot = watch(folder).snapshot
    assert list(snapshot.by_name) == ["bravo"]
    assert "alpha is this node's own name" in snapshot.mistakes[0]


def test_a_file_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "bravo.mesh").touch(mode=0)
        Path(name).chmod(0o755)
        with unprivileged():
            (line,) = watch(Path(name)).snapshot.mistakes
    assert line == f"{name}/bravo.mesh: Permission denied: make it readable"


def test_a_peer_added_while_there_are_no_descriptors_is_read_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    peers = Peers(folder, US)
    with monkeypatch.context() as patch:
        patch.setattr("mesh.node.peers.os.open", none_left)
        assert peers.poll()
    assert not peers.snapshot.by_name
    assert peers.poll()
    assert sorted(peers.snapshot.by_name) == ["bravo"]
    assert not peers.poll()


def test_two_files_with_one_key_both_do_not_count(folder: Path) -> None:
    stolen = signed("bravo").link_keys
    (folder / "aaron.mesh").write_text(text_of("aaron", link_keys=stolen))
    (folder / "zoe.mesh").write_text(text_of("zoe", seed="dave"))
    snapshot = watch(folder).snapshot
    assert list(snapshot.by_name) == ["zoe"]
    assert [line.partition(": ")[0] for line in snapshot.mistakes] == [
        f"{folder}/aaron.mesh",
        f"{folder}/bravo.mesh",
    ]


def test_two_claims_to_one_address_are_told(folder: Path) -> None:
    word = "Serves-Confirmed: mix@bravo.test\n"
    (folder / "carol.mesh").write_text(
        word + text_of("carol", serves=("mix@bravo.test",))
    )
    snapshot = watch(folder).snapshot
    assert snapshot.directory.route("mix@bravo.test") == Conflict()
    assert snapshot.mistakes == (
        "mix@bravo.test: bravo and carol both serve it: its mail waits until one "
        "gives it up",
    )


def test_a_claim_to_ours_is_told(folder: Path) -> None:
    word = "Serves-Confirmed: mix@alpha.test\n"
    (folder / "carol.mesh").write_text(
        word + text_of("carol", serves=("mix@alpha.test",))
    )
    assert "this node and carol both serve it" in watch(folder).snapshot.mistakes[0]


def test_a_folder_that_is_not_there_ends_no_link(folder: Path, tmp_path: Path) -> None:
    peers = watch(folder)
    hidden = tmp_path.with_name("hidden")
    folder.rename(hidden)
    assert [peers.poll(), peers.poll()] == [True, False]
    assert list(peers.snapshot.by_name) == ["bravo"]
    (line,) = peers.snapshot.mistakes
    assert line == f"{folder}: No such file or directory: put the folder back"
    hidden.rename(folder)
    assert [peers.poll(), peers.poll()] == [True, False]
    assert not peers.snapshot.mistakes


def test_a_file_that_goes_while_we_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = {"bravo.mesh": (1,), "gone.mesh": (2,)}
    monkeypatch.setattr("mesh.node.peers._stamps", lambda _: stamps)
    peers = watch(folder)
    assert list(peers.snapshot.by_name) == ["bravo"]
    assert peers.snapshot.mistakes == ()


def test_more_files_than_a_node_is_built_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PEERS_MAX == 4096
    monkeypatch.setattr("mesh.node.peers.PEERS_MAX", 1)
    (folder / "carol.mesh").write_text(text_of("carol"))
    snapshot = watch(folder).snapshot
    assert list(snapshot.by_name) == ["bravo"]
    assert snapshot.mistakes == (f"{folder}: more than 1 files: the rest is not read",)


def test_many_descriptors_in_one_file(folder: Path) -> None:
    """A file of all nodes: ours is passed over, each has the words before it."""
    (folder / "all.mesh").write_text(
        "All nodes of main.\n\n"
        + text_of("alpha")
        + "Serves-Confirmed: list@else.test\n"
        + text_of("carol", serves=("list@else.test",))
        + text_of("dave", serves=("list@else.test",))
        + text_of("bravo", serial=6)
    )
    peers = watch(folder)
    found = peers.snapshot
    assert found.mistakes == ()
    assert list(found.by_name) == ["bravo", "carol", "dave"]
    assert found.by_name["bravo"].descriptor.serial == 7
    assert found.by_name["carol"].counted == ("list@else.test",)
    assert found.by_name["dave"].counted == ()
    (folder / "all.mesh").write_text(text_of("carol") + text_of("bravo", serial=8))
    assert peers.poll()
    assert list(peers.snapshot.by_name) == ["bravo", "carol"]
    assert peers.snapshot.by_name["bravo"].descriptor.serial == 8


def test_of_one_serial_the_file_of_its_own_counts(folder: Path) -> None:
    word = "Serves-Confirmed: list@else.test\n"
    text = text_of("carol", serves=("list@else.test",))
    (folder / "a.mesh").write_text(text + text_of("dave"))
    (folder / "carol.mesh").write_text(word + text)
    assert watch(folder).snapshot.by_name["carol"].confirmed == {"list@else.test"}


def test_one_name_with_two_keys_is_nobody(folder: Path) -> None:
    text = text_of("carol") + text_of("bravo", seed="mallory")
    (folder / "more.mesh").write_text(text)
    found = watch(folder).snapshot
    assert list(found.by_name) == ["carol"]
    assert len(found.mistakes) == 2


def test_one_name_with_two_keys_in_one_file_is_nobody(folder: Path) -> None:
    text = text_of("carol") + text_of("carol", seed="mallory") + text_of("dave")
    (folder / "more.mesh").write_text(text)
    found = watch(folder).snapshot
    assert list(found.by_name) == ["bravo", "dave"]
    assert len(found.mistakes) == 2
    assert all("more.mesh: carol: another" in line for line in found.mistakes)


@pytest.mark.parametrize("mark", ["\x0c", "\x0b", "\x1c", "\x85", "\u2028", "\xa0"])
def test_lines_end_where_the_parser_ends_them(folder: Path, mark: str) -> None:
    """Else one END more than descriptors, or a word for another than was meant."""
    word = "Serves-Confirmed: list@else.test\n"
    (folder / "more.mesh").write_text(
        f"{mark}{END}\n{mark}{word}"
        + text_of("carol", serves=("list@else.test",))
        + text_of("dave")
        + f"{mark}{END}\n"
    )
    found = watch(folder).snapshot
    assert found.mistakes == ()
    assert list(found.by_name) == ["bravo", "carol", "dave"]
    assert found.by_name["carol"].counted == ()


def test_one_bad_among_many_and_what_was_before_stays(folder: Path) -> None:
    many = folder / "more.mesh"
    many.write_text(text_of("carol") + text_of("dave"))
    peers = watch(folder)
    many.write_text(text_of("carol", serial=8) + text_of("dave").replace("dave", "eve"))
    assert peers.poll()
    assert list(peers.snapshot.by_name) == ["bravo", "carol", "dave"]
    assert peers.snapshot.by_name["carol"].descriptor.serial == 7
    assert peers.snapshot.mistakes[0].startswith(f"{many}:")


def test_what_was_removed_is_read_when_it_changed_and_stays_when_it_cannot_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = folder / ".removed"
    removed.write_text("2099-01-01 mix@else.test\n")
    peers = watch(folder)
    assert peers.snapshot.directory.is_withheld("mix@else.test", NOW)
    with monkeypatch.context() as patch:  # a look each second costs one stat
        patch.setattr("mesh.node.peers.read_withheld", None)
        assert not peers.poll()
    removed.unlink()
    removed.mkdir()
    assert [peers.poll(), peers.poll()] == [True, False]
    assert peers.snapshot.directory.is_withheld("mix@else.test", NOW)
    (line,) = peers.snapshot.mistakes
    assert line.startswith(f"{removed}: not a regular file")
    removed.rmdir()
    assert peers.poll()
    assert not peers.snapshot.directory.is_withheld("mix@else.test", NOW)
    assert not peers.snapshot.mistakes


def test_what_was_removed_and_may_not_be_read_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / ".removed").touch(mode=0)
        Path(name).chmod(0o755)
        with unprivileged():
            (line,) = watch(Path(name)).snapshot.mistakes
    assert line.startswith(f"{name}/.removed: Permission denied: make it readable")


def test_what_was_removed_is_read_again_when_there_are_descriptors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = watch(folder)
    (folder / ".removed").write_text("2099-01-01 mix@else.test\n")

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("mesh.node.peers.os.open", none_left)
        assert peers.poll()
    assert peers.poll()
    assert peers.snapshot.directory.is_withheld("mix@else.test", NOW)
    assert not peers.poll()


def test_a_file_that_is_taken_away_by_hand_leaves_nothing_to_port_25(
    folder: Path,
) -> None:
    peers = watch(folder)
    (folder / "bravo.mesh").unlink()
    assert peers.poll()
    directory = peers.snapshot.directory
    assert directory.route("mix@bravo.test") is None
    assert directory.is_awaited("mix@bravo.test", time.time() + 30 * DAY)
    assert not directory.is_awaited("mix@bravo.test", time.time() + 32 * DAY)
    (folder / "bravo.mesh").write_text(text_of("bravo"))
    assert peers.poll()
    assert peers.snapshot.directory.route("mix@bravo.test") == ToPeer("bravo")


class Watched(Peers):
    """Says what it published, each snapshot that others may have seen."""

    published: list[Snapshot]

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if isinstance(value, Snapshot):
            self.__dict__.setdefault("published", []).append(value)


def test_at_no_time_is_who_vanished_reached_in_clear(folder: Path) -> None:
    """Others read while a thread polls: no half of a change is to be seen."""
    peers = Watched(folder, US)
    peers.poll()
    peers.published.clear()
    (folder / "bravo.mesh").unlink()
    assert peers.poll()
    [gone] = peers.published
    assert gone.directory.route("mix@bravo.test") is None
    assert gone.directory.is_awaited("mix@bravo.test", time.time())
    (folder / "bravo.mesh").write_text(text_of("bravo"))
    assert peers.poll()
    [_, back] = peers.published
    assert back.directory.route("mix@bravo.test") == ToPeer("bravo")
    assert not back.directory.is_awaited("mix@bravo.test", time.time())


def test_who_does_not_count_is_not_reached_in_clear(folder: Path) -> None:
    """A file that copies a peer's key sends nobody's mail out by port 25."""
    stolen = signed("bravo").link_keys
    (folder / "more.mesh").write_text(
        text_of("dave") + text_of("aaron", link_keys=stolen)
    )
    directory = watch(folder).snapshot.directory
    assert directory.route("mix@bravo.test") is None
    assert directory.is_awaited("mix@bravo.test", NOW + 1000 * DAY)
    (folder / "more.mesh").unlink()
    assert watch(folder).snapshot.directory.route("mix@bravo.test") == ToPeer("bravo")


@pytest.mark.parametrize("damage", ["gone", "torn", "another's", "the folder's gone"])
def test_a_start_remembers_what_peers_served(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, damage: str
) -> None:
    served = tmp_path_factory.mktemp("state") / "served"
    path = folder / "bravo.mesh"
    (folder / "carol.mesh").write_text(text_of("carol"))

    def start() -> Peers:
        peers = Peers(folder, US, served=served)
        peers.poll()
        return peers

    def awaits(peers: Peers, after: float = 0.0) -> bool:
        directory = peers.snapshot.directory
        assert directory.route("mix@bravo.test") is None
        return directory.is_awaited("mix@bravo.test", time.time() + after)

    assert start().snapshot.directory.route("mix@bravo.test") == ToPeer("bravo")
    assert stat.S_IMODE(served.stat().st_mode) == 0o600
    text = path.read_text()
    if damage == "torn":
        path.write_text(text[:200])
    elif damage == "another's":
        path.write_text(text_of("dave"))
    else:
        path.unlink()
    if damage == "the folder's gone":
        (folder / "carol.mesh").unlink()
    for peers in (start(), start()):  # one more does not forget it
        assert awaits(peers, 29.0 * DAY)
        assert not awaits(peers, 32.0 * DAY)
    peers = start()
    path.write_text(text)
    assert peers.poll()
    assert peers.snapshot.directory.route("mix@bravo.test") == ToPeer("bravo")
    peers = start()
    path.write_text(text_of("bravo", serves=("other@bravo.test",), serial=8))
    assert peers.poll()
    assert not awaits(peers)  # it says itself that it serves this no more
    assert not awaits(start())


def test_who_vanished_31_days_ago_is_forgotten(folder: Path) -> None:
    served = folder / "served"
    served.write_text("2020-01-01 carol mix@carol.test\n")
    peers = Peers(folder, US, served=served)
    peers.poll()
    assert not peers.snapshot.directory.is_awaited("mix@carol.test", time.time())
    assert served.read_text() == "9999-12-31 bravo mix@bravo.test\n"


def test_who_was_removed_is_not_awaited(folder: Path) -> None:
    peers = watch(folder)
    (folder / ".removed").write_text("2099-01-01 mix@bravo.test\n")
    (folder / "bravo.mesh").unlink()
    assert peers.poll()
    directory = peers.snapshot.directory
    assert directory.is_withheld("mix@bravo.test", time.time())
    assert not directory.is_awaited("mix@bravo.test", time.time())
