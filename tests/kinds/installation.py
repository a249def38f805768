"""A copy of an installation that has the extension with configuration tables."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from opskit.postgres.servers import programs
from opskit.postgres.servers.programs import Installation

EXTENSION = "kinds_config"
_FILES = Path(__file__).parent / "extension"


def with_extension(installation: Installation, folder: Path) -> Installation:
    """Copy an installation into a folder that all may enter, and add the extension.

    Programs find their files relative to themselves, so the layout is kept.
    """
    copied = _copy(installation, folder)
    for path in _FILES.iterdir():
        shutil.copy(path, _share(copied) / "extension")
    return replace(installation, bin_dir=copied)


def _copy(installation: Installation, folder: Path) -> Path:
    if installation.embedded:
        return programs.copy_programs(installation.bin_dir, folder)
    sources = {
        installation.bin_dir.parent,
        _share(installation.bin_dir),
        _told(installation.bin_dir, "--pkglibdir"),
    }
    for source in sources:
        target = folder / source.relative_to("/")
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    return folder / installation.bin_dir.relative_to("/")


def _share(bin_dir: Path) -> Path:
    if (bin_dir / "pg_config").exists():
        return _told(bin_dir, "--sharedir")
    return bin_dir.parent / "share" / "postgresql"


def _told(bin_dir: Path, option: str) -> Path:
    finished = subprocess.run(
        [bin_dir / "pg_config", option], capture_output=True, text=True, check=True
    )
    return Path(finished.stdout.strip())
