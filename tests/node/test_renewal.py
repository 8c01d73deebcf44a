# SPDX-License-Identifier: MIT
"""Our own keys and descriptor while the node runs: what changed, and when."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from mesh.config import Config, parse
from mesh.core.crypto import Key, x25519_public
from mesh.core.descriptor import Descriptor, parse_untrusted
from mesh.errors import ConfigError, LocalProtocolError
from mesh.node.keys import create_missing, key_path
from mesh.node.renewal import RETRY_SECONDS, Renewal
from mesh.node.rotation import OVERLAP_RUNNING_SECONDS, OVERLAP_SECONDS, rotate
from mesh.node.statement import VALIDITY_SECONDS, current, sign
from tests.descriptors import DAY, NOW
from tests.disk import full_disk
from tests.harness import FixedEntropy, until

TEXT = '[node]\nname = "alpha"\nstate = "."\n'
HOUR = int(NOW) // 3600 * 3600 + 7200


@pytest.fixture
def config(tmp_path: Path) -> Config:
    create_missing(tmp_path, FixedEntropy("alpha"))
    return parse(TEXT, tmp_path / "node.toml")


@dataclass
class Watch:
    """A wall's clock and a spool's running time that a test may set."""

    now: float = NOW
    running: int = 1_000
    told: list[tuple[int, int, int]] = field(default_factory=list)
    """How many keys, which serial, which hour: at each call of `adopt`."""
    renewal: Renewal = field(init=False)

    @property
    def said(self) -> Descriptor:
        assert self.renewal.said is not None
        return self.renewal.said

    @asynccontextmanager
    async def running_on(self, config: Config) -> AsyncIterator[Renewal]:
        self.renewal = Renewal(config, lambda: self.running, lambda: self.now)

        def adopt() -> None:
            keys = [x25519_public(key) for key in self.renewal.keys]
            assert self.said.link_keys == tuple(keys)
            self.told.append((len(keys), self.said.serial, self.said.leaves))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.renewal.run, adopt)
            await trio.sleep(0.5)
            yield self.renewal
            nursery.cancel_scope.cancel()


@pytest.fixture
def watch() -> Watch:
    return Watch()


def new_key(seed: str = "new") -> Key:
    return FixedEntropy(seed).key()


async def test_a_start_says_what_is_so_and_then_is_quiet(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    async with watch.running_on(config) as renewal:
        first = watch.said
        await trio.sleep(3600)
        assert (watch.told, renewal.notices, renewal.has_left()) == ([], [], False)
    async with watch.running_on(config):
        assert watch.said == first


async def test_a_rotation_is_taken_up_within_two_seconds(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    async with watch.running_on(config) as renewal:
        (old,) = renewal.keys
        serial = watch.said.serial
        rotate(config.state_dir, FixedEntropy("new"), NOW)
        await trio.sleep(1.5)
        assert renewal.keys == [new_key(), old]
        assert renewal.keys[1] is old
        assert watch.told == [(2, serial + 1, 0)]
        assert renewal.notices == [
            "link key: the one before still opens, until 2027-01-29 08:00:00Z"
        ]
        await trio.sleep(3600)
        assert len(watch.told) == 1


async def test_an_overlap_ends_by_both_clocks(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    async with watch.running_on(config) as renewal:
        (old,) = renewal.keys
        rotate(config.state_dir, FixedEntropy("new"), NOW)
        await trio.sleep(2)
        watch.now += OVERLAP_SECONDS
        await trio.sleep(2)
        assert len(renewal.keys) == 2
        watch.running += OVERLAP_RUNNING_SECONDS
        await until(lambda: len(renewal.keys) == 1, seconds=2)
        assert renewal.keys == [new_key()]
        assert [keys for keys, _, _ in watch.told] == [2, 1]
        assert watch.told[1][1] > watch.told[0][1]
        assert not (config.state_dir / "link-before.key").exists()
        assert renewal.notices == []
        with pytest.raises(LocalProtocolError):
            old.unsafe_bytes()


async def test_an_overlap_ends_though_the_node_was_restarted(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    async with watch.running_on(config):
        rotate(config.state_dir, FixedEntropy("new"), NOW)
        await trio.sleep(2)
    watch.running += OVERLAP_RUNNING_SECONDS
    async with watch.running_on(config) as renewal:
        assert len(renewal.keys) == 2
        watch.now += OVERLAP_SECONDS
        await until(lambda: len(renewal.keys) == 1, seconds=2)


async def test_half_of_the_year_over_and_it_signs_itself_anew(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    async with watch.running_on(config):
        first = watch.said
        watch.now = first.not_after - VALIDITY_SECONDS // 2 - 1
        await trio.sleep(10)
        assert watch.told == []
        watch.now += 1
        await trio.sleep(2)
        assert watch.said.serial > first.serial
        assert watch.said.not_after > first.not_after + 180 * DAY
        await trio.sleep(3600)
        assert len(watch.told) == 1


async def test_an_hour_of_leaving_comes(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    async with watch.running_on(config) as renewal:
        sign(config, NOW, leaves=HOUR)
        await trio.sleep(2)
        assert (watch.told[-1][2], renewal.has_left()) == (HOUR, False)
        assert renewal.notices == [
            "this node leaves the mesh at 2027-01-15 10:00:00Z: to stay, "
            "`mesh withdraw --cancel`"
        ]
        watch.now = HOUR
        assert renewal.has_left()
        assert "it takes no mail" in renewal.notices[0]
        sign(config, NOW, leaves=0)
        await trio.sleep(2)
        assert (renewal.has_left(), renewal.notices) == (False, [])
        assert len(watch.told) == 2


async def test_what_an_edited_node_toml_says_waits_for_the_restart(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    path = config.state_dir / "node.toml"
    other = parse(TEXT + "[link]\ncells_per_second = 4\n", path)
    async with watch.running_on(config):
        first = watch.said
        exported = parse_untrusted(current(other, NOW))[0]
        await trio.sleep(60)
        assert (watch.said, watch.told) == (first, [])
        assert parse_untrusted(current(other, NOW))[0] == exported  # no tug of war
    async with watch.running_on(other):
        assert watch.said == exported


async def test_what_goes_wrong_while_it_runs_ends_nothing(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    path = config.state_dir / "descriptor"
    async with watch.running_on(config) as renewal:
        first, keys = watch.said, renewal.keys
        path.write_text("rubbish")
        await trio.sleep(2)
        (line,) = renewal.notices
        assert "descriptor: damaged: remove it" in line
        assert (watch.said, renewal.keys) == (first, keys)
        path.unlink()
        await until(lambda: not renewal.notices, seconds=RETRY_SECONDS + 2)
        link = key_path(config.state_dir, "link")
        aside = link.rename(config.state_dir / "aside")
        await trio.sleep(2)
        assert "link.key: not there" in renewal.notices[0]
        aside.rename(link)
        await until(lambda: not renewal.notices, seconds=RETRY_SECONDS + 2)
        assert renewal.keys == keys


async def test_a_disk_without_room_is_tried_again(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    async with watch.running_on(config) as renewal:
        first = watch.said
        watch.now += VALIDITY_SECONDS
        with full_disk():
            await trio.sleep(2)
            assert "File too large" in renewal.notices[0]
            assert watch.said == first
        looked = trio.current_time()
        await until(lambda: watch.said != first, seconds=RETRY_SECONDS + 2)
        assert trio.current_time() - looked > RETRY_SECONDS / 2
        assert renewal.notices == []


async def test_a_start_without_a_descriptor_is_a_start(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    path = config.state_dir / "descriptor"
    path.write_text("rubbish")
    async with watch.running_on(config) as renewal:
        assert renewal.said is None
        assert not renewal.has_left()
        assert "descriptor: damaged" in renewal.notices[0]
        path.unlink()
        await until(lambda: renewal.said, seconds=RETRY_SECONDS + 2)
        assert len(watch.told) == 1


def test_a_start_without_a_key_is_none(config: Config) -> None:
    key_path(config.state_dir, "link").unlink()
    with pytest.raises(ConfigError, match=r"link\.key: not there"):
        Renewal(config, lambda: 0)


async def test_what_a_crash_left_is_tidied_up_at_the_start(
    config: Config, watch: Watch, autojump_clock: MockClock
) -> None:
    link = key_path(config.state_dir, "link")
    os.link(link, config.state_dir / "link-before.key")
    (config.state_dir / "link-next.key").write_bytes(link.read_bytes())
    async with watch.running_on(config) as renewal:
        await trio.sleep(2)
        assert len(renewal.keys) == 1
        left = sorted(path.name for path in config.state_dir.glob("link*"))
        assert left == ["link.key"]
