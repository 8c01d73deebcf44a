# SPDX-License-Identifier: MIT
"""Command lines of a sendmail: those that programs really use, and wrong ones."""

import pytest

from mesh.cli.flags import Flags, parse_flags
from mesh.errors import NoInputError, UsageError

ADDRESS = "a@b.test"


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        # Mixmaster; YAMN; Mixminion; Echolot; cron; Postfix's pipe(8) to us
        ("-t", Flags(from_header=True)),
        ("-i -t", Flags(from_header=True, dot_ends=False)),
        (f"-f {ADDRESS} -t", Flags(from_header=True, sender=ADDRESS)),
        (
            "-FCronDaemon -i -odi -oem -oi -t -f root",
            Flags(from_header=True, dot_ends=False, sender="root"),
        ),
        (
            f"-i -f me@x.test -- {ADDRESS} -odd@b.test",
            Flags(
                dot_ends=False,
                sender="me@x.test",
                recipients=(ADDRESS, "-odd@b.test"),
            ),
        ),
        # in one word, values joined and apart, behind recipients
        ("-ti", Flags(from_header=True, dot_ends=False)),
        (f"-tif{ADDRESS}", Flags(from_header=True, dot_ends=False, sender=ADDRESS)),
        (f"{ADDRESS} -r {ADDRESS}", Flags(sender=ADDRESS, recipients=(ADDRESS,))),
        (f"-o i {ADDRESS}", Flags(dot_ends=False, recipients=(ADDRESS,))),
        ("- x", Flags(recipients=("-", "x"))),
        # what means nothing
        (
            "-B 8BITMIME -N never -R hdrs -V id -O k=v -o7 -Am -Ac -q -v -G -U -h 3 "
            "-L tag -X log -C cf -F Name -p smtp -d0.1 -e m -em -A c -n -m -s -x -I -bm "
            f"{ADDRESS}",
            Flags(runs_queue=True, recipients=(ADDRESS,)),
        ),
        ("-q30m", Flags(runs_queue=True)),
        ("-bs", Flags(mode="s")),
        ("-b p", Flags(mode="p")),
        ("-bi", Flags(mode="i")),
        ("--help", Flags(mode="h")),
        ("-c /x", Flags(config="/x")),
        ("-c/x -t", Flags(config="/x", from_header=True)),
        ("--config /x", Flags(config="/x")),
        ("--config=/x", Flags(config="/x")),
        ("", Flags()),
    ],
)
def test_lines(line: str, flags: Flags) -> None:
    assert parse_flags(line.split()) == flags


def test_an_empty_sender_is_nobody() -> None:
    assert parse_flags(["-f", "", "x"]) == Flags(recipients=("x",))


def test_the_names_of_a_sendmail() -> None:
    assert parse_flags(["-v"], "mailq") == Flags(mode="p")
    assert parse_flags([], "newaliases") == Flags(mode="i")


@pytest.mark.parametrize("words", [["-c", ""], ["--config", ""], ["--config="]])
def test_an_empty_config_is_no_default(words: list[str]) -> None:
    with pytest.raises(NoInputError, match="no file has an empty name"):
        parse_flags(words)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("-f", "-f needs a value"),
        ("-tc", "-c needs a value"),
        ("--config", "--config needs a value"),
        ("--frob", "no option '--frob'"),
        ("-bv x", "mode -bv"),
        ("-bt", "mode -bt"),
        ("-bd", "mode -bd"),
        ("-b \x1b", "mode -b.x1b"),
        ("-b ms", "mode -bms"),
    ],
)
def test_mistakes(line: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse_flags(line.split(" "))
