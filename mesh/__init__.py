# SPDX-License-Identifier: MIT
"""mesh: standing, covered links between anonymous remailers."""

__version__ = "0.1.0"
