"""What exists: backup sets, read from their manifests; it has no state of its own."""

from __future__ import annotations
