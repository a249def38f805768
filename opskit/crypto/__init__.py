"""Encryption to age recipients and ed25519 signatures."""

from __future__ import annotations
