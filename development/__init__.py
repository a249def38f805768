"""What this checkout has and an installed package has not: see CONTRIBUTING.md."""

from __future__ import annotations
