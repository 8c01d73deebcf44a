# SPDX-License-Identifier: MIT
"""What verbs share: `-c FILE`, wherever it stands, and the node.toml it names.

The option is on the program, on each verb and on each sub-verb; what stands last
counts.  The value travels in click's context, so no command has a parameter for it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from mesh.errors import NoInputError

if TYPE_CHECKING:
    from mesh.config import Config

F = TypeVar("F", bound=Callable[..., Any])

_PLACE: Final = "mesh.cli.config"


def config_option(command: F) -> F:
    """Add -c / --config to a command."""
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=_remember,
        help="The node.toml; else $MESH_CONFIG, ./node.toml, /etc/mesh/node.toml.",
    )(command)


def _remember(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value == "":  # a script's variable that is not set: no default stands for it
        raise NoInputError("-c: no file has an empty name: name the node.toml")
    if value is not None:
        ctx.meta[_PLACE] = value


def named_config() -> str | None:
    """Give what -c named on this command line, if anything."""
    name: str | None = click.get_current_context().meta.get(_PLACE)
    return name


def load_config() -> "Config":
    """Load the node.toml that this command line means; NoInputError, ConfigError."""
    from mesh.config import find_config, load

    return load(find_config(named_config()))
