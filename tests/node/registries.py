# SPDX-License-Identifier: MIT
"""Some directories of one network, and one of other signers, for tests of the node."""

from mesh.core.directory import Us
from tests.descriptors import signed
from tests.directories import directory, members, public_of

US = Us("alpha", "main", {"mix@alpha.test": 0}, public_of("alpha"))
FIRST = directory()
SECOND = directory(FIRST, members("alpha", "bravo"))
THIRD = directory(SECOND, [signed("alpha", serial=8), *members("bravo", "dave")])
FORK = directory(FIRST, members("alpha", "charlie"))
"""Of SECOND's version."""
DAN = directory(signers=("dan", "eve"), by=("dan", "eve"))
"""Of signers that nobody was told of."""
