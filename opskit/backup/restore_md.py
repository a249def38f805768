"""RESTORE.md: how to bring one set back with stock tools alone.

A test extracts the commands of such a file and runs them: keep every one in a `sh`
block, complete, and free of anything that only this project provides.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from opskit.catalog.manifest import StoredObject

FIRST_WITH_TRANSACTION_TIMEOUT = 17


def render(
    *,
    backup_id: str,
    inventory: dict[str, Any],
    client_version: str,
    dump_bytes: int,
    with_passwords: bool,
    snapshot_at: datetime,
    objects: Sequence[StoredObject],
) -> str:
    """Return the guide as Markdown; the commands run in the folder of the set."""
    names = {each.role: each.key.rpartition("/")[2] for each in objects}
    sums = "\n".join(
        f"{each.sha256}  {each.key.rpartition('/')[2]}" for each in objects
    )
    database = str(inventory["database"])
    server_version = str(inventory["server_version"])
    extensions = ", ".join(
        f"{each['name']} {each['version']}" for each in inventory["extensions"]
    )
    passwords = (
        "with their password hashes"
        if with_passwords
        else "**without passwords**: set them anew with `ALTER ROLE ... PASSWORD`"
    )
    return f"""\
# Restore {backup_id} with stock tools

This is the database {_code(database)} of a PostgreSQL {server_version} server as it was
at {snapshot_at:%Y-%m-%dT%H:%M:%SZ}, dumped by pg_dump {client_version}.

You need:

- `zstd`, `sha256sum` and the PostgreSQL client programs of major
  {_major(client_version)} or newer,
- about {_mebibytes(dump_bytes)} MiB of free space for the unpacked dump,
- a server of major {_major(server_version)} or newer with these extensions:
  {extensions or "none"}.

Say where the server is in the usual variables (`PGHOST`, `PGPORT`, `PGUSER`,
`PGPASSFILE`). The role needs the right to create databases and roles. Run the commands
in the folder that holds the files of the set.

## 1. Check that every file is what was stored

```sh
sha256sum --check <<'SUMS'
{sums}
SUMS
```

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

This creates the database {_code(database)}, which must not exist yet.

```sh
{_restore_command(server_version, client_version)}
```

To restore under another name, create a database from `template0` with encoding
{inventory["encoding"]} yourself, and name it in `--dbname` without `--create`.

## 5. Look at it

`manifest.json` lists the rows of every table.

```sh
psql --no-psqlrc --dbname={shlex.quote(_conninfo(database))} --command='\\dt *.*'
```

Delete `dump.pgdump` afterwards: it holds the data.
"""


def _restore_command(server_version: str, client_version: str) -> str:
    if (
        _major(client_version)
        >= FIRST_WITH_TRANSACTION_TIMEOUT
        > _major(server_version)
    ):
        # pg_restore of 17 and newer sets a parameter that this server does not know.
        return (
            "pg_restore --create --file=- dump.pgdump |\n"
            "    sed '1,/^COPY /{/^SET transaction_timeout = 0;$/d;}' |\n"
            "    psql --no-psqlrc --quiet --dbname=postgres --set=ON_ERROR_STOP=1"
        )
    return "pg_restore --create --exit-on-error --jobs=4 --dbname=postgres dump.pgdump"


def _tablespaces(names: dict[str, str]) -> str:
    if "tablespaces" not in names:
        return ""
    return f"""
Tablespaces are in `{names["tablespaces"]}`: make their folders and run it the same way,
or add `--no-tablespaces` to step 4.
"""


def _conninfo(database: str) -> str:
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _mebibytes(size_bytes: int) -> int:
    return max(1, round(size_bytes / 1024**2))


def _major(version: str) -> int:
    return int(version.split(".", maxsplit=1)[0])
