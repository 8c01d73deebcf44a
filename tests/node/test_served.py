# SPDX-License-Identifier: MIT
"""What is remembered of peers, and what becomes of it when the file is not as we left it."""

from pathlib import Path

from mesh.node.served import LISTED, read_served, write_served

DAY = 86_400
SERVED = {("bravo", "mix@b.test"): LISTED, ("carol", "@c.test"): 20_000 * DAY}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "served"
    (tmp_path / "served.new").write_text("left by a crash")
    write_served(path, SERVED)
    assert read_served(path) == SERVED
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert (
        read_served(None)
        == read_served(tmp_path / "none")
        == read_served(tmp_path)
        == {}
    )
    write_served(None, SERVED)
    write_served(tmp_path / "none" / "served", SERVED)  # it cannot be: no matter
    assert not list(tmp_path.iterdir())


def test_lines_of_another_form_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "served"
    path.write_bytes(
        b"9999-12-31 bravo mix@b.test\n9999-12-31 bravo\n9999-12-31  x@y\nnever a b\n"
        b"\n\xff\0 a b\n9999-99-31 a b\n9999-12-31 ca"
    )
    assert read_served(path) == {("bravo", "mix@b.test"): LISTED}
