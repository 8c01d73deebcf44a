# SPDX-License-Identifier: MIT
"""Key files: whole or not at all, for our eyes only, and a slip is found."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.crypto import signing_key
from mesh.errors import CannotCreateError, ConfigError, IoError, NotPermittedError
from mesh.node.keys import (
    KINDS,
    LINK,
    LINK_BEFORE,
    check_owner,
    create_missing,
    key_path,
    line_of,
    load_identity,
    load_link_keys,
    load_spool_key,
)
from tests.disk import forbidden_folder, full_disk, unprivileged
from tests.harness import FixedEntropy


@pytest.fixture
def state(tmp_path: Path) -> Path:
    assert create_missing(tmp_path, FixedEntropy("state")) == []
    return tmp_path


@pytest.fixture
def _umask() -> Iterator[None]:
    old = os.umask(0o277)
    yield
    os.umask(old)


def test_what_was_made_is_loaded(state: Path) -> None:
    drawn = FixedEntropy("state")
    assert load_identity(state) == signing_key(drawn.key())
    assert load_link_keys(state) == [drawn.key()]
    assert load_spool_key(state) == drawn.key()


@pytest.mark.usefixtures("_umask")
def test_files_are_ours_alone_one_line_each(tmp_path: Path) -> None:
    create_missing(tmp_path, FixedEntropy())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "identity.key",
        "link.key",
        "spool.key",
    ]
    for kind in KINDS:
        path = key_path(tmp_path, kind)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        assert text.startswith(f"mesh {kind} key 1 ")
        assert text.count("\n") == 1


def test_a_key_that_is_there_is_kept(state: Path) -> None:
    before = key_path(state, "identity").read_bytes()
    key_path(state, "link").unlink()
    assert create_missing(state, FixedEntropy("other")) == ["identity", "spool"]
    assert key_path(state, "identity").read_bytes() == before
    assert load_link_keys(state) == [FixedEntropy("other").key()]


def test_a_link_key_before_the_one_in_force(state: Path) -> None:
    (newest,) = load_link_keys(state)
    before = FixedEntropy("before").key()
    path = key_path(state, LINK_BEFORE)
    path.write_bytes(line_of(LINK, before))
    path.chmod(0o600)
    assert load_link_keys(state) == [newest, before]
    path.unlink()
    os.link(key_path(state, LINK), path)  # one key, two names: a change cut off
    assert load_link_keys(state) == [newest]
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(ConfigError, match="link-before"):
        load_link_keys(state)


def test_a_key_that_is_none_is_not_kept(state: Path) -> None:
    key_path(state, "spool").write_text("hello\n")
    with pytest.raises(ConfigError, match=r"spool\.key:1: no spool key"):
        create_missing(state, FixedEntropy())


def test_every_truncation_and_flip_is_found(state: Path) -> None:
    path = key_path(state, "link")
    line = path.read_bytes()
    for length in range(len(line) - 1):  # without the newline it is still whole
        path.write_bytes(line[:length])
        with pytest.raises(ConfigError, match=r"link\.key:1: "):
            load_link_keys(state)
    for index in range(len(line) - 1):
        for bit in range(8):
            wrong = bytearray(line)
            wrong[index] ^= 1 << bit
            path.write_bytes(wrong)
            with pytest.raises(ConfigError, match=r"link\.key:1: ") as caught:
                load_link_keys(state)
            assert line.split()[-1].decode()[:8] not in str(caught.value)


def test_one_kind_in_the_place_of_another(state: Path) -> None:
    key_path(state, "spool").write_bytes(key_path(state, "link").read_bytes())
    with pytest.raises(ConfigError, match="no spool key: restore it"):
        load_spool_key(state)
    line = key_path(state, "link").read_text().replace("link", "spool")
    key_path(state, "spool").write_text(line)
    with pytest.raises(ConfigError, match="damaged or mistyped"):
        load_spool_key(state)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o660, 0o601])
def test_a_key_that_others_may_read(state: Path, mode: int) -> None:
    key_path(state, "identity").chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}: .*chmod 600"):
        load_identity(state)


def test_things_that_are_no_key_files(state: Path, tmp_path: Path) -> None:
    path = key_path(state, "spool")
    path.unlink()
    with pytest.raises(ConfigError, match=r"not there: restore it .*mesh init"):
        load_spool_key(state)
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        load_spool_key(state)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        load_spool_key(state)
    path.rmdir()
    path.symlink_to(path)
    with pytest.raises(ConfigError, match="make it readable"):
        load_spool_key(state)
    path.unlink()
    path.write_bytes(b"mesh spool key 1 " + b"A" * 100_000)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="damaged"):
        load_spool_key(state)


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    with pytest.raises(IoError, match=r"identity\.key: No such file"):
        create_missing(tmp_path / "absent", FixedEntropy())
    (tmp_path / "file").touch()
    with pytest.raises(IoError, match="Not a directory"):
        create_missing(tmp_path / "file", FixedEntropy())


def test_a_full_disk_leaves_no_half_a_key(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(IoError, match="File too large"):
        create_missing(tmp_path, FixedEntropy())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written() -> None:
    refusal = pytest.raises(CannotCreateError, match="Permission denied")
    with forbidden_folder() as folder, refusal:
        create_missing(folder, FixedEntropy())


def test_whose_state_it_is(state: Path) -> None:
    check_owner(state)
    check_owner(state / "absent")
    if os.geteuid():
        pytest.skip("only root can be somebody else")
    with unprivileged(), pytest.raises(NotPermittedError, match="the node's own user"):
        check_owner(Path("/"))


def test_somebody_else_is_first(tmp_path: Path) -> None:
    """Another process makes the same key between our look and our link."""

    class Slow(FixedEntropy):
        def key(self):  # type: ignore[no-untyped-def]
            if not key_path(tmp_path, "identity").exists():
                create_missing(tmp_path, FixedEntropy("first"))
            return super().key()

    create_missing(tmp_path, Slow("second"))
    assert load_identity(tmp_path) == signing_key(FixedEntropy("first").key())
    assert len(list(tmp_path.iterdir())) == 3


def test_no_file_left_to_open_is_no_mistake_in_the_key(tmp_path: Path) -> None:
    """74, not 78: nobody is sent to mend a file that is sound."""
    create_missing(tmp_path, FixedEntropy("x"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(IoError, match="open files"):
            load_identity(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
