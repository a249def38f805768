"""Restores into a throw-away server, compares, and records what was proved."""

from __future__ import annotations
