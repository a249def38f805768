"""How a backup set comes to be."""

from __future__ import annotations
