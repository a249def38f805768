"""Lets small tables be dumped in streams of their own, as large ones are."""

from __future__ import annotations

import pytest

from opskit.backup import stream


def let_small_tables_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dump every table apart that the server knows the size of (so VACUUM first)."""
    monkeypatch.setattr(stream, "_STREAM_BYTES_MIN", 1)
    monkeypatch.setattr(stream, "_BYTES_PER_RELATION", 0)
