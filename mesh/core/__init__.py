# SPDX-License-Identifier: MIT
"""The pure half: octets and `now` in, events and octets out; no world at all."""
