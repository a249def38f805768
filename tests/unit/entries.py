"""Builds entries of an archive and what goes with them, for what is pure over these."""

from __future__ import annotations

from typing import Any

from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.archive.toc import Contents, Layout
from opskit.postgres.inventory import Inventory
from opskit.postgres.survey import Capabilities
from opskit.preflight.shortages import Shortage

_AFTER_DATA = ("CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "EVENT TRIGGER")


def entry(
    dump_id: int,
    kind: str,
    name: str,
    *needs: int,
    schema: str = "public",
    definition: str = "",
    **changes: Any,
) -> TocEntry:
    """Return an entry; `needs` are the dump ids that it depends on."""
    fields: dict[str, Any] = {
        "owner": "ops",
        "copy_statement": "",
        "has_data": kind == "TABLE DATA",
        "after_data": kind in _AFTER_DATA,
    }
    return TocEntry(
        dump_id=dump_id,
        kind=kind,
        schema=schema,
        name=name,
        definition=definition,
        dependencies=needs,
        **(fields | changes),
    )


def contents(*entries: TocEntry, codec: str = "utf-8") -> Contents:
    """Return the contents of an archive that holds these entries."""
    return Contents(
        version=(1, 16),
        database="shop",
        server_version="16.4",
        client_version="16.4",
        codec=codec,
        entries=entries,
        layout=Layout(spans={}, count_at=0, post_data_at=0),
        data_offset=0,
    )


def shortage(what: str, subject: str) -> Shortage:
    """Return something that a server lacks."""
    return Shortage(
        what=what,
        subject=subject,
        detail=f"the server has no {subject}",
        hint=f"Get {subject}.",
    )


def inventory(**changes: Any) -> Inventory:
    """Return an inventory that needs something of every kind."""
    fields: dict[str, Any] = {
        "database": "shop",
        "extensions": [
            {"name": "hstore", "version": "1.8", "schema": "public"},
            {"name": "pg_cron", "version": "1.6", "schema": "cron"},
        ],
        "locale": {
            "provider": "icu",
            "collate": "de_DE.UTF-8",
            "ctype": "en_US.UTF-8",
            "locale": "de",
        },
        "settings": {"lc_monetary": "fr_FR.UTF-8"},
        "has_money": True,
        "collations": [
            {"schema": "pg_catalog", "name": "sv_SE", "provider": "libc",
             "locale": "sv_SE.utf8"},
            {"schema": "public", "name": "german", "provider": "icu", "locale": "de"},
            {"schema": "public", "name": "plain", "provider": "builtin",
             "locale": "C.UTF-8"},
            {"schema": "sales", "name": "Dansk", "provider": "libc",
             "locale": "da_DK.utf8"},
            {"schema": "sales", "name": "usual", "provider": "default",
             "locale": None},
        ],
        "database_settings": [
            {"role": None, "settings": ["Work_Mem", "app.tenant"]},
            {"role": "app", "settings": ["pg_cron_timeout"]},
        ],
        "needed_roles": ["app", "ops"],
        "roles": [{"name": "app", "login": True}, {"name": "other", "login": True}],
        "server_version": "16.4",
        "tablespaces": ["fast", "slow"],
    }  # fmt: skip
    return Inventory(**(fields | changes))


def offered(**changes: Any) -> Capabilities:
    """Return a server that has all that `inventory` needs."""
    fields: dict[str, Any] = {
        "extensions": {
            "hstore": frozenset({"1.7", "1.8"}),
            "pg_cron": frozenset({"1.6"}),
        },
        "settings": frozenset({"work_mem", "pg_cron_timeout"}),
        "tablespaces": frozenset({"fast", "slow", "pg_default"}),
        "roles": frozenset({"app", "ops", "pg_monitor"}),
        "access_methods": frozenset({"heap", "btree"}),
        "has_icu": True,
        "has_builtin_provider": True,
    }
    return Capabilities(**(fields | changes))
