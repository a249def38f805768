"""RESTORE.md: how to bring one set back with stock tools alone.

A test extracts the commands of such a file and runs them: keep every one in a `sh`
block, complete, and free of anything that only this project provides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from opskit.backup.guide_steps import authenticity, checksums, decryption
from opskit.backup.restore_steps import (
    code,
    commands,
    commands_in_parts,
    major_of,
    shown_database,
)
from opskit.catalog.manifest import StoredObject
from opskit.crypto import age

_COUNT_TABLES = (
    "SELECT count(*) AS tables FROM pg_tables "
    "WHERE schemaname !~ '^(pg_|information_schema)'"
)
_WITH_PASSWORDS = "with their password hashes"
_WITHOUT_PASSWORDS = (
    "**without passwords**: set them anew with `ALTER ROLE ... PASSWORD`"
)


def render(
    *,
    backup_id: str,
    inventory: dict[str, Any],
    client_version: str,
    dump_bytes: int,
    roles: Sequence[str],
    with_passwords: bool,
    snapshot_at: datetime,
    objects: Sequence[StoredObject],
    in_parallel: bool,
    encrypted: bool = False,
    signed: bool = False,
) -> str:
    """Return the guide as Markdown; the commands run in the folder of the set.

    `roles` are those of the dumps among the objects, the catch-all first.
    """
    stored = {each.role: each.key.rpartition("/")[2] for each in objects}
    names = {role: name.removesuffix(age.SUFFIX) for role, name in stored.items()}
    database = str(inventory["database"])
    passwords = _WITH_PASSWORDS if with_passwords else _WITHOUT_PASSWORDS
    others = " So do the other decrypted files." if encrypted else ""
    archives = {role: f"{role}.pgdump" for role in roles}
    unpacked = ", ".join(f"`{each}`" for each in archives.values())
    return f"""\
# Restore {backup_id} with stock tools

{_needs(inventory, client_version, dump_bytes, snapshot_at, encrypted=encrypted)}

## 1. Check that every file is what was stored
{authenticity(backup_id) if signed else ""}
```sh
sha256sum --check <<'SUMS'
{checksums(objects)}
SUMS
```
{decryption(stored.values()) if encrypted else ""}
## 2. Create the roles

They come {passwords}. For a role that is there already, "already exists" is no fault;
its attributes become those of the backup.

```sh
psql --no-psqlrc --dbname=postgres --file={names["roles"]}
```
{_tablespaces(names)}
## 3. Unpack the dump

```sh
{_unpacking(names, archives)}
```

## 4. Restore

{commands(inventory, client_version, [*archives.values()], in_parallel=in_parallel)}

## 5. Look at it

`manifest.json` lists the rows of every table.

```sh
psql --no-psqlrc --dbname={shown_database(database)} \\
    --command="{_COUNT_TABLES}"
```

Delete {unpacked} afterwards: the data is in there.{others}

{_one_entry_fails(inventory, client_version, [*archives.values()], in_parallel)}
"""


def _one_entry_fails(
    inventory: dict[str, Any],
    client_version: str,
    archives: Sequence[str],
    in_parallel: bool,
) -> str:
    definitions, rows, last = commands_in_parts(
        inventory, client_version, archives, in_parallel=in_parallel
    )
    return f"""\
## If one entry fails

Step 4 stops at the first error and leaves the database incomplete. Most entries come
after the rows, which need none of them: indexes, constraints, triggers, grants. Drop
what step 4 made, and load in three parts. First the definitions:

```sh
{definitions}
```

Then the rows. If the server refuses them because a function is not found, or because of
a `CHECK` that they no longer meet, run a statement like these, then this again:

    ALTER FUNCTION public.f(integer) SET search_path = public;
    ALTER TABLE public.t DROP CONSTRAINT t_until_check;

```sh
{rows}
```

Last, all the rest. Statements that fail are shown, and the others are carried out:

```sh
{last}
```
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
This is the database {code(database)} of a PostgreSQL {server_version} server as it was
at {snapshot_at:%Y-%m-%dT%H:%M:%SZ}, dumped by pg_dump {client_version}.

You need:

- {age_needed}`zstd`, `sha256sum` and the PostgreSQL client programs of major
  {major_of(client_version)} or newer,
- about {_mebibytes(dump_bytes)} MiB of free space for the unpacked dump,
- a server of major {major_of(server_version)} or newer with these extensions:
  {extensions or "none"}.

Say where the server is in the usual variables (`PGHOST`, `PGPORT`, `PGUSER`,
`PGPASSFILE`). The role needs the right to create databases and roles. Run the commands
in the folder that holds the files of the set."""


def _tablespaces(names: dict[str, str]) -> str:
    if "tablespaces" not in names:
        return ""
    return f"""
Tablespaces are in `{names["tablespaces"]}`: make their folders and run it the same way,
or add `--no-tablespaces` to step 4.
"""


def _mebibytes(size_bytes: int) -> int:
    return max(1, round(size_bytes / 1024**2))


def _unpacking(names: Mapping[str, str], archives: Mapping[str, str]) -> str:
    return "\n".join(
        f"zstd --decompress --force {names[role]} -o {archive}"
        for role, archive in archives.items()
    )
