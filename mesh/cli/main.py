# SPDX-License-Identifier: MIT
"""`mesh VERB`: finds the verb's module, runs it, turns what it raises into an exit code.

    code   when
      0    done
     64    the command line is wrong (also where click says 2)
     74    standard output cannot be written, or another error of the system
     73    something lies where a file of ours belongs
     77    the system does not permit it
     70    a bug: its kind and place, never its text, which may hold an address
    130    interrupted at a question
    else   MeshError.exit_code (errors.py)

Each verb is a module of mesh/cli with a click command named `command`; only the one
that is asked for is imported, so `mesh --help` and completion load click and no more.
Standard error gets one line a mistake, `mesh: what, where, what to do`; octets that a
terminal would obey are escaped.  A standard file that is closed is /dev/null.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Final

import click

import mesh
from mesh.cli.options import config_option
from mesh.cli.plain import plain
from mesh.errors import CannotCreateError, MeshError, NotPermittedError, place_of
from mesh.mistakes import suggest

VERBS: Final = {
    "demo": "Nodes on loopback, a message through them; cleans up after itself.",
    "init": "Make a node: its folder, keys and commented node.toml.",
    "export": "Print this node's signed descriptor, to give to peers.",
    "peers": "List, add and remove the nodes to have links with.",
    "directory": "Make, sign, check and adopt the shared directory of nodes.",
    "run": "Run the node in the foreground.",
    "status": "Say whether the node is well and its links are up.",
    "queue": "Show what waits; try it now, or drop it.",
    "ping": "Ask a peer for a sign of life through the link.",
    "connect": "Speak to a peer by hand, on a stream of the link.",
    "sendmail": "Hand over a message on standard input, as sendmail does.",
    "rotate": "Change this node's link key; its peers need do nothing.",
    "withdraw": "Announce the hour at which this node leaves the mesh.",
    "audit": "Attack a link as its snooper would, and say what came of it.",
    "help": "Read the handbook, or about one verb.",
}
"""In the order in which a new operator meets them."""

EXIT_USAGE: Final = 64
EXIT_BUG: Final = 70
EXIT_IO: Final = 74
EXIT_INTERRUPTED: Final = 130
_IN_THE_WAY: Final = (FileExistsError, IsADirectoryError, NotADirectoryError)


class Verbs(click.Group):
    """The verbs, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the verbs in the handbook's order."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"mesh.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest a verb for one that there is not."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"no verb {args[0]!a}: {suggest(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    epilog="The handbook: mesh help",
    subcommand_metavar="VERB [ARGS]...",
)
@click.version_option(
    mesh.__version__, prog_name="mesh", message="%(prog)s %(version)s"
)
@config_option
def root() -> None:
    """Standing, covered links between anonymous remailers."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises, never exits."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        _open_standard_files()
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return EXIT_IO
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nmesh: interrupted", err=True)
        return EXIT_INTERRUPTED
    except Exception as error:  # the outermost frame: nothing may get past it
        return _report(error)
    return code


def _open_standard_files() -> None:
    """Open 0, 1 and 2 where they are closed: else a file of ours gets such a number.

    Then what is meant for an operator would be written into it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # the interpreter found it closed
            file = open(fd, "w" if fd else "r", closefd=False, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, file)


def _run(args: list[str]) -> int:
    if completion := os.environ.get("_MESH_COMPLETE"):
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, "mesh", "_MESH_COMPLETE", completion)
    try:
        with root.make_context("mesh", args) as ctx:
            result = root.invoke(ctx)
    except click.exceptions.Exit as done:
        result = done.exit_code
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    """Say what went wrong, a line a mistake, and choose the code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    if isinstance(error, click.ClickException):
        _say(_usage(error))
        return EXIT_USAGE
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, MeshError):
            for line in str(leaf).split("\n"):
                _say(line)
        elif isinstance(leaf, OSError) and leaf.strerror:
            name = f"{leaf.filename}: " if leaf.filename else ""
            _say(f"{name}{leaf.strerror}: see to the disk or the permissions")
        else:
            _say(f"a bug: {type(leaf).__name__} at {place_of(leaf)}: please report it")
    return max(map(_code, leaves))


def _usage(error: click.ClickException) -> str:
    """Give click's sentence in one line, and where the right form is written."""
    what = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None or what.endswith("?"):  # it says what to do
        return what
    return f"{what}: see `{context.command_path} --help`"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a task group's group of them."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _code(error: BaseException) -> int:
    if isinstance(error, MeshError):
        return error.exit_code
    if isinstance(error, PermissionError):
        return NotPermittedError.exit_code
    if isinstance(error, _IN_THE_WAY):
        return CannotCreateError.exit_code
    is_system = isinstance(error, OSError) and error.strerror
    return EXIT_IO if is_system else EXIT_BUG


def _say(line: str) -> None:
    with suppress(OSError):
        click.echo(f"mesh: {plain(line)}", err=True)


def _forget_stdout() -> None:
    """Give the interpreter somewhere to flush to, as its documentation advises."""
    if (stdout := sys.stdout) is sys.__stdout__ and stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
