"""Releases: migrations, their rehearsal on real data, and the way back."""

from __future__ import annotations
