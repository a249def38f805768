"""Lets small tables be dumped in streams of their own, as large ones are."""

from __future__ import annotations

import pytest

from opskit.backup import shares


def let_small_tables_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dump every table apart that the server knows the size of (so VACUUM first)."""
    monkeypatch.setattr(shares, "_STREAM_BYTES_MIN", 1)
    monkeypatch.setattr(shares, "_BYTES_PER_RELATION", 0)
