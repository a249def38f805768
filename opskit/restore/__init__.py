"""How a backup set comes back."""

from __future__ import annotations
