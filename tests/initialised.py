"""Data folders for the servers of drills: made by initdb once, then copied."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opskit.postgres.servers import throwaway
from opskit.postgres.servers.confinement import Confinement
from opskit.postgres.servers.programs import Installation

_folders: list[Path] = []
_kept: dict[tuple[str, int], Path] = {}


@contextmanager
def remembered(base: Path) -> Iterator[None]:
    """Keep what initdb makes until the end of the block, for `copied`."""
    with tempfile.TemporaryDirectory(prefix="initialised-", dir=base) as folder:
        _folders.append(Path(folder))
        yield
        _folders.clear()
        _kept.clear()


# initdb takes longer than all else in a small drill; PostgreSQL's own tests copy, too.
# What is copied has its number as well, by which servers are told apart: those that are
# a source, or that are drilled on as they are, must each be made by initdb.
@contextmanager
def copied() -> Iterator[None]:
    """Within the block, start throw-away servers on copies where that is possible."""
    initialise = throwaway._initialise

    def copy(installation: Installation, data: Path, confinement: Confinement) -> None:
        # The programs of a wheel are copied about: their folder does not tell them.
        size = Path(installation.program("initdb")).stat().st_size
        key = (installation.version, size)
        if key in _kept:
            data.rmdir()
            _copy(_kept[key], data)
            if os.geteuid() == 0:
                owner = confinement.account
                numbers = f"{owner.uid}:{owner.gid}"
                subprocess.run(["chown", "-R", numbers, data], check=True)
            return
        initialise(installation, data, confinement)
        if _folders:
            kept = _folders[0] / str(len(_kept))
            # A third of it are zeros, which no later copy writes again.
            _copy(data, kept, *["--sparse=always"] * (sys.platform == "linux"))
            _kept[key] = kept

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throwaway, "_initialise", copy)
        yield


def _copy(one: Path, other: Path, *options: str) -> None:
    subprocess.run(["cp", "-Rp", *options, one, other], check=True)
