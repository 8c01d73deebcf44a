# SPDX-License-Identifier: MIT
"""The handbook on the command line, and whether it says what is true."""

import re

import pytest

from mesh.cli.help import ORDER, PAGES, topics
from mesh.cli.main import VERBS, main

Capture = pytest.CaptureFixture[str]


def test_the_list(capsys: Capture) -> None:
    assert main(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == list(ORDER)


@pytest.mark.parametrize("topic", ORDER)
def test_each_page(topic: str, capsys: Capture) -> None:
    assert main(["help", topic]) == 0
    assert capsys.readouterr().out == (PAGES / f"{topic}.md").read_text()


@pytest.mark.parametrize("verb", ["init", "export", "peers"])
def test_each_verb(verb: str, capsys: Capture) -> None:
    assert main(["help", verb]) == 0
    one = capsys.readouterr().out
    assert main([verb, "--help"]) == 0
    assert one == capsys.readouterr().out
    assert one.startswith(f"Usage: mesh {verb}")


def test_no_such_page(capsys: Capture) -> None:
    assert main(["help", "quikstart"]) == 64
    assert capsys.readouterr().err == (
        "mesh: no page 'quikstart': did you mean \"quickstart\"?\n"
    )


def test_pages_are_text_of_one_screen_s_width() -> None:
    for path in topics().values():
        lines = path.read_text(encoding="ascii").splitlines()
        assert lines[0].startswith("# ")
        assert max(map(len, lines)) <= 92


def test_pages_name_verbs_that_there_are() -> None:
    for path in topics().values():
        for verb in re.findall(
            r"`mesh ([a-z]+)|^    mesh ([a-z]+)", path.read_text(), re.MULTILINE
        ):
            assert "".join(verb) in VERBS
