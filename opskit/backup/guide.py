"""RESTORE.md: how to bring one set back with stock tools alone.

A test extracts the commands of such a file and runs them: keep every one in a `sh`
block, complete, and free of anything that only this project provides.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from datetime import datetime

from opskit.catalog.manifest import StoredObject
from opskit.crypto import age
from opskit.postgres.connect import quoted
from opskit.postgres.inventory import Inventory
from opskit.postgres.servers.programs import sets_unknown_parameter

# In the key of an object that lies beside its manifest.
_SLASHES = 3


def authenticity(backup_id: str, objects: Sequence[StoredObject]) -> str:
    """Return how to see who made a signed set; the key is not in the set itself."""
    manifest = "../" * (objects[0].key.count("/") - _SLASHES) + "manifest.json"
    return f"""
`manifest.json` is signed. With the public key of its maker in a file
`allowed_signers`, as one line `opskit ssh-ed25519 AAAA...`, this must say "Good":

    ssh-keygen -Y verify -f allowed_signers -I opskit -n opskit \\
        -s manifest.json.sig <{manifest}

Then `backup_id` in it must be `{backup_id}`, and the digests below those of its
`objects`.
"""


def checksums(objects: Iterable[StoredObject]) -> str:
    return "\n".join(
        f"{each.sha256}  {each.key.rpartition('/')[2]}" for each in objects
    )


def decryption(names: Iterable[str]) -> str:
    """Return the step that makes plain files of encrypted ones."""
    commands = "\n".join(
        f'age --decrypt --identity "${{AGE_IDENTITY:?}}" \\\n'
        f"    --output {name.removesuffix(age.SUFFIX)} {name}"
        for name in names
        if name.endswith(age.SUFFIX)
    )
    return f"""
Decrypt them. `AGE_IDENTITY` names the file with the private key (of age, or of SSH):

```sh
{commands}
```
"""


_ALWAYS_THERE = ("postgres", "template1")
_JOBS = 4


class _Loading:
    """Commands that load archives with as many jobs as the dump allows.

    `archives` are the unpacked dumps, the first whole. The others hold nothing but
    rows, which go in between what the first creates before rows and what after them:
    indexes, constraints, triggers.
    """

    def __init__(
        self,
        inventory: Inventory,
        client_version: str,
        archives: Sequence[str],
        *,
        in_parallel: bool,
    ) -> None:
        self._inventory = inventory
        self._archives = archives
        self._jobs = _JOBS if in_parallel else 1
        self._is_always_there = inventory.database in _ALWAYS_THERE
        self._name = inventory.database + "_restored" * self._is_always_there
        self.database = _connection(self._name)
        self._as_script = sets_unknown_parameter(
            client_major=major_of(client_version), server_major=inventory.server_major
        )

    def step(self) -> str:
        source, options = code(self._inventory.database), self._session_options()
        if self._is_always_there:
            # It cannot be created again, and is seldom empty: restore beside it.
            return f"""\
Every server has a database {source}, so this restores into a new one,
`{self._name}`.

```sh
{self._createdb(self._name)}
{options}
{self._all(self.database)}
```"""
        named = "every `--dbname`" if len(self._archives) > 1 else "`--dbname`"
        return f"""\
This creates the database {source}, which must not exist yet.

```sh
{options}
{self._all("postgres", "--create ")}
```

To restore under another name, create that database yourself and name it in {named}
without `--create`:

    {self._createdb("NAME")}"""

    def parts(self) -> tuple[str, str, str]:
        """Return the commands that load in parts; the last may fail in places.

        They are for definitions, rows, and all that no row depends on. The first drops
        what an earlier try left; grants and comments come with the last.
        """
        options = (
            "--no-privileges --no-comments --no-security-labels --section=pre-data "
        )
        first = [
            shlex.join(["dropdb", "--if-exists", "--", self._name]),
            self._session_options(),
        ]
        if self._is_always_there:
            first.append(self._createdb(self._name))
            first.append(self._one(self._archives[0], self.database, options))
        else:
            first.append(
                self._one(self._archives[0], "postgres", f"--create {options}")
            )
        return "\n".join(first), " &&\n".join(self._rows()), self._last()

    def _all(self, database: str, options: str = "") -> str:
        """Return the commands; the first connects to this database, quoted for a shell.

        Where that creates the copy, the others connect to the copy.
        """
        first = self._archives[0]
        if len(self._archives) == 1:
            return self._one(first, database, options)
        return " &&\n".join(
            [
                self._one(first, database, f"{options}--section=pre-data "),
                *self._rows(),
                self._one(first, self.database, "--section=post-data "),
            ]
        )

    def _rows(self) -> list[str]:
        return [self._one(e, self.database, "--section=data ") for e in self._archives]

    def _last(self) -> str:
        """Return what makes all that can be made after rows, and reports what cannot.

        What extensions brought is found by its bare name, as some entries need it.
        """
        archive = self._archives[0]
        schemas = dict.fromkeys(e.schema_name for e in self._inventory.extensions)
        path = ", ".join(map(quoted, schemas)) or "''"
        replaced = re.sub(r"([&/\\])", r"\\\1", f"SET search_path = {path};")
        edit = shlex.quote(
            "s/^SELECT pg_catalog.set_config('search_path', '', false);$/"
            f"{replaced}/;/^SET transaction_timeout = 0;$/d"
        )
        return f"""\
pg_restore --list {archive} |
    grep -E '^[0-9]+; [0-9]+ [0-9]+ (DEFAULT ACL|ACL|COMMENT|SECURITY LABEL) ' \\
        >about.list || true
{{
    pg_restore --section=post-data --no-privileges --no-comments \\
        --no-security-labels --file=- {archive}
    pg_restore --use-list=about.list --file=- {archive}
}} | sed {edit} |
    psql --no-psqlrc --quiet --echo-errors --dbname={self.database}"""

    def _one(self, archive: str, database: str, options: str) -> str:
        if not self._as_script:
            return (
                f"pg_restore --exit-on-error --jobs={self._jobs} {options}"
                f"--dbname={database} {archive}"
            )
        return (
            f"pg_restore {options}--file=- {archive} |\n"
            "    sed '1,/^COPY /{/^SET idle_in_transaction_session_timeout = 0;$/{n;"
            "/^SET transaction_timeout = 0;$/d;};}' |\n"
            f"    psql --no-psqlrc --quiet --dbname={database} --set=ON_ERROR_STOP=1"
        )

    def _createdb(self, name: str) -> str:
        locale = self._inventory.locale
        options = [
            "--template=template0",
            f"--encoding={self._inventory.encoding}",
            f"--lc-collate={locale.collate}",
            f"--lc-ctype={locale.ctype}",
        ]
        if locale.provider != "libc":
            options.append(f"--locale-provider={locale.provider}")
            options.append(f"--{locale.provider}-locale={locale.locale}")
        return shlex.join(["createdb", *options, name])

    def _session_options(self) -> str:
        """Return the line that keeps the database's own settings from the restore."""
        settings = {"default_transaction_read_only": "off", "array_nulls": "on"}
        if self._inventory.has_money and self._inventory.money_locale:
            # pg_dump writes money as the source's locale does, and does not say which.
            settings["lc_monetary"] = self._inventory.money_locale
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        return f"export PGOPTIONS={shlex.quote(options)}"


def _connection(name: str) -> str:
    """Return the name of a database, quoted for a shell, as psql takes it."""
    if "=" in name or "://" in name:
        # psql takes such a name for a connection string.
        escaped = name.replace("\\", "\\\\").replace("'", "\\'")
        return shlex.quote(f"dbname='{escaped}'")
    return shlex.quote(name)


def code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def major_of(version: str) -> int:
    return int(version.split(".", maxsplit=1)[0])


_COUNT_TABLES = (
    "SELECT count(*) AS tables FROM pg_tables "
    "WHERE schemaname !~ '^(pg_|information_schema)'"
)
_WITH_PASSWORDS = "with their password hashes"
_WITHOUT_PASSWORDS = (
    "**without passwords**: set new ones with `ALTER ROLE ... PASSWORD`"
)


def render(
    *,
    backup_id: str,
    inventory: Inventory,
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
    passwords = _WITH_PASSWORDS if with_passwords else _WITHOUT_PASSWORDS
    archives = {role: f"{role}.pgdump" for role in roles}
    unpacking = "\n".join(
        f"zstd --decompress --force {names[role]} -o {archive}"
        for role, archive in archives.items()
    )
    load = _Loading(
        inventory, client_version, [*archives.values()], in_parallel=in_parallel
    )
    return f"""\
# Restore {backup_id} with stock tools

{_needs(inventory, client_version, dump_bytes, snapshot_at, encrypted=encrypted)}

## 1. Check that every file is what was stored
{authenticity(backup_id, objects) if signed else ""}
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
{unpacking}
```

## 4. Restore

{load.step()}

{_look(load.database, archives.values(), encrypted=encrypted)}

{_one_entry_fails(load)}
"""


def _look(database: str, archives: Iterable[str], *, encrypted: bool) -> str:
    unpacked = ", ".join(f"`{each}`" for each in archives)
    others = " So do the other decrypted files." if encrypted else ""
    return f"""\
## 5. Look at it

`manifest.json` lists the rows of every table.

```sh
psql --no-psqlrc --dbname={database} \\
    --command="{_COUNT_TABLES}"
```

Delete {unpacked} afterwards: the data is in there.{others}"""


def _one_entry_fails(load: _Loading) -> str:
    definitions, rows, last = load.parts()
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
    inventory: Inventory,
    client_version: str,
    dump_bytes: int,
    snapshot_at: datetime,
    *,
    encrypted: bool,
) -> str:
    age_needed = "`age` with the private key, " if encrypted else ""
    database = inventory.database
    server_version = inventory.server_version
    extensions = ", ".join(
        f"{each.name} {each.version}" for each in inventory.extensions
    )
    return f"""\
This is the database {code(database)} of a PostgreSQL {server_version} server as it was
at {snapshot_at:%Y-%m-%dT%H:%M:%SZ}, dumped by pg_dump {client_version}.

You need:

- {age_needed}`zstd`, `sha256sum` and the PostgreSQL client programs of major
  {major_of(client_version)} or newer,
- about {max(1, round(dump_bytes / 1024**2))} MiB of free space for the unpacked dump,
- a server of major {inventory.server_major} or newer with these extensions:
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
