# SPDX-License-Identifier: MIT
"""`mesh directory new | show | sign | merge | verify | adopt | publish`.

    new      drafts the next version, unsigned           any operator
    sign     adds this node's signatures                 each signer, on his machine
    merge    unites what was signed apart, in any order  anybody
    verify   says whether this node would take it        anybody
    adopt    puts it in force here                       every operator, or the watched file
    publish  writes what is in force to a path           whoever serves it to others
    show     tells all about one                         anybody

Directories come out on standard output, or in the file of -o, which appears whole or not
at all; what is for eyes goes to standard error.  A FILE may be "-", standard input.

    exit code   65 it does not hold, has expired, too few signed it, a fork
                66 no such file, or none in force     77 this node is no signer
                67 --without nobody                   73, 74 it cannot be written
"""

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from mesh.cli.directory_files import (
    open_node,
    output_option,
    put,
    read_document,
    say,
    write,
)
from mesh.cli.directory_new import new
from mesh.cli.options import config_option
from mesh.errors import DirectoryError, NoInputError

if TYPE_CHECKING:
    from mesh.core.document import Document


@click.group("directory")
@config_option
def command() -> None:
    """Make, sign, check and adopt the shared directory of nodes.

    The handbook: mesh help start-a-network
    """


command.add_command(new)


@command.command("show")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For a program to read.")
@click.argument("file", required=False)
def show(as_json: bool, file: str | None) -> None:
    """Tell all about the directory in FILE; without one, about the one in force.

    Who is in, who signed and who has yet to, how many days are left, and what is another
    than in the one in force here.
    """
    from mesh.cli.directory_screen import screen
    from mesh.core.document import check_untrusted
    from mesh.core.overview import facts

    now = time.time()
    node = open_node(now, needed=file is None)
    ours = node.registry.trusted.current if node else None
    document = ours if file is None else read_document(file)
    if document is None:
        raise _none()
    try:
        descriptors = check_untrusted(document)
    except DirectoryError as error:
        raise DirectoryError(f"{file}: {error}") from error
    if as_json:
        click.echo(json.dumps(facts(document, descriptors, now), indent=2))
    else:
        click.echo("\n".join(screen(document, ours, now)))


@command.command("sign")
@config_option
@output_option
@click.option(
    "--again", is_flag=True, help="Though another of this version was signed."
)
@click.argument("file")
def sign(output: str | None, again: bool, file: str) -> None:
    """Sign the directory in FILE with this node's identity key.

    Standard error says what would change.  Of one version a signer signs one directory:
    two would part the mesh.
    """
    from mesh.core.adoption import check_draft
    from mesh.core.document import armour
    from mesh.core.overview import changes
    from mesh.core.signing import sign_document

    now = time.time()
    node = open_node(now)
    document = read_document(file)
    held = node.registry.trusted
    with node.archive.lock():
        try:
            check_draft(held, document, now, None if again else node.archive.signed())
            signed = sign_document(document, node.identity)
        except DirectoryError as error:
            raise DirectoryError(f"{file}: {error}") from error
        node.archive.note_signed(*document.head)
    say(f"version {document.roster.version} of {document.roster.network}, signed now:")
    for line in changes(held.document, document):
        say(f"  {line}")
    if document.root != held.root:
        say(f"its root, to be read out by telephone: {document.root.fingerprint}")
    _say_who(signed)
    write(armour(signed), output)


@command.command("merge")
@config_option
@output_option
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def merge(output: str | None, files: tuple[str, ...]) -> None:
    """Unite what several signed of one directory; in any order the same comes out."""
    from mesh.core.document import armour
    from mesh.core.signing import merge as merged

    document = merged([read_document(file) for file in files])
    _say_who(document)
    write(armour(document), output)


@command.command("verify")
@config_option
@click.argument("file")
def verify(file: str) -> None:
    """Say whether this node would take the directory in FILE, and change nothing."""
    from mesh.core.adoption import Offer, judge_untrusted

    now = time.time()
    node = open_node(now)
    document = read_document(file)
    held = node.registry.trusted
    try:
        judge_untrusted(held, Offer(document, typed=True), [], now)
    except DirectoryError as error:
        raise DirectoryError(f"{file}: {error}") from error
    what = "in force here" if document.head == held.head else "it may follow"
    if held.document is None:
        what = f"good if its root is, which nobody adopted: {document.root.fingerprint}"
    click.echo(
        f"version {document.roster.version} of {document.roster.network}: {what}"
    )


@command.command("adopt")
@config_option
@click.option(
    "--root", metavar="FINGERPRINT", help="Of its root, as a signer told you."
)
@click.argument("file")
def adopt(root: str | None, file: str) -> None:
    """Put the directory in FILE in force here; a running node follows within 2 s.

    The first one is believed because you say so: compare its root's fingerprint with a
    signer by telephone.  With --root a directory of other signers takes the place of the
    one in force.
    """
    now = time.time()
    node = open_node(now)
    document = read_document(file)
    first = node.registry.trusted.document is None
    outcome = node.registry.consider_document(
        document, file, now, begin=True, root=root
    )
    if outcome.why:
        raise DirectoryError(outcome.why)
    roster = document.roster
    version = f"version {roster.version} of {roster.network}"
    if not outcome.changed:
        click.echo(f"{version}: in force already")
        return
    click.echo(f"{version}: {outcome.verdict.value}, {len(roster.entries)} nodes")
    if first and root is None:
        say(
            f"its root is {document.root.fingerprint}: compare it with a signer by "
            "telephone, for whoever changed the file on its way would be trusted now"
        )
    for line in [*node.notices(now)]:
        say(line)


@command.command("publish")
@config_option
@click.argument("path")
def publish(path: str) -> None:
    """Write the directory in force to PATH, where a web server may serve it."""
    from mesh.core.document import armour

    node = open_node(time.time())
    current = node.registry.trusted.current
    if current is None:
        raise _none()
    where = put(path, armour(current))
    click.echo(f"version {current.roster.version}: {where}")


def _none() -> NoInputError:
    return NoInputError("no directory is in force: `mesh directory adopt FILE`")


def _say_who(document: "Document") -> None:
    """Say how far the signing has come."""
    from mesh.core.overview import is_complete, missing, signed_by

    root = document.root
    say(
        f"signed by {', '.join(signed_by(document)) or 'nobody'}; "
        f"{root.threshold} of {len(root.keys)} needed"
        + (
            ": enough"
            if is_complete(document)
            else f"; not yet by {', '.join(missing(document))}"
        )
    )
    sys.stderr.flush()
