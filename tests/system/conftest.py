# SPDX-License-Identifier: MIT
"""Fixtures of the system tests: a world of nodes, and other people's programs."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.nodes import World, find_tool

PEERS_VARIABLE = "MESH_TEST_PEERS"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Give a folder for nodes; whatever they leave behind fails the test."""
    with World(tmp_path) as made:
        yield made


@pytest.fixture
def pair(world: World) -> World:
    """Two nodes that know each other, alpha and bravo; they do not run yet."""
    world.node("alpha")
    world.node("bravo")
    world.introduce()
    return world


def somebodys(name: str, package: str) -> str:
    """Find somebody else's program: without it skip, or fail where none may skip."""
    found = find_tool(name)
    if found is None:
        missing = f"{name} is not installed (Debian: apt-get install {package})"
        if os.environ.get(PEERS_VARIABLE) == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture
def tool() -> Callable[[str, str], str]:
    """Give what finds somebody else's program."""
    return somebodys
