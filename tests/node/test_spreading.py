# SPDX-License-Identifier: MIT
"""Whole nodes with a shared directory: what one adopts reaches all, and counts at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mesh.core.clock import period_of
from tests.harness import until
from tests.node.homes import Home, mesh, running

pytestmark = pytest.mark.usefixtures("small")

T = period_of(3)


class Signers:
    """What operators do by hand: alpha and bravo sign, two of two."""

    def __init__(self, folder: Path, *homes: Home) -> None:
        self.folder, self.homes = folder, homes
        self.exports = {home.name: folder / f"{home.name}.export" for home in homes}
        for home in homes:
            self.exports[home.name].write_text(mesh("export", "-c", str(home.toml)))

    def make(self, file: str, *options: str) -> Path:
        """Draft a version at alpha, sign it at both; the file."""
        alpha, bravo = self.homes[:2]
        draft, made = self.folder / f"{file}.draft", self.folder / file
        mesh("directory", "new", "-c", str(alpha.toml), "-o", str(draft), *options)
        signed = []
        for home in (alpha, bravo):
            part = self.folder / f"{file}.{home.name}"
            mesh("directory", "sign", "-c", str(home.toml), "-o", str(part), str(draft))
            signed.append(str(part))
        mesh("directory", "merge", "-c", str(alpha.toml), "-o", str(made), *signed)
        return made

    def first(self) -> Path:
        alpha, bravo = (str(self.exports[home.name]) for home in self.homes[:2])
        members = [str(each) for each in self.exports.values()]
        return self.make(
            "first",
            *("--threshold", "2", "--signers", alpha, bravo, "--members", *members),
        )


def adopt(home: Home, file: Path) -> None:
    mesh("directory", "adopt", "-c", str(home.toml), str(file))


def version(home: Home) -> int:
    return home.node._registry.head[0] & 0xFFFFFFFF


def all_up(*homes: Home) -> Callable[[], bool]:
    return lambda: all(
        one.up(other) for one in homes for other in homes if one is not other
    )


def three(folder: Path) -> tuple[Home, Home, Home]:
    alpha, bravo, charlie = (
        Home(folder, name) for name in ("alpha", "bravo", "charlie")
    )
    return alpha, bravo, charlie


def all_signed(folder: Path, homes: Sequence[Home]) -> Signers:
    """Let all sign a first directory and adopt it."""
    signers = Signers(folder, *homes)
    first = signers.first()
    for home in homes:
        adopt(home, first)
    return signers


async def test_what_one_adopts_reaches_all_and_who_was_taken_off_is_cut_off(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    alpha, bravo, charlie = homes = three(tmp_path)
    signers = all_signed(tmp_path, homes)
    async with running(*homes):
        await until(all_up(*homes), seconds=30)
        # Handshakes say it too.
        heads = {
            home.node._exchange.peers[other.name].ports[0].session.directory_version
            for home in homes
            for other in homes
            if home is not other
        }
        assert heads <= {0, alpha.node._registry.head[0]}
        assert len(heads) == 2
        same = signers.make("second")
        adopt(alpha, same)
        await until(lambda: version(bravo) == version(charlie) == 2, seconds=60)
        assert all_up(*homes)()
        without = signers.make("third", "--without", "charlie")
        taken: dict[str, float] = {}
        watch_adoption(bravo, taken)
        adopt(alpha, without)
        await until(lambda: not bravo.up(charlie), seconds=60)
        assert trio.current_time() - taken["bravo"] <= 2 * T
        await until(lambda: not alpha.up(charlie), seconds=5)
        assert version(bravo) == 3
        await trio.sleep(20)
        assert all_up(alpha, bravo)()
        assert not any(one.up(charlie) or charlie.up(one) for one in (alpha, bravo))


def watch_adoption(home: Home, taken: dict[str, float]) -> None:
    """Note when a node's directory changes."""
    token = trio.lowlevel.current_trio_token()

    def note() -> None:
        taken.setdefault(home.name, trio.current_time())

    home.node._registry.on_change.append(lambda: token.run_sync_soon(note))


async def test_two_of_one_version_are_kept_and_shown_and_neither_adopted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    alpha, bravo, _ = homes = three(tmp_path)
    signers = all_signed(tmp_path, homes)
    one = signers.make("one", "--days", "30")
    for home in (alpha, bravo):  # who signs two of one number does so on purpose
        (home.path / "state" / "directory.signed").unlink()
    other = signers.make("other", "--days", "50")
    adopt(alpha, one)
    adopt(bravo, other)
    async with running(alpha, bravo):
        await until(all_up(alpha, bravo), seconds=30)
        heads = [home.node._registry.head for home in (alpha, bravo)]
        await until(
            lambda: all(home.node._registry.evidence for home in (alpha, bravo)),
            seconds=60,
        )
        await trio.sleep(20)
        assert [home.node._registry.head for home in (alpha, bravo)] == heads
        for home in (alpha, bravo):
            assert len(home.node._registry.evidence) == 2
            assert any("contradict" in line for line in notices(home))


def notices(home: Home) -> list[str]:
    found: Any = home.node._notices()
    return [str(line) for line in found]


async def test_a_descriptor_that_was_renewed_comes_by_another(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Charlie is gone before bravo is there; alpha tells its new address."""
    alpha, bravo, charlie = homes = three(tmp_path)
    all_signed(tmp_path, homes)
    text, new = charlie.toml.read_text(), "127.0.0.1:1"
    old = f'\naddress = "127.0.0.1:{charlie.port}"'
    charlie.toml.write_text(text.replace(old, f'\naddress = "{new}"'))
    async with running(alpha):
        async with running(charlie):
            await until(all_up(alpha, charlie), seconds=30)
            await until(lambda: new in alpha.node._keeping.endpoints("charlie"))
        async with running(bravo):
            await until(all_up(alpha, bravo), seconds=30)
            await until(lambda: new in bravo.node._keeping.endpoints("charlie"))
