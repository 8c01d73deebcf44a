# SPDX-License-Identifier: MIT
"""What was judged is kept for the code that judged it, and for no other."""

from pathlib import Path

import pytest

from mesh.audit import kept
from mesh.audit.report import Report


def test_the_digest_is_of_all_source(tmp_path: Path) -> None:
    found = set()
    for number, files in enumerate(({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1", "c": "2"})):  # fmt: skip
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        found.add(kept.digest(folder))
    assert len(found) == 3
    assert {len(each) for each in found} == {8}


def test_other_code_judges_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    made: list[int] = []

    def make() -> Report:
        made.append(1)
        return Report("0.1", "", 0.0, len(made), ())

    assert kept.kept(tmp_path, "probed", make) == kept.kept(tmp_path, "probed", make)
    assert len(made) == 1
    (file,) = (tmp_path / "judged").iterdir()
    assert file.name == f"probed-{kept.digest()}.json"
    monkeypatch.setattr(kept, "digest", lambda: "01234567")
    assert kept.kept(tmp_path, "probed", make).cells == 2
