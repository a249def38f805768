"""Libraries that a server loads when it starts, and the extensions that need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from opskit.postgres.connect import Connection, query_value
from opskit.postgres.servers.programs import Installation

# Their background workers would act in the copy; these have none.
_WITHOUT_WORKERS = {"auto_explain", "pg_stat_statements"}


def needed(inventory: Mapping[str, Any]) -> list[str]:
    """Return what the source preloads for an extension of the database.

    Libraries have the names of their extensions. Without privileges the source does not
    tell what it preloads.
    """
    preloaded = _names(inventory["settings"].get("shared_preload_libraries", ""))
    extensions = {each["name"] for each in inventory["extensions"]}
    return [name for name in preloaded if name in extensions]


def settings(installation: Installation, libraries: Sequence[str]) -> dict[str, str]:
    """Return settings by which a throw-away server preloads what is installed of them.

    No background worker starts where one of them may bring some.
    """
    found = [
        each
        for each in libraries
        if (installation.folder("pkglibdir") / f"{each}.so").exists()
    ]
    if not found:
        return {}
    preloading = {"shared_preload_libraries": ",".join(found)}
    return preloading | (
        {} if _WITHOUT_WORKERS.issuperset(found) else {"max_worker_processes": "0"}
    )


def is_usable(connection: Connection, name: str) -> bool:
    """Return whether the server has a library loaded, or can load it now.

    It is tried in a session of its own: some end the session if they came too late.
    """
    shown = query_value(connection, "SHOW shared_preload_libraries")
    if name in _names(str(shown)):
        return True
    info = connection.info
    try:
        with psycopg.connect(info.dsn, password=info.password or None) as session:
            session.execute(sql.SQL("LOAD {}").format(sql.Literal(name)))
    except psycopg.Error:
        return False
    return True


def _names(setting: str) -> list[str]:
    names = (each.strip(' "') for each in setting.split(","))
    return [each.removeprefix("$libdir/").removesuffix(".so") for each in names if each]
