# SPDX-License-Identifier: MIT
"""`mesh queue [retry | drop]`: roughly what waits, and what an operator may do to it.

How much was led back or dropped is not told: counts change every ten minutes only.
"""

import sys
from typing import Final

import click

from mesh.cli.asking import ask
from mesh.cli.options import config_option, load_config
from mesh.cli.plain import plain, plain_json
from mesh.core.control import Ask, Request, What
from mesh.errors import UsageError

_WORDS: Final = {
    "waiting": "waiting, of these",
    "peers": "  ready for peers",
    "remailers": "  ready for remailers here",
    "port_25": "  ready for port 25",
    "unrouted": "  for nobody: its node left, or two claim it",
    "moving": "  being handed over",
    "deferred": "deferred: refused for now, tried again by itself",
    "corrupt": "damaged: set aside, look to the disk",
}


@click.group("queue", invoke_without_command=True)
@config_option
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show roughly what waits; counts change only every ten minutes."""
    if ctx.invoked_subcommand is not None:
        return
    queue = ask(load_config(), Request(Ask.QUEUE))["queue"]
    if as_json:
        click.echo(plain_json(queue))
        return
    for name, words in _WORDS.items():
        if queue[name] or name in ("waiting", "deferred"):
            click.echo(plain(f"{queue[name]:>9}  {words}"))


@command.command("retry")
@config_option
def retry_() -> None:
    """Try now what was refused for a while; it leaves by the normal rules."""
    ask(load_config(), Request(Ask.RETRY))
    click.echo("done: what was deferred is led back to its queue")


@command.command("drop")
@config_option
@click.option("--deferred", is_flag=True, help="What was refused for now.")
@click.option("--unrouted", is_flag=True, help="What no node serves any more.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
def drop_(deferred: bool, unrouted: bool, yes: bool) -> None:
    """Destroy mail that waits: nobody gets it, and nobody is told.

    Name what: --deferred, --unrouted, or both.  On a terminal it asks first; elsewhere
    it needs --yes.
    """
    config = load_config()
    chosen = [what for what, on in zip(What, (deferred, unrouted), strict=True) if on]
    if not chosen:
        raise UsageError("name what to drop: --deferred, --unrouted, or both")
    words = " and ".join(what.value for what in chosen)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("no terminal to ask on: say --yes to destroy that mail")
        question = f"destroy all {words} mail: nobody gets it, nobody is told?"
        if not click.confirm(question, default=False, err=True):
            click.echo("nothing dropped")
            return
    for what in chosen:
        ask(config, Request(Ask.DROP, what=what))
        click.echo(f"done: {what.value} mail is dropped")
