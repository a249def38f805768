"""Restores: the whole drill, and what a user would type instead."""

from __future__ import annotations

import subprocess
from pathlib import Path
from shlex import quote

from benchmarks.contenders import Contender, Place, shell
from benchmarks.measure import run
from benchmarks.servers import Server
from benchmarks.user import User, make_user

_COPY = "copy"
_BACKUP_SECONDS_MAX = 7200


def restores(place: Place, target: Server) -> list[Contender]:
    """Take one backup, and return what restores it; `target` is an ordinary server.

    The drill's own server is set up and ended within its time. The server of the
    others stands already, and that is not measured; nor is the unpacking of the
    archive for the first of them.
    """
    user = make_user(
        place.folder / "drilled",
        url=place.url,
        installation=place.source.installation,
        jobs=place.jobs,
    )
    _take_backup(user)
    archive, packed = place.folder / "archive", place.folder / "archive.zst"
    # Not the set's own dump, which may be one of several; piped like that one.
    pack = f"{place.archive} | zstd -q -3 -T0 -o {quote(str(packed))}"
    subprocess.run(["bash", "-o", "pipefail", "-c", pack], check=True)
    subprocess.run(["zstd", "-q", "-d", packed, "-o", archive], check=True)
    drill = Contender(
        name="opskit-drill",
        what="`opskit restore-drill --mutants 0`: fetch, server, restore, comparison",
        command=user.command("restore-drill", "--mutants", "0", "--json"),
        folder=user.folder,
        environment=user.environment,
    )
    return [
        drill,
        _pg_restore(
            place,
            target,
            "pg_restore",
            f"`createdb`, `pg_restore -j{place.jobs}` into a server with default "
            "settings that runs already, out of an archive that is unpacked already",
            archive,
        ),
        _pg_restore(
            place,
            target,
            "unzstd-pg_restore",
            "the same, with the unpacking",
            Path("out/archive"),
            before=f"zstd -q -d {quote(str(packed))} -o out/archive; ",
        ),
    ]


def _pg_restore(
    place: Place,
    target: Server,
    name: str,
    what: str,
    archive: Path,
    *,
    before: str = "",
) -> Contender:
    programs = target.installation
    create = quote(programs.program("createdb"))
    restore = quote(programs.program("pg_restore"))
    maintenance, copy = quote(target.url("postgres")), quote(target.url(_COPY))

    def drop(_folder: Path) -> None:
        target.psql("postgres", f"DROP DATABASE IF EXISTS {_COPY};")
        target.psql("postgres", "CHECKPOINT;")

    return shell(
        place,
        name,
        what,
        f"{before}{create} --maintenance-db={maintenance} -T template0 {_COPY}; "
        f"{restore} -j {place.jobs} -d {copy} {quote(str(archive))}",
        setup=drop,
        own_servers=[target.pid],
    )


def _take_backup(user: User) -> None:
    """Take a backup.

    Raises:
        ContenderFailed: it failed.
    """
    run(
        user.command("backup", "--json"),
        folder=user.folder,
        environment=user.environment,
        timeout_seconds=_BACKUP_SECONDS_MAX,
    )
