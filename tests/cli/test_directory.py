# SPDX-License-Identifier: MIT
"""`mesh directory`, as three operators use it: drafts, signatures, adoption."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.core.document import Document, armour, parse_untrusted
from tests.disk import full_disk

Capture = pytest.CaptureFixture[str]
NAMES = ("alpha", "bravo", "carol")


class Operators:
    """Three nodes in one folder; each command is one operator's."""

    def __init__(self, folder: Path, capsys: Capture) -> None:
        self.folder = folder
        self.capsys = capsys
        self.err = ""
        for name in NAMES:
            self.init(name)

    def init(self, name: str, *serves: str) -> None:
        flags = [f"--remailer={a}" for a in (f"mix@{name}.test", *serves)]
        address = f"{name}.test:4000"
        assert main(["init", name, "--name", name, "--address", address, *flags]) == 0
        self.export(name)

    def export(self, name: str) -> None:
        Path(f"{name}.mesh").write_text(self.run(name, "export"))

    def run(self, who: str, *args: str, code: int = 0) -> str:
        """One of our commands; its standard output, and its errors in `err`."""
        self.capsys.readouterr()
        found = main([*args, "-c", f"{who}/node.toml"])
        out, self.err = self.capsys.readouterr()
        assert found == code, (args, found, self.err)
        return out

    def do(self, who: str, *args: str, code: int = 0) -> str:
        return self.run(who, "directory", *args, code=code)

    def new(self, *args: str, by: str = "alpha") -> Path:
        """A draft in a file."""
        path = Path(f"draft-{len(list(self.folder.glob('draft-*')))}")
        path.write_text(self.do(by, "new", *args))
        return path

    def signed(self, draft: Path, *by: str) -> Path:
        """Signed by each on his own machine, then merged by somebody."""
        parts = []
        for name in by:
            parts.append(f"{draft}.{name}")
            Path(parts[-1]).write_text(self.do(name, "sign", str(draft)))
        whole = Path(f"{draft}.signed")
        self.do(by[0], "merge", *parts, "-o", str(whole))
        return whole

    def first(self, *args: str) -> Path:
        """A first directory that all have adopted."""
        signers = [f"{name}.mesh" for name in NAMES]
        whole = self.signed(self.new("--signers", *signers, *args), "alpha", "carol")
        for name in NAMES:
            self.do(name, "adopt", str(whole))
        return whole

    def in_force(self, who: str) -> int:
        """The version, 0 for none."""
        args = ["directory", "show", "--json", "-c", f"{who}/node.toml"]
        self.capsys.readouterr()
        if main(args) == 66:
            return 0
        return int(json.loads(self.capsys.readouterr().out)["version"])


@pytest.fixture
def three(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> Operators:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MESH_CONFIG", raising=False)
    return Operators(tmp_path, capsys)


def read(path: Path) -> Document:
    return parse_untrusted(path.read_text())


@contextmanager
def typed(text: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it this is standard input."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        yield


def test_from_nothing_to_a_directory_in_force(three: Operators) -> None:
    signers = [f"{name}.mesh" for name in NAMES]
    draft = three.new("--signers", *signers)
    assert three.err.splitlines()[0] == (
        "mesh: version 1 of main, a draft that nobody signed:"
    )
    assert "~ root 1: 2 of 3 sign: alpha, bravo, carol" in three.err
    three.do("bravo", "adopt", str(draft), code=65)
    assert "root 1 is signed by too few" in three.err
    one = Path("one")
    one.write_text(three.do("alpha", "sign", str(draft)))
    fingerprint = read(draft).root.fingerprint
    assert f"its root, to be read out by telephone: {fingerprint}" in three.err
    assert "signed by alpha; 2 of 3 needed; not yet by bravo, carol" in three.err
    three.do("bravo", "verify", "one", code=65)
    whole = three.signed(draft, "alpha", "carol")
    assert three.err == "mesh: signed by alpha, carol; 2 of 3 needed: enough\n"
    out = three.do("bravo", "verify", str(whole))
    assert out == (
        f"version 1 of main: good if its root is, which nobody adopted: {fingerprint}\n"
    )
    assert three.in_force("bravo") == 0
    assert three.do("bravo", "adopt", str(whole)) == (
        "version 1 of main: adopted, 3 nodes\n"
    )
    assert f"its root is {fingerprint}: compare it with a signer" in three.err
    assert three.do("bravo", "verify", str(whole)) == (
        "version 1 of main: in force here\n"
    )
    assert three.do("bravo", "adopt", str(whole)) == (
        "version 1 of main: in force already\n"
    )
    assert three.err == ""
    peers = json.loads(three.run("bravo", "peers", "--json"))["peers"]
    assert [(p["name"], p["listed_by"]) for p in peers] == [
        ("alpha", ["directory"]),
        ("carol", ["directory"]),
    ]


def test_merged_in_any_order_the_same_comes_out(three: Operators) -> None:
    draft = three.new("--signers", *(f"{name}.mesh" for name in NAMES))
    parts = []
    for name in NAMES:
        parts.append(f"part.{name}")
        Path(parts[-1]).write_text(three.do(name, "sign", str(draft)))
    texts = {three.do("alpha", "merge", *order) for order in permutations(parts)}
    halves = (
        three.do("alpha", "merge", *parts[:2]),
        three.do("bravo", "merge", parts[2]),
    )
    for at, text in enumerate(halves):
        Path(f"half.{at}").write_text(text)
    texts.add(three.do("carol", "merge", "half.1", "half.0", "half.1"))
    assert len(texts) == 1
    three.do("alpha", "sign", "half.0")  # again: nothing new
    other = three.new("--signers", "alpha.mesh", "bravo.mesh")
    three.do("alpha", "merge", parts[0], str(other), code=65)
    assert "different directories" in three.err


def test_survives_mail(three: Operators) -> None:
    whole = three.first().read_text()
    letter = (
        "Dear all,\r\nour directory.\r\n\r\n"
        + whole.replace("\n", " \r\n")
        + "\r\n-- \r\n"
    )
    Path("letter").write_text(letter, newline="")
    assert "in force" in three.do("alpha", "verify", "letter")
    Path("letter").write_text("> " + letter.replace("\r\n", "\r\n> "), newline="")
    three.do("alpha", "verify", "letter", code=65)


def test_standard_input_and_output(
    three: Operators, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One operator who signs for himself alone, in one line of a shell."""
    text = three.do(
        "alpha", "new", "--signers", "alpha.mesh", "--members", "bravo.mesh"
    )
    with typed(text, monkeypatch):
        text = three.do("alpha", "sign", "-", "-o", "-")
    assert "1 of 1 needed: enough" in three.err
    with typed(text, monkeypatch):
        three.do("alpha", "adopt", "-")
    assert three.in_force("alpha") == 1
    with typed(text, monkeypatch):
        assert "in force here" in three.do("alpha", "show", "-")


def test_the_next_version(three: Operators) -> None:
    """Members are those in force, each by its newest descriptor."""
    three.first()
    three.init("dave", "list@else.test")
    toml = Path("bravo/node.toml")
    toml.write_text(toml.read_text().replace("bravo.test:4000", "bravo.test:4001"))
    three.export("bravo")
    draft = three.new("--members", "dave.mesh", "bravo.mesh", "--without", "carol")
    lines = three.err.splitlines()
    assert lines[0] == "mesh: version 2 of main, a draft that nobody signed:"
    assert lines[1] == "mesh:   - carol: leaves"
    assert lines[2].startswith("mesh:   ~ bravo: descriptor ")
    assert lines[3].startswith("mesh:   + dave: ")
    assert lines[4] == (
        "mesh: dave: list@else.test lies outside its own host and will not count: if "
        "you know better, --serves list@else.test=dave"
    )
    assert len(lines) == 5
    whole = three.signed(draft, "alpha", "bravo")
    assert three.do("bravo", "verify", str(whole)) == (
        "version 2 of main: it may follow\n"
    )
    shown = three.do("bravo", "show", str(whole))
    assert "version 2 of main, version 1 is in force here" in shown
    assert "changes from version 1, in force here\n  - carol: leaves\n" in shown
    three.do("bravo", "adopt", str(whole))
    assert three.err == ""
    three.do("carol", "adopt", str(whole))
    assert "version 2 does not list this node" in three.err
    removed = Path("bravo/state/directory.removed").read_text()
    assert "mix@carol.test" in removed


def test_vouching(three: Operators) -> None:
    """What an operator confirmed by hand is vouched for; then as is typed."""
    three.init("bravo2", "a@else.test", "b@else.test")
    three.run(
        "alpha", "peers", "add", "--serves", "a@else.test", "bravo2.mesh", "carol.mesh"
    )
    toml = Path("alpha/node.toml")
    remailer = '\n[[remailer]]\naddress = "own@else.test"\ndeliver = "maildir:M"\n'
    toml.write_text(toml.read_text() + remailer)
    whole = three.signed(three.new("--signers", "alpha.mesh"), "alpha")
    assert read(whole).roster.pairs == (
        ("a@else.test", "bravo2"),
        ("own@else.test", "alpha"),
    )
    assert [e.name for e in read(whole).roster.entries] == ["alpha", "bravo2", "carol"]
    three.do("alpha", "adopt", str(whole))
    same = three.new()
    assert read(same).roster.pairs == read(whole).roster.pairs
    draft = three.new("--serves", "A@else.test=", "b@else.test=bravo2")
    assert read(draft).roster.pairs == (
        ("b@else.test", "bravo2"),
        ("own@else.test", "alpha"),
    )
    gone = three.new("--without", "bravo2", "alpha")
    assert read(gone).roster.pairs == ()
    for words, code in (
        (("c@else.test=bravo2",), 65),
        (("bravo2",), 64),
        (("x=y",), 64),
    ):
        three.do("alpha", "new", "--serves", *words, code=code)


def test_a_handing_over_of_signers(three: Operators) -> None:
    first = three.first()
    three.init("dave")
    draft = three.new("--signers", "bravo.mesh", "dave.mesh", "--threshold", "2")
    assert "~ root 2: 2 of 2 sign: bravo, dave" in three.err
    assert [e.name for e in read(draft).roster.entries][-1] == "dave"
    new = three.signed(draft, "bravo", "dave")
    assert "not yet by alpha, carol" in three.err
    three.do("alpha", "adopt", str(new), code=65)
    whole = three.signed(draft, "bravo", "dave", "alpha")
    three.do("alpha", "adopt", str(whole))
    three.do("carol", "sign", str(three.new()), code=77)
    assert three.err == "mesh: this node's key is no signer's: nothing is signed\n"
    assert read(first).root.version == 1
    threshold = three.new("--threshold", "1")
    assert "~ root 3: 1 of 2 sign: bravo, dave" in three.err
    assert read(threshold).root.threshold == 1


def test_a_signer_signs_one_of_a_version(three: Operators) -> None:
    three.first()
    one, other = three.new("--days", "9"), three.new("--days", "8")
    three.do("bravo", "sign", str(one))
    three.do("bravo", "sign", str(one))
    out = three.do("bravo", "sign", str(other), code=65)
    assert out == ""
    assert "this node signed another one of this version" in three.err
    three.do("bravo", "sign", "--again", str(other))
    three.do("bravo", "sign", str(one), code=65)
    three.do("carol", "sign", str(other))


def test_two_of_one_version_are_kept(three: Operators) -> None:
    three.first()
    drafts = [three.new("--days", days) for days in ("9", "8")]
    wholes = [
        three.signed(draft, *by)
        for draft, by in zip(drafts, (("alpha", "bravo"), ("carol",)), strict=True)
    ]
    fork = Path("fork")
    fork.write_text(three.do("alpha", "sign", "--again", str(wholes[1])))
    three.do("bravo", "adopt", str(wholes[0]))
    three.do("bravo", "adopt", str(fork), code=65)
    assert "another version 2" in three.err
    assert len(list(Path("bravo/state/evidence").iterdir())) == 2
    three.do("bravo", "adopt", str(wholes[0]))
    assert three.in_force("bravo") == 2


def test_show(three: Operators) -> None:
    three.do("alpha", "show", code=66)
    whole = three.first("--serves", "mix@alpha.test=alpha")
    shown = three.do("alpha", "show")
    assert shown.startswith("version 1 of main, in force here\n  root       1, ")
    assert "  signed by  alpha, carol\n  not by     bravo\n" in shown
    assert "59 days left" in shown
    assert shown.splitlines()[-3].endswith("  alpha.test, mix@alpha.test")
    found = json.loads(three.do("alpha", "show", str(whole), "--json"))
    assert found["schema"] == 1
    assert found["signed_by"] == ["alpha", "carol"]
    assert [member["name"] for member in found["members"]] == list(NAMES)
    assert main(["directory", "show", str(whole)]) == 0  # of no node
    assert three.capsys.readouterr().out.startswith(
        "version 1 of main, none is in force here\n"
    )
    assert main(["directory", "show"]) == 66
    assert main(["directory", "show", "-c", "none", str(whole)]) == 66
    draft = three.new()
    for name in NAMES[:2]:
        three.do(name, "adopt", str(three.signed(draft, "alpha", "bravo")))
    shown = three.do("alpha", "show", str(whole))
    assert "NOT AFTER version 2, which is in force here" in shown
    assert "changes from version 2, in force here\n  none\n" in shown


def test_other_signers_take_the_place(three: Operators) -> None:
    three.first()
    three.init("dave")
    other = three.signed(three.new("--signers", "dave.mesh", by="dave"), "dave")
    three.do("alpha", "adopt", str(other), code=65)
    assert "another root than ours" in three.err
    three.do("alpha", "adopt", str(other), "--root", "AAAA", code=65)
    root = read(other).root.fingerprint
    three.do("alpha", "adopt", "--root", root, str(other))
    three.do("bravo", "adopt", "--root", root.lower().replace(" ", ""), str(other))
    assert three.in_force("alpha") == three.in_force("bravo") == 1
    assert "dave" in three.do("alpha", "show")


def test_a_file_that_does_not_hold_is_one_line(three: Operators) -> None:
    whole = three.first().read_text()
    spoiled = {
        "cut": whole[:-30],
        "empty": "",
        "lines": whole.replace("Nodes: 3", "Nodes: 4"),
        "octets": "\x00\xff" * 500,
        "other": whole.replace("MESH DIRECTORY", "MESH DESCRIPTOR"),
    }
    for name, text in spoiled.items():
        Path(name).write_text(text)
        for verb in ("show", "sign", "merge", "verify", "adopt"):
            assert three.do("alpha", verb, name, code=65) == ""
            (line,) = three.err.splitlines()
            assert line.startswith(f"mesh: {name}:")
    with open("large", "wb") as file:  # noqa: PTH123
        file.truncate(50 << 20)
    three.do("alpha", "adopt", "large", code=65)
    assert "more than 24 MiB" in three.err


def test_a_false_signature_is_not_shown(three: Operators) -> None:
    whole = read(three.first())
    (key, good), *rest = whole.signatures
    false = replace(whole, signatures=((key, good[::-1]), *rest))
    Path("false").write_text(armour(false))
    for verb in ("show", "sign", "verify", "adopt", "merge"):
        three.do("alpha", verb, "false", code=65)
        assert "does not hold: ask for a fresh copy" in three.err


def test_publish(three: Operators) -> None:
    three.do("alpha", "publish", "here", code=66)
    whole = three.first()
    Path("www").mkdir()
    assert three.do("alpha", "publish", "www") == "version 1: www/directory.mesh\n"
    assert Path("www/directory.mesh").read_text() == whole.read_text()
    assert Path("www/directory.mesh").stat().st_mode & 0o777 == 0o644
    Path("link").symlink_to("www/other.mesh")
    three.do("alpha", "publish", "link")
    assert Path("link").is_symlink()
    assert Path("www/other.mesh").is_file()
    os.mkfifo("fifo")
    three.do("alpha", "publish", "fifo", code=73)
    Path("loop").symlink_to("loop")
    three.do("alpha", "publish", "loop", code=73)
    three.do("alpha", "publish", "nowhere/at/all", code=73)
    with full_disk():
        three.do("alpha", "publish", "www", code=74)
    assert Path("www/directory.mesh").read_text() == whole.read_text()
    assert sorted(p.name for p in Path("www").iterdir()) == [
        "directory.mesh",
        "other.mesh",
    ]


def test_where_output_may_go(three: Operators) -> None:
    draft = three.new("--signers", "alpha.mesh")
    three.do("alpha", "sign", str(draft), "-o", "/dev/null")
    assert not Path("/dev/null").is_file()
    three.do("alpha", "sign", str(draft), "-o", str(draft))
    assert read(draft).signatures
    three.do("alpha", "sign", str(draft), "-o", "alpha", code=73)
    with full_disk():
        three.do("alpha", "merge", str(draft), "-o", "copy", code=74)
    assert not Path("copy").exists()


def test_wrong_uses(three: Operators) -> None:
    draft = str(three.new("--signers", "alpha.mesh"))
    for args, code in (
        (["new"], 64),
        (["new", "--signers"], 64),
        (["new", "--signers", "none"], 66),
        (["new", "--signers", draft], 65),
        (["new", "--signers", "alpha.mesh", "--threshold", "2"], 65),
        (["new", "--signers", "alpha.mesh", "--threshold", "0"], 64),
        (["new", "--signers", "alpha.mesh", "--days", "367"], 64),
        (["new", "--signers", "alpha.mesh", "--without", "zoe"], 67),
        (["sign"], 64),
        (["sign", "none"], 66),
        (["sign", "."], 66),
        (["sign", ""], 66),
        (["merge"], 64),
        (["adopt"], 64),
        (["adopt", draft], 65),
        (["publish"], 64),
        (["nonsense"], 64),
    ):
        assert three.do("alpha", *args, code=code) == "", args
        assert len(three.err.splitlines()) == 1, three.err
    assert main(["directory"]) == 64
    text = Path("alpha/node.toml").read_text()
    Path("alpha/node.toml").write_text(text.replace('"main"', '"else"', 1))
    three.do("alpha", "sign", draft, code=65)
    assert "of the network main: this node is of else" in three.err


def test_distrusted_by_hand(three: Operators) -> None:
    """Who is removed here is not brought back by the directory; `add` undoes it."""
    three.first()
    assert three.run("alpha", "peers", "remove", "bravo") == "bravo: removed\n"
    assert "it is distrusted here until `mesh peers add`" in three.err
    found = json.loads(three.run("alpha", "peers", "--json"))
    assert [peer["name"] for peer in found["peers"]] == ["carol"]
    assert found["distrusted"] == ["bravo"]
    assert "mix@bravo.test" in Path("alpha/peers.d/.removed").read_text()
    three.run("alpha", "peers")
    assert three.err == "mesh: bravo: listed by the shared directory, distrusted here\n"
    three.run("alpha", "peers", "add", "bravo.mesh")
    found = json.loads(three.run("alpha", "peers", "--json"))
    assert found["distrusted"] == []
    assert found["peers"][0]["listed_by"] == ["hand", "directory"]
    three.run("alpha", "peers", "remove", "nobody", code=66)


def test_by_hand_wins_over_the_directory(three: Operators) -> None:
    """Another key, and an address that two claim: shown, and used by neither."""
    Path("bravo.old").write_text(Path("bravo.mesh").read_text())
    three.run("carol", "peers", "add", "bravo.mesh")
    (Path("bravo/state") / "identity.key").unlink()
    (Path("bravo/state") / "descriptor").unlink()
    assert main(["init", "bravo2", "--name", "bravo", "--address", "bravo.test:1"]) == 0
    Path("bravo.mesh").write_text(three.run("bravo2", "export"))
    draft = three.new(
        "--signers", "alpha.mesh", "--members", "carol.mesh", "bravo.mesh"
    )
    whole = three.signed(draft, "alpha")
    three.do("carol", "adopt", str(whole))
    assert (
        "bravo: the shared directory has another key for it than peers.d" in three.err
    )
    three.run("carol", "peers", code=65)
    assert "yours counts" in three.err
    assert (
        three.do("carol", "verify", str(whole)) == "version 1 of main: in force here\n"
    )


def test_what_it_prints_for_help(capsys: Capture) -> None:
    for verb in ("new", "show", "sign", "merge", "verify", "adopt", "publish"):
        assert main(["directory", verb, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: mesh directory {verb}")
