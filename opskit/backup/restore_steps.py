"""The step of RESTORE.md that loads: stock pg_restore alone, from one dump or more."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from opskit.postgres.database import quoted
from opskit.postgres.servers.programs import sets_unknown_parameter

_ALWAYS_THERE = ("postgres", "template1")
_JOBS = 4


def commands(
    inventory: dict[str, Any],
    client_version: str,
    archives: Sequence[str],
    *,
    in_parallel: bool,
) -> str:
    """Return the step as Markdown; `archives` are the unpacked dumps, the first whole.

    The others hold nothing but rows, which go in between what the first creates before
    rows and what after them: indexes, constraints, triggers.
    """
    database = str(inventory["database"])
    options = _session_options(inventory)
    load = _Loading(inventory, client_version, jobs=_JOBS if in_parallel else 1)
    if database in _ALWAYS_THERE:
        # It cannot be created again, and is seldom empty: restore beside it.
        return f"""\
Every server has a database {code(database)}, so this restores into a new one,
`{database}_restored`.

```sh
{_createdb(inventory, f"{database}_restored")}
{options}
{load.all(archives, f"{database}_restored")}
```"""
    return f"""\
This creates the database {code(database)}, which must not exist yet.

```sh
{options}
{load.all(archives, shown_database(database), creates=True)}
```

To restore under another name, create that database yourself and name it in {
        "every `--dbname`" if len(archives) > 1 else "`--dbname`"
    }
without `--create`:

    {_createdb(inventory, "NAME")}"""


def commands_in_parts(
    inventory: dict[str, Any],
    client_version: str,
    archives: Sequence[str],
    *,
    in_parallel: bool,
) -> tuple[str, str, str]:
    """Return the commands that load in parts, of which the last may fail in places.

    They are for definitions, rows, and all that no row depends on. The first drops what
    an earlier try left; grants and comments come with the last.
    """
    source = str(inventory["database"])
    name = f"{source}_restored" if source in _ALWAYS_THERE else source
    database = shown_database(source)
    load = _Loading(inventory, client_version, jobs=_JOBS if in_parallel else 1)
    options = "--no-privileges --no-comments --no-security-labels --section=pre-data "
    first = [
        shlex.join(["dropdb", "--if-exists", "--", name]),
        _session_options(inventory),
    ]
    if source in _ALWAYS_THERE:
        first += [
            _createdb(inventory, name),
            load.one(archives[0], database, options),
        ]
    else:
        first.append(load.one(archives[0], "postgres", f"--create {options}"))
    return (
        "\n".join(first),
        " &&\n".join(load.one(each, database, "--section=data ") for each in archives),
        load.last(archives[0], database),
    )


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


class _Loading:
    """Commands that load archives with as many jobs as the dump allows."""

    def __init__(
        self, inventory: dict[str, Any], client_version: str, *, jobs: int
    ) -> None:
        self._jobs = jobs
        self._extensions = inventory["extensions"]
        self._as_script = sets_unknown_parameter(
            client_major=major_of(client_version),
            server_major=major_of(str(inventory["server_version"])),
        )

    def all(
        self, archives: Sequence[str], database: str, *, creates: bool = False
    ) -> str:
        """Return the commands; `database` is quoted for the shell.

        Where the first of them creates it, that one connects to another.
        """
        first = ("postgres", "--create ") if creates else (database, "")
        if len(archives) == 1:
            return self.one(archives[0], *first)
        return " &&\n".join(
            [
                self.one(archives[0], first[0], f"{first[1]}--section=pre-data "),
                *(self.one(each, database, "--section=data ") for each in archives),
                self.one(archives[0], database, "--section=post-data "),
            ]
        )

    def last(self, archive: str, database: str) -> str:
        """Return what makes all that can be made after rows, and reports what cannot.

        What extensions brought is found by its bare name, as some entries need it.
        """
        schemas = dict.fromkeys(e["schema"] for e in self._extensions)
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
    psql --no-psqlrc --quiet --echo-errors --dbname={database}"""

    def one(self, archive: str, database: str, options: str) -> str:
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


def shown_database(name: str) -> str:
    if name in _ALWAYS_THERE:
        return f"{name}_restored"
    if "=" in name or "://" in name:
        # psql takes such a name for a connection string.
        escaped = name.replace("\\", "\\\\").replace("'", "\\'")
        return shlex.quote(f"dbname='{escaped}'")
    return shlex.quote(name)


def code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def major_of(version: str) -> int:
    return int(version.split(".", maxsplit=1)[0])
