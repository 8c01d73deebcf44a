# SPDX-License-Identifier: MIT
"""The command line's frame: verbs, exit codes, one line a mistake, a light start."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BufferedWriter, TextIOWrapper
from pathlib import Path
from typing import IO

import click
import pytest

from mesh import __version__
from mesh.cli.main import VERBS, main, root
from mesh.errors import ConfigError, IoError, MeshError, UnavailableError

Capture = pytest.CaptureFixture[str]


def test_help_lists_every_verb(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for verb in VERBS:
        assert f"\n  {verb} " in out


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mesh {__version__}\n"


def test_no_verb_is_64_with_the_help_on_stderr(capsys: Capture) -> None:
    assert main([]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert "peers" in err


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["exprt"], "mesh: no verb 'exprt': did you mean \"export\"?"),
        (
            ["zzz"],
            "mesh: no verb 'zzz': use one of demo, init, export, peers, directory, ",
        ),
        (["a\nb"], "mesh: no verb 'a\\nb': use one of"),
        (["--zzz"], "mesh: No such option '--zzz'"),
        (["export", "--zzz"], "mesh: No such option '--zzz'"),
        (["export", "surplus"], "mesh: Got unexpected extra argument"),
        (["peers", "ad", "x"], "mesh: No such command 'ad'. Did you mean 'add'?"),
        (["peers", "add"], "mesh: Missing argument"),
        (["init"], "mesh: Missing argument"),
    ],
)
def test_usage_mistakes_are_64_and_one_line(
    argv: list[str], line: str, capsys: Capture
) -> None:
    assert main(argv) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_the_default_is_the_process_s_own_arguments(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mesh", "--version"])
    assert main() == 0
    assert capsys.readouterr().out


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Make `mesh export` do something else."""

    def put(work: Callable[[], object]) -> None:
        command = click.command("export")(work)
        monkeypatch.setattr("mesh.cli.export.command", command)

    return put


Put = Callable[[Callable[[], object]], None]


def fail(error: BaseException) -> Callable[[], object]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("a:1: x\nb:2: y"), 78, "mesh: a:1: x\nmesh: b:2: y\n"),
        (UnavailableError("the node is down"), 69, "mesh: the node is down\n"),
        (IoError("the disk"), 74, "mesh: the disk\n"),
        (
            OSError(28, "No space left on device", "/x/y"),
            74,
            "mesh: /x/y: No space left on device: see to the disk or the permissions\n",
        ),
        (OSError(28, "No space left"), 74, "mesh: No space left: see to"),
        (ValueError("mix@secret.test"), 70, "mesh: a bug: ValueError at test_main.py:"),
        (OSError("mix@secret.test"), 70, "mesh: a bug: OSError at test_main.py:"),
        (
            ExceptionGroup("", [ConfigError("x"), ExceptionGroup("", [IoError("y")])]),
            78,
            "mesh: x\nmesh: y\n",
        ),
        (
            ExceptionGroup("", [ConfigError("x"), KeyError("y")]),
            78,
            "mesh: x\nmesh: a bug",
        ),
        (KeyboardInterrupt(), 130, "\nmesh: interrupted\n"),
        (click.Abort(), 130, "\nmesh: interrupted\n"),
    ],
)
def test_each_kind_of_error(
    error: BaseException, code: int, text: str, verb: Put, capsys: Capture
) -> None:
    verb(fail(error))
    assert main(["export"]) == code
    err = capsys.readouterr().err
    assert err.startswith(text)
    assert "secret" not in err
    assert "Traceback" not in err


def test_every_error_s_code_gets_out(verb: Put) -> None:
    def leaves(kind: type[MeshError]) -> list[type[MeshError]]:
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]

    for kind in leaves(MeshError):
        error = kind.__new__(kind)
        verb(fail(error))
        assert main(["export"]) == kind.exit_code


def test_a_bug_without_a_trace(capsys: Capture) -> None:
    from mesh.cli.main import _report

    assert _report(ValueError("x")) == 70
    assert "at an unknown place" in capsys.readouterr().err


def test_a_verb_s_own_code(verb: Put) -> None:
    verb(lambda: 75)
    assert main(["export"]) == 75
    verb(lambda: "text")
    assert main(["export"]) == 0


def test_a_closed_pipe_is_quiet(verb: Put, capsys: Capture) -> None:
    verb(fail(BrokenPipeError()))
    assert main(["export"]) == 74
    assert capsys.readouterr().err == ""


def run(stdout: IO[bytes], *argv: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mesh", *argv]
    return subprocess.run(
        command, check=False, text=True, stdout=stdout, stderr=subprocess.PIPE
    )


def test_a_reader_that_leaves() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = run(pipe, "help", "security")
    assert (done.returncode, done.stderr) == (74, "")


def test_a_full_disk_on_stdout() -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(full, "--version")
    assert done.returncode == 74
    assert done.stderr == (
        "mesh: No space left on device: see to the disk or the permissions\n"
    )


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["help"], ["nonsense"], []]
)
def test_the_start_is_light(argv: list[str]) -> None:
    program = (
        "import sys; from mesh.cli.main import main; main(sys.argv[1:]); "
        "heavy = {'trio', 'cryptography', 'pydantic', 'nacl', 'apsw', 'msgpack', 'rich'}; "
        "print('loaded', sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *argv],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == "loaded []"


def test_what_stays_in_the_buffer_of_stdout_counts(
    verb: Put, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        stdout = TextIOWrapper(BufferedWriter(full))
        monkeypatch.setattr(sys, "stdout", stdout)
        verb(lambda: print("hello"))  # noqa: T201  # as a verb might
        assert main(["export"]) == 74
        with suppress(OSError):
            stdout.detach()
    assert "No space left on device" in capsys.readouterr().err


def test_completion_knows_the_verbs(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("_MESH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "mesh ex")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert main([]) == 0
    assert capsys.readouterr().out == "plain,export\n"


def test_every_verb_has_its_module_and_its_line() -> None:
    with click.Context(root) as ctx:
        for verb in root.list_commands(ctx):
            command = root.get_command(ctx, verb)
            assert command is not None
            assert command.get_short_help_str()
