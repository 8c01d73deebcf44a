# SPDX-License-Identifier: MIT
"""A link without a lab, and judging that takes no minutes."""

import numpy as np
import pytest

from mesh.audit import judge
from mesh.audit.attackers import LikelihoodRatio
from mesh.audit.planting import LATE
from mesh.audit.simulated import noisy, simulated
from mesh.audit.trace import Trace
from mesh.audit.view import in_halves
from mesh.core.clock import Clock

RATE = 256.0
CELLS = 6_000


def link(seed: int) -> Trace:
    """A link whose busy blocks are like its idle ones."""
    rng = np.random.default_rng(seed)
    return in_halves(simulated(Clock.RENEWAL, RATE, CELLS, rng, noisy(rng)), rng)


def cheaply(patch: pytest.MonkeyPatch) -> None:
    """Who learns, and many leaks, are test_planting's; here one of either is enough."""
    patch.setattr(judge, "ATTACKERS", (LikelihoodRatio(),))
    patch.setattr(judge, "LEAKS", LATE[-1:])
