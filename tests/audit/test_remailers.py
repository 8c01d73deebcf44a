# SPDX-License-Identifier: MIT
"""The origins' own case: a chain of type-I remailers, on bare SMTP and over the mesh."""

import numpy as np
import pytest

from mesh.audit.matching import followed
from mesh.errors import CryptoError
from tests.audit.worlds import bare, covered, messages
from tests.remailers import LAYER, AddressBlocks

PLACES = ("alpha", "bravo", "charlie", "sink")
SEED = 3
SECONDS = 150.0


def test_each_remailer_peels_one_layer_and_leaves_the_body_as_it_is() -> None:
    letters = AddressBlocks(PLACES)
    content = letters.write(PLACES, 5000, "0123456789abcdef")
    assert len(content) == pytest.approx(5000, abs=200)
    bodies, lengths, went = [], [], []
    place = PLACES[1]
    while place:
        taken = letters.take(place, content)
        assert taken.ident == "0123456789abcdef"
        head, _, body = content.partition(b"\r\n\r\n")
        bodies.append(body)
        lengths.append(len(head))
        went.append(place)
        place, content = taken.to, taken.content
    assert went == list(PLACES[1:])
    assert len(set(bodies)) == 1
    assert lengths[0] - lengths[1] == pytest.approx(LAYER * 4 / 3, abs=6)


def test_a_block_opens_for_nobody_else() -> None:
    letters = AddressBlocks(PLACES)
    content = letters.write(PLACES, 2000, "0123456789abcdef")
    assert b"bravo" not in content
    for other in ("charlie", "sink", "alpha"):
        with pytest.raises(CryptoError):
            letters.take(other, content)


def test_on_bare_smtp_every_message_is_followed_and_over_the_mesh_none() -> None:
    rng = np.random.default_rng(SEED)
    letters = AddressBlocks(PLACES)
    at = messages(SECONDS, rng)
    first, second = [], []
    for _ in at:
        content = letters.write(PLACES, int(rng.integers(2000, 30_000)), "i" * 16)
        first.append(len(content))
        second.append(len(letters.take("bravo", content).content))
    shrinks = first[0] - second[0]
    naked = bare(SECONDS, rng, at, np.array(first))
    onward = bare(SECONDS, rng, at, np.array(second))
    naked = type(naked)(naked.first, onward.second, onward.arrived, onward.left)
    assert followed(naked, rng, shrinks)[0] > 0.95
    share, chance = followed(covered(SECONDS, rng), rng, shrinks)
    assert chance < 0.15
    assert abs(share - chance) < 0.08
