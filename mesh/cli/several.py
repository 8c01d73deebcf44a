# SPDX-License-Identifier: MIT
"""Options that take several values: `--signers a.mesh b.mesh c.mesh`.

Each word up to the next option is a value, as if the option stood before each of them.
A single "-" is a value (standard input), and "--" ends the values.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click


class SeveralCommand(click.Command):
    """A command whose options with `multiple=True` take words until the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spread the words, then let click read them."""
        names = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        return super().parse_args(ctx, list(_spread(args, names)))


def _spread(args: Sequence[str], names: set[str]) -> Iterator[str]:
    """Put the option before each of its values."""
    option, bare = "", False
    for word in args:
        if word.startswith("-") and word != "-":
            _check(option, bare)
            option = word if word in names else ""
            bare = bool(option)
            if not option:
                yield word
        elif option:
            yield from (option, word)
            bare = False
        else:
            yield word
    _check(option, bare)


def _check(option: str, bare: bool) -> None:
    if bare:
        raise click.BadOptionUsage(option, f"Option {option!r} requires an argument.")


def several(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """Declare such an option of a SeveralCommand."""
    return click.option(*names, multiple=True, **attributes)
