# SPDX-License-Identifier: MIT
"""The shell: Trio, disk and sockets; no parsing and no cryptography of its own."""
