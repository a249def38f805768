"""Backup programs with a repository: the first backup into a new one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from shlex import quote

from benchmarks.account import unprivileged
from benchmarks.contenders import Contender, Place, shell
from benchmarks.measure import ContenderFailed
from benchmarks.servers import PORT, SUPERUSER, Server
from opskit.postgres.servers.confinement import own

_SETUP_SECONDS_MAX = 120
_NO_PASSWORD = {
    "RESTIC_PASSWORD": "throw-away",
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
}


def repositories(place: Place) -> list[Contender]:
    """Return restic and borg; making the repository is not measured."""
    restic = "restic -r out/repository -q backup"
    return [
        shell(
            place,
            "restic",
            "restic: first backup of `pg_dump -Fc -Z0` by `--stdin`",
            f"{place.archive} | {restic} --stdin --stdin-filename dump",
            setup=_setup("restic -r out/repository -q init"),
            needs=["restic"],
            environment=_NO_PASSWORD,
        ),
        _from_command(place, restic),
        shell(
            place,
            "borg",
            "borg: first backup of `pg_dump -Fc -Z0`, zstd level 3, not encrypted",
            f"{place.archive} | borg create -C zstd,3 out/repository::first -",
            setup=_setup("borg init -e none out/repository"),
            needs=["borg"],
            environment=_NO_PASSWORD,
        ),
    ]


@contextlib.contextmanager
def archiving(server: Server, repository: Path) -> Iterator[Path | None]:
    """Let a server archive to pgBackRest while the block runs; yield its settings.

    None where it is not installed. The server was started with `archive_mode=on`.
    """
    if shutil.which("pgbackrest") is None:
        yield None
        return
    for each in (repository, repository / "lock", repository / "spool"):
        each.mkdir()
        own(each, unprivileged())
    settings = repository / "pgbackrest.conf"
    settings.write_text(_pgbackrest_settings(server, repository))
    settings.chmod(0o644)
    push = f"pgbackrest --config={settings} --stanza=bench archive-push %p"
    server.psql("postgres", f"ALTER SYSTEM SET archive_command = '{push}';")
    server.psql("postgres", "SELECT pg_reload_conf();")
    try:
        yield settings
    finally:
        server.psql("postgres", "ALTER SYSTEM SET archive_command = '/bin/true';")
        server.psql("postgres", "SELECT pg_reload_conf();")


def pgbackrest(place: Place, settings: Path | None) -> Contender:
    """Return a full backup of the whole cluster, files and not rows."""
    what = "pgBackRest: full backup of the cluster's files with its WAL, zstd level 3"
    if settings is None:
        return Contender(name="pgbackrest", what=what, missing="no pgbackrest here")
    base = f"{_as_account()}pgbackrest --config={quote(str(settings))} --stanza=bench"
    repository = settings.parent / "repository"

    def setup(folder: Path) -> None:
        shutil.rmtree(repository, ignore_errors=True)
        repository.mkdir()
        own(repository, unprivileged())
        _setup(f"{base} stanza-create")(folder)

    return shell(
        place,
        "pgbackrest",
        what,
        f"{base} --type=full backup",
        setup=setup,
        fixed=repository,
    )


def _from_command(place: Place, restic: str) -> Contender:
    name = "restic-from-command"
    what = "restic: the same by `--stdin-from-command`"
    if shutil.which("restic") is not None:
        words = subprocess.run(
            ["restic", "backup", "--help"], capture_output=True, text=True, check=False
        ).stdout
        if "--stdin-from-command" not in words:
            return Contender(
                name=name, what=what, missing="this restic is older than 0.17"
            )
    return shell(
        place,
        name,
        what,
        f"{restic} --stdin-filename dump --stdin-from-command -- {place.archive}",
        setup=_setup("restic -r out/repository -q init"),
        needs=["restic"],
        environment=_NO_PASSWORD,
    )


def _pgbackrest_settings(server: Server, repository: Path) -> str:
    return f"""\
[global]
repo1-path={repository}/repository
lock-path={repository}/lock
spool-path={repository}/spool
log-level-file=off
log-level-console=error
start-fast=y
repo1-retention-full=2
compress-type=zst
compress-level=3
process-max={os.cpu_count() or 1}
[bench]
pg1-path={server.data}
pg1-socket-path={server.socket_dir}
pg1-port={PORT}
pg1-user={SUPERUSER}
"""


def _as_account() -> str:
    """Return what to write before a command that the server's user must run."""
    if os.geteuid() != 0:
        return ""
    account = unprivileged()
    return f"setpriv --reuid={account.uid} --regid={account.gid} --clear-groups "


def _setup(script: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        finished = subprocess.run(
            ["bash", "-ec", script],
            cwd=folder,
            env=os.environ | _NO_PASSWORD | {"HOME": str(folder)},
            capture_output=True,
            text=True,
            timeout=_SETUP_SECONDS_MAX,
            check=False,
        )
        if finished.returncode != 0:
            words = finished.stdout + finished.stderr
            raise ContenderFailed(f"{script}: {words}")

    return run
