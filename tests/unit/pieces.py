"""Cuts bytes into pieces: what reads a stream must not care where they end."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st


def cut(data: st.DataObject, content: bytes) -> list[bytes]:
    """Return the content in pieces that Hypothesis chooses, empty ones among them."""
    places = st.lists(st.integers(0, len(content)), max_size=20).map(sorted)
    ends = [0, *data.draw(places), len(content)]
    return [content[a:b] for a, b in itertools.pairwise(ends)]


def of_size(content: bytes, size: int) -> list[bytes]:
    """Return the content in pieces of one size; the last may be shorter."""
    return [content[at : at + size] for at in range(0, len(content), size)]
