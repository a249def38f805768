"""Record: which probes failed for each defect when all were asked."""

from __future__ import annotations

import json
from pathlib import Path

_PATH = Path(__file__).with_name("matrix.json")

# By the name of the defect, the names of the probes that failed.
Record = dict[str, list[str]]


def read() -> Record:
    """Return what was recorded."""
    found: Record = json.loads(_PATH.read_text()) if _PATH.exists() else {}
    return found


def write(record: Record) -> None:
    """Keep what was recorded, in a form that is easy to compare."""
    _PATH.write_text(json.dumps(record, indent=0, sort_keys=True) + "\n")
