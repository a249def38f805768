"""A small web service: tasks with owners, and what keeps such a service safe."""

from __future__ import annotations

__version__ = "1.0.0"
