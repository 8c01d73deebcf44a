# SPDX-License-Identifier: MIT
"""From a mistake's place in a TOML file to its line, and to a sentence.

A place is what the checker says: ("remailer", 1, "deliver").  `LineFinder` notes the
line of each table header and each key; a place that is not in the file (a missing
key, an element of a list) gets the line of what contains it.

Sentences say what is wrong and what to do.  Nothing here reads files or knows what
the keys mean.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

Place: TypeAlias = tuple[str | int, ...]

_KEY_PART = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY = rf"{_KEY_PART}(?:\s*\.\s*{_KEY_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEY})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_KEY})\s*=")
_SYNTAX = re.compile(
    r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)"
)

# What the checker's types of error are called in the language of the file.
_WHAT_IS_WRONG: Final = {
    "string_type": 'must be text: write it in quotes, "..."',
    "bool_type": "must be true or false: write it without quotes",
    "int_type": "must be a whole number: write it without quotes",
    "float_type": "must be a number: write it without quotes",
    "tuple_type": "must be a list: write [...]",
    "dict_type": "must be a table: write { key = value }",
    "model_type": "must be a table: write [name] above its keys",
    "is_instance_of": 'must be text: write it in quotes, "..."',
    "missing": "is not there: add it",
    "too_short": "is empty: write at least one",
}


class LineFinder:
    """Where in a TOML text a place is; line-wise, for texts that parse."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}
        table: Place = ()
        for number, line in enumerate(text.split("\n"), 1):
            if header := _HEADER.match(line):
                table = self._open(header[1], _parts(header[2]))
                self._lines.setdefault(table, number)
            elif assignment := _ASSIGNMENT.match(line):
                self._lines.setdefault(table + _parts(assignment[1]), number)

    def _open(self, brackets: str, name: Place) -> Place:
        if brackets == "[":
            return name
        index = self._counts.get(name, 0)
        self._counts[name] = index + 1
        return (*name, index)

    def of(self, place: Place) -> int:
        """Line of the place or of the nearest thing around it; 1 for the file."""
        while place and place not in self._lines:
            if (*place, 0) in self._lines:  # [[name]] where [name] was meant
                return self._lines[*place, 0]
            place = place[:-1]
        return self._lines.get(place, 1)


def _parts(dotted: str) -> Place:
    return tuple(part.strip("\"' \t") for part in re.findall(_KEY_PART, dotted))


def dotted(place: Place) -> str:
    """The place as an operator writes it: node.name, remailer[2].deliver (from 1)."""
    text = ""
    for part in place:
        shown = part if isinstance(part, int) or part.isprintable() else ascii(part)
        text += f"[{part + 1}]" if isinstance(part, int) else f".{shown}"
    return text.removeprefix(".")


def explain(kind: str, text: str, context: Mapping[str, Any]) -> str:
    """Say what is wrong: our own words where a check of ours refused."""
    if kind == "value_error":
        return str(context["error"])
    return (
        _WHAT_IS_WRONG.get(kind) or f"{text.replace('Input should', 'must')}: change it"
    )


def explain_unknown(key: str, table: str, tables: Mapping[str, Iterable[str]]) -> str:
    """Say what an unknown key may have been meant to be; `table` "" is the file."""
    known = list(tables) if not table else list(tables[table])
    for other, keys in tables.items():
        if table and other != table and key in keys:
            return f"is no key of [{table}]: it belongs in [{other}]"
    where = f"key of [{table}]" if table else "table"
    return f"is no {where}: {suggest(key, known)}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Give the nearest known word, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f'did you mean "{near[0]}"?' if near else f"use one of {', '.join(known)}"


def explain_syntax(message: str, text: str) -> tuple[int, str]:
    """Line and sentence of a TOML syntax error (tomllib names the line in its text)."""
    match = _SYNTAX.fullmatch(message)
    what = match["what"] if match else message
    line = match and match["line"]
    number = int(line) if line else text.rstrip("\n").count("\n") + 1
    return number, f"{what[:1].lower()}{what[1:]}: correct the TOML here"
