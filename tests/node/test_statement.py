# SPDX-License-Identifier: MIT
"""Our own descriptor: new when something changed, the same text otherwise."""

import fcntl
import stat
import threading
from pathlib import Path

import pytest

from mesh.config import parse
from mesh.core.clock import Clock
from mesh.core.crypto import signing_public, x25519_public
from mesh.core.descriptor import Descriptor, parse_untrusted
from mesh.errors import CannotCreateError, ConfigError, DescriptorError, IoError
from mesh.node.keys import create_missing, key_path, load_identity, load_link_keys
from mesh.node.rotation import end, rotate
from mesh.node.statement import (
    DAY_SECONDS,
    VALIDITY_SECONDS,
    current,
    is_fresh,
    last_said,
    renewed,
    sign,
)
from tests.descriptors import NOW
from tests.disk import full_disk
from tests.harness import FixedEntropy

TEXT = """\
[node]
name = "alpha"
address = "Alpha.Test:4000"
state = "."
[[remailer]]
address = ["mix@alpha.test", "Else@b.test"]
deliver = "maildir:M"
[link]
clock = "greedy"
cells_per_second = 0.5
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_missing(tmp_path, FixedEntropy("alpha"))
    return tmp_path


def export(folder: Path, text: str = TEXT, now: float = NOW) -> Descriptor:
    (descriptor,) = parse_untrusted(current(parse(text, folder / "node.toml"), now))
    return descriptor


def test_it_says_what_node_toml_says(folder: Path) -> None:
    said = export(folder)
    day = int(NOW) // DAY_SECONDS * DAY_SECONDS
    assert said == Descriptor(
        name="alpha",
        network="main",
        identity=signing_public(load_identity(folder)),
        link_keys=tuple(x25519_public(key) for key in load_link_keys(folder)),
        addresses=("alpha.test:4000",),
        serves=("else@b.test", "mix@alpha.test"),
        clock=Clock.GREEDY,
        klass=2,
        versions=(1,),
        insecure=("greedy clock",),
        serial=2027011500,
        not_before=day - DAY_SECONDS,
        not_after=day + VALIDITY_SECONDS,
    )
    assert said.valid_at(NOW)


def test_a_node_that_dials_only_has_no_address(folder: Path) -> None:
    said = export(folder, '[node]\nname = "alpha"\nstate = "."\n')
    assert (said.addresses, said.serves, said.insecure) == ((), (), ())


def test_the_same_facts_give_the_same_text(folder: Path) -> None:
    config = parse(TEXT, folder / "node.toml")
    text = current(config, NOW)
    assert current(config, NOW + 100 * DAY_SECONDS) == text
    assert (folder / "descriptor").read_text() == text
    assert stat.S_IMODE((folder / "descriptor").stat().st_mode) == 0o600


def test_the_serial_grows_with_each_change_also_back(folder: Path) -> None:
    other = TEXT.replace("0.5", "4")
    serials = [export(folder, text).serial for text in (TEXT, other, TEXT, TEXT, other)]
    first = serials[0]
    assert serials == [first, first + 1, first + 2, first + 2, first + 3]


def test_half_of_the_validity_over_makes_a_new_one(folder: Path) -> None:
    first = export(folder)
    later = NOW + VALIDITY_SECONDS / 2 + DAY_SECONDS
    second = export(folder, now=later)
    assert second.serial > first.serial
    assert second.valid_at(later + VALIDITY_SECONDS / 2)


def test_a_clock_that_was_wrong(folder: Path) -> None:
    """Far in the future, then right: the serial still grows, the dates are right."""
    ahead = export(folder, now=NOW + 3000 * DAY_SECONDS)
    right = export(folder)
    assert right.serial == ahead.serial + 1
    assert right.valid_at(NOW)


def again(
    folder: Path, ours: Descriptor | None, text: str = TEXT, now: float = NOW
) -> Descriptor:
    """What a node that was started with this text says now."""
    return renewed(parse(text, folder / "node.toml"), now, ours)


def test_a_running_node_says_what_it_does(folder: Path) -> None:
    """Whatever node.toml has been made to say meanwhile, and `mesh export` said."""
    ours = again(folder, None)
    other = TEXT.replace("0.5", "4")
    exported = export(folder, other)
    assert exported.serial == ours.serial + 1
    assert again(folder, ours) == ours
    assert export(folder, other) == exported  # and nothing was written
    started = again(folder, None, other)
    assert started == exported


def test_a_running_node_renews_itself_past_what_was_exported(folder: Path) -> None:
    ours = again(folder, None)
    exported = export(folder, TEXT.replace("0.5", "4"))
    later = NOW + VALIDITY_SECONDS / 2 + DAY_SECONDS
    anew = again(folder, ours, now=later)
    assert anew.serial > exported.serial
    assert (anew.klass, anew.valid_at(later + VALIDITY_SECONDS / 2)) == (2, True)
    assert not is_fresh(ours, later)
    assert is_fresh(anew, later)
    assert not is_fresh(anew, anew.not_before - 1)


def test_a_running_node_says_which_keys_are_in_force(folder: Path) -> None:
    ours = again(folder, None)
    rotate(folder, FixedEntropy("new"), NOW)
    both = again(folder, ours)
    assert both.link_keys == (
        x25519_public(FixedEntropy("new").key()), *ours.link_keys
    )  # fmt: skip
    assert both.serial == ours.serial + 1
    end(folder)
    assert again(folder, both).link_keys == both.link_keys[:1]


HOUR = int(NOW) // 3600 * 3600 + 7200


def test_the_hour_of_leaving_stays_said(folder: Path) -> None:
    config = parse(TEXT, folder / "node.toml")
    ours = again(folder, None)
    assert ours.leaves == 0
    leaving = sign(config, NOW, leaves=HOUR)
    assert (leaving.leaves, leaving.serial) == (HOUR, ours.serial + 1)
    assert sign(config, NOW, leaves=HOUR) == leaving
    assert again(folder, ours) == leaving
    assert export(folder, TEXT.replace("0.5", "4")).leaves == HOUR
    later = NOW + VALIDITY_SECONDS
    assert again(folder, leaving, now=later).leaves == HOUR
    assert sign(config, later, leaves=0).leaves == 0
    assert last_said(config) == again(folder, leaving, now=later)


def test_what_was_said_last(folder: Path) -> None:
    config = parse(TEXT, folder / "node.toml")
    assert last_said(config) is None
    said = export(folder)
    assert last_said(config) == said


def test_a_restored_node_is_not_older_than_itself(folder: Path) -> None:
    first = export(folder)
    (folder / "descriptor").unlink()
    again = export(folder, now=NOW + DAY_SECONDS)
    assert again.serial > first.serial


def test_another_identity_starts_afresh(folder: Path) -> None:
    export(folder, now=NOW + 3000 * DAY_SECONDS)
    key_path(folder, "identity").unlink()
    create_missing(folder, FixedEntropy("another"))
    assert export(folder).serial == 2027011500


def test_a_damaged_last_one_is_named(folder: Path) -> None:
    (folder / "descriptor").write_bytes(b"\xff rubbish")
    with pytest.raises(DescriptorError, match="descriptor: damaged: remove it, then"):
        export(folder)


def test_files_that_are_not_as_they_must_be(folder: Path) -> None:
    (folder / "descriptor").mkdir()
    with pytest.raises(IoError, match="Is a directory"):
        export(folder)
    (folder / "descriptor.lock").unlink()
    (folder / "descriptor.lock").symlink_to(folder / "elsewhere")
    with pytest.raises(CannotCreateError, match="Too many levels"):
        export(folder)
    (folder / "descriptor").rmdir()
    (folder / "descriptor.lock").unlink()
    key_path(folder, "link").unlink()
    with pytest.raises(ConfigError, match=r"link\.key: not there"):
        export(folder)


def test_a_full_disk_keeps_the_last_one(folder: Path) -> None:
    text = current(parse(TEXT, folder / "node.toml"), NOW)
    with full_disk(), pytest.raises(IoError, match="File too large"):
        export(folder, TEXT.replace("0.5", "4"))
    assert (folder / "descriptor").read_text() == text


def test_one_waits_for_the_one_before_it(folder: Path) -> None:
    """While another holds the lock nothing is read: its statement is seen after it."""
    ahead = current(
        parse(TEXT.replace("0.5", "4"), folder / "node.toml"), NOW + 99 * DAY_SECONDS
    )
    (folder / "descriptor").unlink()
    found: list[Descriptor] = []
    thread = threading.Thread(target=lambda: found.append(export(folder)))
    with (folder / "descriptor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        (folder / "descriptor").write_text(ahead)
    thread.join()
    assert found[0].serial == parse_untrusted(ahead)[0].serial + 1


def test_several_at_once_agree(folder: Path) -> None:
    found: list[Descriptor] = []
    threads = [
        threading.Thread(target=lambda: found.append(export(folder))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
