# SPDX-License-Identifier: MIT
"""`mesh sendmail`: what `mesh-sendmail` is, for whoever has only `mesh`.

The words behind the verb go to handin.py as they are: they are a sendmail's and not
ours.  This way costs click's 60 ms more.
"""

import click

from mesh.cli.options import named_config


class Verbatim(click.Command):
    """A command that reads no options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep all words, also `--`."""
        ctx.params = {"words": tuple(args)}
        return []


@click.command("sendmail", cls=Verbatim)
def command(words: tuple[str, ...]) -> int:
    """Hand over a message on standard input, as sendmail does; see --help."""
    from mesh.cli.handin import main

    config = named_config()
    return main([*(["-c", config] if config else []), *words])
