# SPDX-License-Identifier: MIT
"""Places to lines, and words that were nearly right."""

from mesh.mistakes import (
    LineFinder,
    dotted,
    explain,
    explain_syntax,
    explain_unknown,
    suggest,
)

TEXT = """\
top = 1
[ a . "b c" ]
x.y = 2
'q' = 3
list = [
  1,
]
[[many]]
x = 1
[[many]]
x = 2
"""


def test_lines() -> None:
    lines = LineFinder(TEXT)
    assert lines.of(("top",)) == 1
    assert lines.of(("a", "b c")) == 2
    assert lines.of(("a", "b c", "x", "y")) == 3
    assert lines.of(("a", "b c", "q")) == 4
    assert lines.of(("a", "b c", "list", 0)) == 5
    assert lines.of(("a", "b c", "absent")) == 2
    assert lines.of(("many", 0, "x")) == 9
    assert lines.of(("many", 1, "x")) == 11
    assert lines.of(("many", 1, "absent")) == 10
    assert lines.of(("many",)) == 8
    assert lines.of(("absent",)) == 1
    assert lines.of(()) == 1


def test_the_first_of_two_spellings_wins() -> None:
    assert LineFinder("[a]\n[b]\n[a]\n").of(("a",)) == 1


def test_places_as_people_write_them() -> None:
    assert dotted(("many", 1, "x")) == "many[2].x"
    assert dotted(("a\nb",)) == "'a\\nb'"


def test_sentences() -> None:
    assert explain("value_error", "", {"error": ValueError("ours")}) == "ours"
    assert explain("missing", "", {}) == "is not there: add it"
    assert explain("odd", "Input should be odd", {}) == "must be odd: change it"


def test_unknown_words() -> None:
    tables = {"node": ["name", "state"], "link": ["clock"]}
    assert explain_unknown("nod", "", tables) == 'is no table: did you mean "node"?'
    assert explain_unknown("clock", "", tables).startswith("is no table")
    assert explain_unknown("clock", "node", tables).endswith("it belongs in [link]")
    assert suggest("zzz", ["a", "b"]) == "use one of a, b"


def test_syntax() -> None:
    assert explain_syntax("Bad thing (at line 7, column 3)", "") == (
        7,
        "bad thing: correct the TOML here",
    )
    assert explain_syntax("Bad (at end of document)", "a\nb\n")[0] == 2
    assert explain_syntax("Bad", "")[0] == 1
