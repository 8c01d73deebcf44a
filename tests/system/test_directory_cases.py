# SPDX-License-Identifier: MIT
"""TUF's cases against `mesh directory adopt`: each by its name.

The names are those of TUF's conformance suite and of python-tuf's attack tests; what
stands behind a dash is ours.  Our one roster is TUF's timestamp, snapshot and targets
together, our descriptors are its target files, our root is its root, but does not expire.

A client is a node's folder.  Its operator begins with the first directory (`init`) and
gets a later one (`refresh`): the command as it is typed, and for another time a program
of its own with libfaketime's clock.  Whatever is refused leaves the version before in
force, and says so in one line.  Signatures of keys that may not sign are refused, where
TUF passes them over: a file that carries any has been touched on its way.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mesh.cli.main import main
from mesh.core.descriptor import SERIAL_MAX, Descriptor
from mesh.core.document import (
    DOCUMENT_MAX_LEN,
    Document,
    armour,
    parse_untrusted,
    to_octets,
)
from mesh.core.root import VERSION_MAX, SignedRoot
from tests.descriptors import DAY, signed
from tests.directories import (
    directory,
    drafted,
    root,
    roster_of,
    signatures_of,
    signed_root,
)
from tests.directories import forged as forged_
from tests.system.nodes import MESH, ask_here, mesh_here

NOW = int(time.time())
IN_UTC = {**os.environ, "TZ": "UTC"}
Tool = Callable[[str, str], str]


@cache
def node(name: str, **changes: Any) -> Descriptor:
    validity = {"not_before": NOW - 9 * DAY, "not_after": NOW + 400 * DAY}
    return signed(name, **(validity | changes))


def nodes(*names: str) -> list[Descriptor]:
    return [node(name) for name in names or ("alpha", "bravo", "charlie")]


def made(
    before: Document | None = None,
    members: Sequence[Descriptor] | None = None,
    **changes: Any,
) -> Document:
    """What `new`, `sign` and `merge` make today."""
    return directory(before, members or nodes(), **({"now": NOW} | changes))


def forged(document: Document, **changes: Any) -> Document:
    """What our own tools would not make, signed by enough."""
    return forged_(document, **changes)


def later(days: float) -> str:
    """So many days after what was made, for faketime: midnight may come meanwhile."""
    return time.strftime("@%Y-%m-%d %H:%M:%S", time.gmtime(NOW + days * DAY))


FIRST = made()
SECOND = made(FIRST)


class Client:
    """One node's folder, and what its operator types."""

    def __init__(self, home: Path, faketime: str) -> None:
        self.home = home
        self.faketime = faketime
        self.file = home / "file.mesh"
        self.error = ""

    def init(self, document: Document = FIRST) -> None:
        """The operator begins."""
        self.file.write_text(armour(document))
        assert main(["directory", "adopt", *self.options]) == 0

    @property
    def options(self) -> list[str]:
        return ["-c", str(self.home / "node.toml"), str(self.file)]

    def refresh(self, offered: Document | str, days: float = 0, *more: str) -> int:
        """The operator is given another, so many days later; the exit code.

        A clock that is wrong needs a process of its own.
        """
        text = offered if isinstance(offered, str) else armour(offered)
        self.file.write_text(text)
        command = ["directory", "adopt", *more, *self.options]
        if not days:
            code, _, self.error = ask_here(*command)
            return code
        done = subprocess.run(
            [self.faketime, "-f", later(days), MESH, *command],
            check=False, capture_output=True, text=True, timeout=60, env=IN_UTC,
        )  # fmt: skip
        self.error = done.stderr
        assert "Traceback" not in self.error
        return done.returncode

    def refused(self, offered: Document | str, why: str, days: float = 0) -> None:
        """One line says why, and everything is as it was."""
        before = self.found()
        assert self.refresh(offered, days) == 65, self.error
        lines = self.error.splitlines()
        assert len(lines) == 1, lines
        assert why in lines[0]
        assert self.found() == before

    def taken(self, offered: Document, days: float = 0) -> None:
        assert self.refresh(offered, days) == 0, self.error
        assert self.in_force == offered

    def found(self) -> dict[str, bytes]:
        state = self.home / "state"
        return {p.name: p.read_bytes() for p in state.glob("directory.[mcr]*")}

    @property
    def in_force(self) -> Document:
        return parse_untrusted((self.home / "state" / "directory.mesh").read_text())

    @property
    def version(self) -> int:
        return self.in_force.roster.version

    def serial(self, name: str) -> int:
        """Of the descriptor that counts here."""
        (found,) = (m["serial"] for m in self.shown()["members"] if m["name"] == name)
        return int(found)

    def shown(self) -> Any:
        import json

        config = str(self.home / "node.toml")
        return json.loads(mesh_here("directory", "show", "--json", "-c", config))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node that nobody has given a directory."""
    made_here = tmp_path_factory.mktemp("client") / "node"
    mesh_here("init", str(made_here), "--name", "zoe", "--address", "zoe.test:4000")
    return made_here


@pytest.fixture
def client(home: Path, tmp_path: Path, tool: Tool) -> Client:
    copy = tmp_path / "node"
    shutil.copytree(home, copy)
    return Client(copy, tool("faketime", "faketime"))


@pytest.fixture
def begun(client: Client) -> Client:
    client.init()
    return client


# test_basic


def test_basic_init_and_refresh(client: Client) -> None:
    assert client.refresh(FIRST) == 0
    assert client.version == 1
    client.taken(SECOND)
    assert client.version == 2


def test_invalid_initial_root(client: Client) -> None:
    first = signed_root(root(0, ("ann",), 1), ["ann"])
    client.refused(replace(FIRST, roots=(first,)), "its version is out of range")
    assert not client.found()


def test_unsigned_initial_root(client: Client) -> None:
    bare = (SignedRoot(FIRST.root),)
    client.refused(replace(FIRST, roots=bare), "root 1 is signed by too few")
    assert not client.found()


def test_initial_root_that_nobody_told(client: Client) -> None:
    """- init with another fingerprint than the operator was told."""
    assert client.refresh(FIRST, 0, "--root", "AAAA " * 8) == 65
    assert "none of its roots has this fingerprint" in client.error
    assert not client.found()


def test_timestamp_content_changes(begun: Client) -> None:
    """The same version with other content."""
    begun.refused(made(members=nodes("alpha", "dave")), "another version 1")


def test_timestamp_eq_versions_check(begun: Client) -> None:
    """The same version with another expiry."""
    begun.refused(made(days=90), "another version 1")


def test_new_targets_hash_mismatch(begun: Client) -> None:
    """A descriptor of the serial that was signed, and not the one that was signed."""
    other = node("alpha", addresses=("evil.test:1",)).box
    boxes = (other, *SECOND.boxes[1:])
    begun.refused(replace(SECOND, boxes=boxes), "is not what was signed")


def test_new_targets_version_mismatch(begun: Client) -> None:
    """A descriptor older than the one that was signed."""
    boxes = (node("alpha", serial=6).box, *SECOND.boxes[1:])
    begun.refused(replace(SECOND, boxes=boxes), "older than what was signed")


def test_custom_fields(begun: Client) -> None:
    """- unknown fields are refused: a new form says so by its number."""
    octets = bytearray(to_octets(SECOND))
    assert octets[4:8] == b"\x93\x01\x01\x03"
    octets[5] = 2
    begun.refused(in_armour(bytes(octets)), "of a form that this mesh does not read")


def in_armour(octets: bytes, document: Document = SECOND) -> str:
    """Any octets under the right headers."""
    from mesh.core.armour import wrap
    from mesh.core.document import END

    head = armour(document).partition("\n\n")[0]
    return "\n".join([head, "", *wrap(octets), END, ""])


# test_expiration


def test_root_expired(begun: Client) -> None:
    """- roots do not expire: an old one still hands over."""
    later = made(SECOND, [node("alpha", not_after=NOW + 9999 * DAY)], signers=("dan",),
                 by=("ann", "bob", "dan"), now=NOW + 390 * DAY)  # fmt: skip
    begun.taken(later, days=391)
    assert begun.in_force.root.version == 2


def test_timestamp_expired(begun: Client) -> None:
    begun.refused(made(FIRST, days=1), "expired", days=2)


def test_snapshot_expired(begun: Client) -> None:
    """At the very end it counts, a moment later it does not."""
    end = SECOND.roster.not_after - NOW
    begun.refused(SECOND, "expired", days=end / DAY + 0.01)
    begun.taken(SECOND, days=end / DAY - 0.01)


def test_targets_expired(begun: Client) -> None:
    """A descriptor that has expired is listed, for its node renews it: adopted."""
    short = [node("alpha", not_after=NOW + DAY), *nodes("bravo")]
    begun.taken(made(FIRST, short), days=9)


def test_expired_metadata(begun: Client) -> None:
    """What has expired here is still what the next is judged by."""
    later = made(FIRST, now=NOW + 99 * DAY)
    begun.refused(made(members=nodes("alpha")), "another version 1", days=100)
    begun.taken(later, days=100)


def test_expired_initial(client: Client) -> None:
    """- nobody begins with an expired one."""
    client.refused(FIRST, "expired", days=100)
    assert not client.found()


def test_issued_in_the_future(begun: Client) -> None:
    """- a clock that is wrong by a day is nothing, one by two is."""
    begun.refused(SECOND, "in the future: set this machine's clock", days=-2)
    begun.taken(SECOND, days=-1)


def test_indefinite_freeze_attack(begun: Client) -> None:
    """Whoever hands out the old one for ever is seen."""
    config = str(begun.home / "node.toml")
    told = subprocess.run(
        [begun.faketime, "-f", later(70), MESH, "directory", "show", "-c", config],
        check=True, capture_output=True, text=True, env=IN_UTC,
    )  # fmt: skip
    assert "EXPIRED 1" in told.stdout
    assert begun.refresh(SECOND, days=50) == 0
    assert "version 2 expires in 9 days: ask the signers" in begun.error


# test_rollback


@pytest.fixture
def third(client: Client) -> Client:
    client.init()
    client.init(SECOND)
    client.init(made(SECOND))
    return client


def test_new_timestamp_version_rollback(third: Client) -> None:
    third.refused(SECOND, "version 3 of root 1 is in force")


def test_simple_snapshot_rollback(third: Client) -> None:
    """Back to the first, with newer descriptors in it."""
    newer = tuple(node(d.name, serial=9).box for d in nodes())
    third.refused(replace(FIRST, boxes=newer), "is in force")


def test_snapshot_rollback(third: Client) -> None:
    """The same content under a number that is taken."""
    third.refused(made(FIRST, days=80), "is in force")


def test_replay_attack(third: Client) -> None:
    """Again what was in force, after it has expired."""
    third.refused(SECOND, "is in force", days=100)


def test_targets_rollback(begun: Client) -> None:
    """No descriptor is older than the one that counted: ours stays."""
    newer = tuple(node(d.name, serial=9).box for d in nodes())
    assert begun.refresh(replace(FIRST, boxes=newer)) == 0
    assert begun.serial("bravo") == 9
    assert begun.refresh(SECOND) == 0
    assert begun.version == 2
    assert begun.serial("bravo") == 9


def test_mix_and_match_attack(begun: Client) -> None:
    """Old parts in a new whole: a signature belongs to its roster, a box to its entry."""
    mixed = replace(SECOND, signatures=FIRST.signatures)
    begun.refused(mixed, "does not hold: ask for a fresh copy")
    swapped = replace(SECOND, boxes=(SECOND.boxes[1], SECOND.boxes[0], SECOND.boxes[2]))
    begun.refused(swapped, "is of somebody else")


def test_new_snapshot_version_mismatch(begun: Client) -> None:
    """The roster names another root than there is."""
    begun.refused(forged(SECOND, root=bytes(32)), "another root than its newest")


def test_new_timestamp_fast_forward_recovery(begun: Client) -> None:
    """After a stolen threshold signed the last version, a new root begins again."""
    last = forged(SECOND, version=VERSION_MAX)
    begun.taken(last)
    fresh = made(last, signers=("dan", "eve"), by=("ann", "bob", "dan", "eve"))
    assert fresh.roster.version == 1
    begun.taken(fresh)


def test_new_targets_fast_forward_recovery(begun: Client) -> None:
    """A node whose stolen key signed the last serial comes back under another key."""
    stolen = tuple(node(d.name, serial=SERIAL_MAX).box for d in nodes())
    assert begun.refresh(replace(FIRST, boxes=stolen)) == 0
    fresh = made(FIRST, [node("alpha", seed="again"), *nodes("bravo", "charlie")])
    assert begun.refresh(fresh) == 0
    assert begun.serial("alpha") == 7
    assert begun.serial("bravo") == SERIAL_MAX


def test_predecessor(begun: Client) -> None:
    """- the next after another first one, and the one after that."""
    other = made(made(members=nodes("alpha")))
    begun.refused(other, "follows another version 1 than")
    begun.taken(made(other))


# test_keys


def test_snapshot_threshold(begun: Client) -> None:
    begun.refused(made(FIRST, by=("ann",)), "signed by 1 of 3, 2 needed")


def test_root_has_keys_but_not_snapshot(begun: Client) -> None:
    """Those who signed the root are not those who signed the roster."""
    raised = drafted(FIRST, nodes(), threshold=3, now=NOW)
    roots = (FIRST.roots[0], signed_root(raised.root, ("ann", "bob", "cid")))
    both = signatures_of(raised.roster, ("ann", "bob"))
    begun.refused(
        replace(raised, roots=roots, signatures=both), "signed by 2 of 3, 3 needed"
    )


def test_duplicate_keys_root(begun: Client) -> None:
    """A key stands once among the signers."""
    twice = root(2, ("ann", "bob", "cid"), 2)
    twice = replace(twice, keys=(twice.keys[0], *twice.keys))
    roots = (FIRST.roots[0], signed_root(twice, ("ann", "bob", "cid")))
    begun.refused(replace(SECOND, roots=roots), "sorted, each once")


def test_key_that_signs_twice(begun: Client) -> None:
    """- a key counts once, however often it signed."""
    (one,) = signatures_of(SECOND.roster, ("ann",))
    begun.refused(replace(SECOND, signatures=(one, one)), "a key signed twice")


def test_threshold_that_cannot_be(begun: Client) -> None:
    """- of nobody: then everybody could."""
    bad = signed_root(root(2, ("ann", "bob", "cid"), 0), ("ann", "bob"))
    roots = (FIRST.roots[0], bad)
    begun.refused(replace(SECOND, roots=roots), "its threshold is not between")


def test_signature_of_another_thing(begun: Client) -> None:
    """- domains are apart: a signature of a root signs no roster."""
    (key, _), *_ = SECOND.signatures
    of_root = dict(FIRST.roots[0].signatures)[key]
    begun.refused(replace(SECOND, signatures=((key, of_root),)), "does not hold")


# test_updater_key_rotations


@dataclass(frozen=True)
class Version:
    """Which keys a root has, how many must sign, which do, and what is to happen."""

    keys: Sequence[int]
    threshold: int
    sigs: Sequence[int]
    why: str = ""


FIVE, NEXT_FIVE = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
CHANGED = (0, 1, 3, 4, 5)
FOREIGN = "which is no signer"
FEW = "is signed by too few"

ROOT_ROTATIONS = {
    "1-of-1-key-rotation": [
        Version([1], 1, [1]), Version([2], 1, [2, 1]), Version([2], 1, [2]),
    ],
    "1-of-1-key-rotation-unused-signatures": [
        Version([1], 1, [1]), Version([2], 1, [3, 2, 1, 4], FOREIGN),
    ],
    "3-of-5-sign-with-different-keycombos": [
        Version(FIVE, 3, [0, 2, 4]), Version(FIVE, 3, [0, 4, 1]),
        Version(FIVE, 3, [0, 1, 3]), Version(FIVE, 3, [0, 1, 3]),
    ],
    "3-of-5-one-key-rotated": [
        Version(FIVE, 3, [0, 2, 4]), Version(CHANGED, 3, [0, 4, 1]),
    ],
    "3-of-5-one-key-rotated-with-intermediate-step": [
        Version(FIVE, 3, [0, 2, 4]), Version(CHANGED, 3, [0, 2, 4, 5]),
        Version(CHANGED, 3, [0, 4, 5]),
    ],
    "3-of-5-all-keys-rotated-with-intermediate-step": [
        Version(FIVE, 3, [0, 2, 4]), Version(NEXT_FIVE, 3, [0, 2, 4, 5, 6, 7]),
        Version(NEXT_FIVE, 3, [5, 6, 7]),
    ],
    "1-of-3-threshold-increase-to-2-of-3": [
        Version([1, 2, 3], 1, [1]), Version([1, 2, 3], 2, [1, 2]),
    ],
    "2-of-3-threshold-decrease-to-1-of-3": [
        Version([1, 2, 3], 2, [1, 2]), Version([1, 2, 3], 1, [1, 2]),
        Version([1, 2, 3], 1, [1]),
    ],
    "1-of-2-threshold-increase-to-2-of-2": [
        Version([1], 1, [1]), Version([1, 2], 2, [1, 2]),
    ],
    "1-of-1-key-rotation-fail-not-signed-with-old-key": [
        Version([1], 1, [1]), Version([2], 1, [2], FEW),
    ],
    "1-of-1-key-rotation-fail-not-signed-with-new-key": [
        Version([1], 1, [1]), Version([2], 1, [1], FEW),
    ],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-new-keys": [
        Version(FIVE, 3, [0, 2, 4]), Version(CHANGED, 3, [0, 2, 4], FEW),
    ],
    "3-of-5-one-key-rotate-fails-not-signed-with-3-old-keys": [
        Version(FIVE, 3, [0, 2, 4]), Version(CHANGED, 3, [0, 4, 5], FEW),
    ],
    "1-of-3-threshold-bump-to-2-of-3-fails-new-threshold-not-reached": [
        Version([1, 2, 3], 1, [1]), Version([1, 2, 3], 2, [2], FEW),
    ],
    "2-of-3-threshold-decr-to-1-of-3-fails-old-threshold-not-reached": [
        Version([1, 2, 3], 2, [1, 2]), Version([1, 2, 3], 1, [1], FEW),
    ],
}  # fmt: skip


def seeds(numbers: Sequence[int]) -> list[str]:
    return [f"key {number}" for number in numbers]


def rotated(versions: Sequence[Version], before: Document | None) -> Document:
    """A directory under all these roots, properly signed under the last."""
    roots = tuple(
        signed_root(root(at, seeds(one.keys), one.threshold), seeds(one.sigs))
        for at, one in enumerate(versions, 1)
    )
    changes = {"version": 2, "predecessor": before.roster.hash} if before else {}
    roster = roster_of(
        nodes(), issued=NOW, not_after=NOW + 30 * DAY,
        root_version=len(roots), root=roots[-1].root.hash, **changes,
    )  # fmt: skip
    signatures = signatures_of(roster, seeds(versions[-1].keys))
    boxes = tuple(one.box for one in nodes())
    return Document(roots, roster, signatures, boxes)


@pytest.mark.parametrize("versions", ROOT_ROTATIONS.values(), ids=ROOT_ROTATIONS)
def test_root_rotation(client: Client, versions: list[Version]) -> None:
    first = rotated(versions[:1], None)
    client.init(first)
    second = rotated(versions, first)
    if why := versions[-1].why:
        client.refused(second, why)
    else:
        client.taken(second)


ROTATIONS = {
    "1-of-1-key-rotation": Version([2], 1, [2]),
    "1-of-1-key-rotation-unused-signatures": Version([1], 1, [3, 1, 4], FOREIGN),
    "1-of-1-key-rotation-fail-not-signed-with-new-key": Version([2], 1, [1], FOREIGN),
    "3-of-5-one-key-signature-wrong-not-signed-with-3-expected-keys": Version(
        CHANGED, 3, [0, 2, 4], FOREIGN
    ),
    "2-of-5-one-key-signature-missing-threshold-not-reached": Version(
        CHANGED, 3, [0, 4], "signed by 2 of 5, 3 needed"
    ),
    "3-of-5-sign-first-combo": Version(FIVE, 3, [0, 2, 4]),
    "3-of-5-sign-second-combo": Version(FIVE, 3, [0, 4, 1]),
    "3-of-5-sign-third-combo": Version(FIVE, 3, [0, 1, 3]),
    "3-of-5-sign-fourth-combo": Version(FIVE, 3, [1, 2, 3]),
    "3-of-5-sign-fifth-combo": Version(FIVE, 3, [2, 3, 4]),
}


@pytest.mark.parametrize("version", ROTATIONS.values(), ids=ROTATIONS)
def test_non_root_rotations(client: Client, version: Version) -> None:
    """The roster's signatures, under a root that holds."""
    whole = replace(version, sigs=version.keys)
    offered = rotated([whole], None)
    signatures = signatures_of(offered.roster, seeds(version.sigs))
    offered = replace(offered, signatures=signatures)
    if version.why:
        client.refused(offered, version.why)
        assert not client.found()
    else:
        client.taken(offered)


# test_file_download, and attacks of python-tuf's own tests


def test_client_downloads_expected_file(begun: Client) -> None:
    """All descriptors of the directory count."""
    begun.taken(made(FIRST, nodes("alpha", "bravo", "dave")))
    peers = mesh_here("peers", "--json", "-c", str(begun.home / "node.toml"))
    assert [name in peers for name in ("bravo", "charlie", "dave")] == [
        True,
        False,
        True,
    ]


def test_repository_substitutes_target_file(begun: Client) -> None:
    """Somebody else's descriptor under a node's name."""
    false = node("alpha", seed="mallory").box
    begun.refused(replace(SECOND, boxes=(false, *SECOND.boxes[1:])), "of somebody else")


def test_arbitrary_package_attack(begun: Client) -> None:
    """A descriptor more than was signed."""
    more = replace(SECOND, boxes=(*SECOND.boxes, node("mallory").box))
    begun.refused(more, "has not one descriptor for each of its nodes")


def test_endless_data_attack(begun: Client) -> None:
    begun.refused(" " * 24 * 1024 * 1024 + armour(SECOND), "more than 24 MiB")
    begun.refused(in_armour(bytes(DOCUMENT_MAX_LEN + 1)), "more than 16 MiB")


def test_nested_bomb(begun: Client) -> None:
    """- arrays in arrays without end."""
    bomb = b"\x91" * 1_000_000
    octets = b"\0\0\0\x04\x93\x01\x01\x00" + len(bomb).to_bytes(4, "big") + bomb
    begun.refused(in_armour(octets + bytes(8)), "damaged")


def test_truncated(begun: Client) -> None:
    """- cut off in its octets, in its last line."""
    text = armour(SECOND)
    for length in (300, len(text) - 9):
        begun.refused(text[:length], "file.mesh:")


def test_readable_lines_that_lie(begun: Client) -> None:
    """- what is not signed is not believed."""
    text = armour(SECOND)
    text = text.replace("Nodes: 3", "Nodes: 4")
    begun.refused(text, "readable lines are not what is signed")


def test_another_network(begun: Client) -> None:
    """- a directory of a network that this node is not of."""
    members = [node("alpha", network="else")]
    begun.refused(made(members=members, network="else"), "of the network else")


def test_another_root(begun: Client) -> None:
    """- signed by others, never believed without a fingerprint."""
    other = made(signers=("dan", "eve"), by=("dan", "eve"))
    begun.refused(other, "begins with another root than ours")
    assert begun.refresh(other, 0, "--root", other.root.fingerprint) == 0
    assert begun.in_force == other


def test_pairs_of_nobody(begun: Client) -> None:
    """- an address of a node that is not listed."""
    pairs = (("a@x.test", "nobody"),)
    begun.refused(forged(SECOND, pairs=pairs), "the roster")


def test_two_nodes_with_one_key(begun: Client) -> None:
    """- signed so: refused."""
    thief = node("mallory", link_keys=node("alpha").link_keys)
    good = made(FIRST, [*nodes("alpha"), node("mallory")])
    entries = (
        good.roster.entries[0],
        replace(good.roster.entries[1], digest=thief.digest),
    )
    bad = replace(forged(good, entries=entries), boxes=(good.boxes[0], thief.box))
    begun.refused(bad, "key")


def test_a_fork_is_kept(begun: Client) -> None:
    """- two of one version: neither is lost sight of."""
    begun.refused(made(days=90), "another version 1")
    kept = list((begun.home / "state" / "evidence").iterdir())
    assert len(kept) == 2
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}


def test_the_cases_are_enough() -> None:
    names = [name for name in globals() if name.startswith("test_")]
    assert len(names) + len(ROOT_ROTATIONS) + len(ROTATIONS) > 60
