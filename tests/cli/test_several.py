# SPDX-License-Identifier: MIT
"""Options that take words until the next option."""

import click
import pytest

from mesh.cli.several import SeveralCommand, several


@click.command(cls=SeveralCommand)
@click.option("-c", "--config", default="")
@click.option("--flag", is_flag=True)
@several("-a", "--all", "all_")
@several("--both")
@click.argument("rest", nargs=-1)
def command(**found: object) -> dict[str, object]:
    return found


def read(*args: str) -> dict[str, object]:
    found: dict[str, object] = command.main(list(args), standalone_mode=False)
    return found


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {}),
        (["--all", "x"], {"all_": ("x",)}),
        (["--all", "x", "y", "-"], {"all_": ("x", "y", "-")}),
        (["--all", "x", "--all", "y"], {"all_": ("x", "y")}),
        (["--all=x", "y"], {"all_": ("x",), "rest": ("y",)}),
        (
            ["-a", "x", "y", "--both", "z", "w"],
            {"all_": ("x", "y"), "both": ("z", "w")},
        ),
        (
            ["--all", "x", "-c", "f", "y"],
            {"all_": ("x",), "config": "f", "rest": ("y",)},
        ),
        (["-c", "f", "--all", "x"], {"all_": ("x",), "config": "f"}),
        (["y", "--all", "x", "--flag"], {"all_": ("x",), "flag": True, "rest": ("y",)}),
        (["--all", "x", "--", "-y"], {"all_": ("x",), "rest": ("-y",)}),
    ],
)
def test_words_until_the_next_option(
    args: list[str], expected: dict[str, object]
) -> None:
    nothing = {"config": "", "flag": False, "all_": (), "both": (), "rest": ()}
    assert read(*args) == nothing | expected


@pytest.mark.parametrize(
    "args", [["--all"], ["--all", "--flag"], ["--all", "--both", "x"], ["--none"]]
)
def test_an_option_without_a_value_is_a_mistake(args: list[str]) -> None:
    with pytest.raises(click.UsageError):
        read(*args)
