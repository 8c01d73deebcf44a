# SPDX-License-Identifier: MIT
"""`mesh help [TOPIC]`: the handbook's pages, and each verb's own help.

A page is mesh/help/TOPIC.md; its first line, "# Title", is what the list shows.
"""

from pathlib import Path
from typing import Final

import click

import mesh
from mesh.errors import UsageError
from mesh.mistakes import suggest

PAGES: Final = Path(mesh.__file__).parent / "help"

ORDER: Final = (
    "quickstart",
    "start-a-network",
    "operating",
    "performance",
    "systemd",
    "troubleshooting",
    "security",
    "audit",
    "protocol",
)
"""As a reader should meet them; other pages follow by name."""


@click.command("help")
@click.argument("topic", required=False)
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> None:
    """Read a page of the handbook, or about one verb; alone: list the pages."""
    pages = topics()
    group = ctx.find_root().command
    if topic is None:
        for name, path in pages.items():
            click.echo(f"{name:<16} {_title(path)}")
        click.echo(
            "\nmesh help TOPIC shows one; mesh help VERB or mesh VERB --help a verb"
        )
    elif topic in pages:
        click.echo_via_pager(pages[topic].read_text(encoding="utf-8").rstrip("\n"))
    elif isinstance(group, click.Group) and (verb := group.get_command(ctx, topic)):
        with click.Context(verb, parent=ctx.parent, info_name=topic) as inner:
            click.echo(verb.get_help(inner))
    else:
        raise UsageError(f"no page {topic!a}: {suggest(topic, pages)}")


def topics() -> dict[str, Path]:
    """Each page by its topic, in reading order."""
    found = {path.stem: path for path in sorted(PAGES.glob("*.md"))}
    return {name: found.pop(name) for name in ORDER if name in found} | found


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as page:
        return page.readline().removeprefix("# ").rstrip()
