# SPDX-License-Identifier: MIT
"""The counts of a process that has them: this one."""

import os

import pytest

from mesh.audit.counts import lateness
from mesh.core.clock import class_of
from mesh.errors import IoError
from mesh.node.pacer.histogram import Histogram


def test_the_counts_of_a_process_of_one_rate() -> None:
    with pytest.raises(IoError, match="is it a node"):
        lateness(os.getpid(), 64.0)
    histogram, fd = Histogram.create()
    try:
        histogram.count(class_of(64.0), 100e-6)
        histogram.count(class_of(1.0), 100e-6)
        row = lateness(os.getpid(), 64.0)
        assert row == histogram.row(class_of(64.0))
        assert sum(row) == 1
        histogram.count(class_of(64.0), 5e-3)
        assert sum(lateness(os.getpid(), 64.0)) == 2
    finally:
        os.close(fd)
