"""Results of tasks: one JSON document, whatever the names in it are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import opskit

_EMIT = """
from opskit.tasks.output import emit
emit({"name": b"caf\\xe9 \\xc3\\xbc".decode("utf-8", "surrogateescape")})
"""


def test_a_name_that_is_no_text_is_printed() -> None:
    """A table of a SQL_ASCII database does not keep a result from being printed."""
    finished = subprocess.run(
        [sys.executable, "-c", _EMIT],
        cwd=Path(opskit.__file__).resolve().parents[1],
        capture_output=True,
        check=False,
    )

    assert finished.returncode == 0
    assert json.loads(finished.stdout)["name"].startswith("caf")
