# SPDX-License-Identifier: MIT
"""Hypothesis without chance and without deadlines: a red run is red again."""

from hypothesis import settings

settings.register_profile("mesh", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("mesh")
