"""Encryption to age recipients, ed25519 signatures, and sealed digests."""

from __future__ import annotations
