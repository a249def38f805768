"""What a run is asked for, and what a part of it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """How large, how often, how many at once, and where."""

    size_mb: float
    rounds: int
    jobs: int
    sets: int
    memory_sizes_mb: Sequence[float]
    timeout_seconds: float
    work_dir: Path


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a part found: words, pictures by name, and figures for programs."""

    name: str
    text: str
    pictures: dict[str, str] = field(default_factory=dict)
    data: object = None
    failed: bool = False
