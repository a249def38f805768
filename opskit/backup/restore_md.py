"""RESTORE.md: how to bring one set back with stock tools alone.

A test extracts the commands of such a file and runs them: keep every one in a `sh`
block, complete, and free of anything that only this project provides.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from opskit.backup.guide_steps import authenticity, checksums, decryption
from opskit.catalog.manifest import StoredObject
from opskit.crypto import age
from opskit.postgres.programs import sets_unknown_parameter

_COUNT_TABLES = (
    "SELECT count(*) AS tables FROM pg_tables "
    "WHERE schemaname !~ '^(pg_|information_schema)'"
)
_ALWAYS_THERE = ("postgres", "template1")
_JOBS = 4


def render(
    *,
    backup_id: str,
    inventory: dict[str, Any],
    client_version: str,
    dump_bytes: int,
    with_passwords: bool,
    snapshot_at: datetime,
    objects: Sequence[StoredObject],
    in_parallel: bool,
    encrypted: bool = False,
    signed: bool = False,
) -> str:
    """Return the guide as Markdown; the commands run in the folder of the set."""
    names = {
        each.role: each.key.rpartition("/")[2].removesuffix(age.SUFFIX)
        for each in objects
    }
    stored = [each.key.rpartition("/")[2] for each in objects]
    sums = checksums(objects)
    database = str(inventory["database"])
    passwords = (
        "with their password hashes"
        if with_passwords
        else "**without passwords**: set them anew with `ALTER ROLE ... PASSWORD`"
    )
    others = " So do the other decrypted files." if encrypted else ""
    return f"""\
# Restore {backup_id} with stock tools

{_needs(inventory, client_version, dump_bytes, snapshot_at, encrypted=encrypted)}

## 1. Check that every file is what was stored
{authenticity(backup_id) if signed else ""}
```sh
sha256sum --check <<'SUMS'
{sums}
SUMS
```
{decryption(stored) if encrypted else ""}
## 2. Create the roles

They come {passwords}. For a role that is there already, "already exists" is no fault;
its attributes become those of the backup.

```sh
psql --no-psqlrc --dbname=postgres --file={names["roles"]}
```
{_tablespaces(names)}
## 3. Unpack the dump

```sh
zstd --decompress --force {names["dump"]} -o dump.pgdump
```

## 4. Restore

{_restore_steps(inventory, client_version, jobs=_JOBS if in_parallel else 1)}

## 5. Look at it

`manifest.json` lists the rows of every table.

```sh
psql --no-psqlrc --dbname={_shown_database(database)} \\
    --command="{_COUNT_TABLES}"
```

Delete `dump.pgdump` afterwards: it holds the data.{others}
"""


def _needs(
    inventory: dict[str, Any],
    client_version: str,
    dump_bytes: int,
    snapshot_at: datetime,
    *,
    encrypted: bool,
) -> str:
    age_needed = "`age` with the private key, " if encrypted else ""
    database = str(inventory["database"])
    server_version = str(inventory["server_version"])
    extensions = ", ".join(
        f"{each['name']} {each['version']}" for each in inventory["extensions"]
    )
    return f"""\
This is the database {_code(database)} of a PostgreSQL {server_version} server as it was
at {snapshot_at:%Y-%m-%dT%H:%M:%SZ}, dumped by pg_dump {client_version}.

You need:

- {age_needed}`zstd`, `sha256sum` and the PostgreSQL client programs of major
  {_major(client_version)} or newer,
- about {_mebibytes(dump_bytes)} MiB of free space for the unpacked dump,
- a server of major {_major(server_version)} or newer with these extensions:
  {extensions or "none"}.

Say where the server is in the usual variables (`PGHOST`, `PGPORT`, `PGUSER`,
`PGPASSFILE`). The role needs the right to create databases and roles. Run the commands
in the folder that holds the files of the set."""


def _restore_steps(inventory: dict[str, Any], client_version: str, *, jobs: int) -> str:
    database = str(inventory["database"])
    options = _session_options(inventory)
    if database in _ALWAYS_THERE:
        # It cannot be created again, and is seldom empty: restore beside it.
        return f"""\
Every server has a database {_code(database)}, so this restores into a new one,
`{database}_restored`.

```sh
{_createdb(inventory, f"{database}_restored")}
{options}
{_restore_command(inventory, client_version, f"--dbname={database}_restored", jobs)}
```"""
    return f"""\
This creates the database {_code(database)}, which must not exist yet.

```sh
{options}
{_restore_command(inventory, client_version, "--dbname=postgres --create", jobs)}
```

To restore under another name, create that database yourself and name it in `--dbname`
without `--create`:

    {_createdb(inventory, "NAME")}"""


def _createdb(inventory: dict[str, Any], name: str) -> str:
    locale = inventory["locale"]
    options = [
        "--template=template0",
        f"--encoding={inventory['encoding']}",
        f"--lc-collate={locale['collate']}",
        f"--lc-ctype={locale['ctype']}",
    ]
    if locale["provider"] != "libc":
        options.append(f"--locale-provider={locale['provider']}")
        options.append(f"--{locale['provider']}-locale={locale['locale']}")
    return shlex.join(["createdb", *options, name])


def _session_options(inventory: dict[str, Any]) -> str:
    """Return the line that keeps the database's own settings from the restore."""
    settings = {"default_transaction_read_only": "off", "array_nulls": "on"}
    if inventory["has_money"]:
        # pg_dump writes money as the source's locale does, and does not say which.
        settings["lc_monetary"] = inventory["settings"]["lc_monetary"]
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return f"export PGOPTIONS={shlex.quote(options)}"


def _restore_command(
    inventory: dict[str, Any], client_version: str, target: str, jobs: int
) -> str:
    if sets_unknown_parameter(
        client_major=_major(client_version),
        server_major=_major(str(inventory["server_version"])),
    ):
        database, _, create = target.partition(" ")
        return (
            f"pg_restore {create} --file=- dump.pgdump |\n".replace("  ", " ")
            + "    sed '1,/^COPY /{/^SET idle_in_transaction_session_timeout = 0;$/{n;"
            + "/^SET transaction_timeout = 0;$/d;};}' |\n"
            + f"    psql --no-psqlrc --quiet {database} --set=ON_ERROR_STOP=1"
        )
    return f"pg_restore --exit-on-error --jobs={jobs} {target} dump.pgdump"


def _tablespaces(names: dict[str, str]) -> str:
    if "tablespaces" not in names:
        return ""
    return f"""
Tablespaces are in `{names["tablespaces"]}`: make their folders and run it the same way,
or add `--no-tablespaces` to step 4.
"""


def _shown_database(name: str) -> str:
    if name in _ALWAYS_THERE:
        return f"{name}_restored"
    if "=" in name or "://" in name:
        # psql takes such a name for a connection string.
        escaped = name.replace("\\", "\\\\").replace("'", "\\'")
        return shlex.quote(f"dbname='{escaped}'")
    return shlex.quote(name)


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _mebibytes(size_bytes: int) -> int:
    return max(1, round(size_bytes / 1024**2))


def _major(version: str) -> int:
    return int(version.split(".", maxsplit=1)[0])
