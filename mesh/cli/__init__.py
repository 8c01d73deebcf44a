# SPDX-License-Identifier: MIT
"""The commands: one small module a verb, each imported only when it is called."""
