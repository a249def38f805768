"""What a restore would do: the same questions, asked without changing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opskit.catalog.manifest import TableRecord
from opskit.catalog.reader import SetReader
from opskit.postgres import database, roles, takeover
from opskit.postgres.connect import server_major
from opskit.preflight import ability, shortages
from opskit.preflight.shortages import Shortage
from opskit.restore import beside
from opskit.restore.run import RestoreRequest, refused_shortages, require_target
from opskit.restore.surroundings import with_members


@dataclass(frozen=True, kw_only=True)
class RestorePlan:
    """Where a set would be read, what would be made of it, and what is missing.

    `exists` says that there is a database of the target's name, `is_occupied` that it
    holds something and would be kept under another name. For what is `refused` of that
    which is `missing`, and for the `obstacles`, a restore would end at once.
    """

    store: str
    server_major: int
    exists: bool
    is_occupied: bool
    tables: Sequence[TableRecord]
    roles_created: Sequence[str]
    missing: Sequence[Shortage]
    refused: Sequence[Shortage]
    obstacles: Sequence[str]


def plan(request: RestoreRequest) -> RestorePlan:
    """Return what `restore` would do with the same request; nothing is touched.

    Raises:
        UsageError: the target would be refused.
        ConfigurationError: the set is encrypted and there is no identity.
        DatabaseError: the server refuses.
    """
    manifest, store = request.manifest, request.chosen.stores[0]
    SetReader(
        manifest=manifest, store=store, identities=request.identities
    ).require_identities()
    with database.maintenance(request.server_url) as connection:
        is_occupied = require_target(connection, request)
        needed = ability.shortages(
            connection, manifest.inventory, is_whole=not request.tables
        )
        lacking = shortages.shortages(
            connection, manifest.inventory, (), creates_roles=True, is_throwaway=False
        )
        # Only the dump shows what single tables need of it.
        refused = refused_shortages(
            () if request.tables else lacking, request.loading.allow
        )
        wanted = with_members(
            set(manifest.inventory.needed_roles), manifest.inventory.roles
        )
        return RestorePlan(
            store=store.name,
            server_major=server_major(connection),
            exists=database.exists(connection, request.target),
            is_occupied=is_occupied,
            tables=_tables(request),
            roles_created=sorted(wanted - roles.names(connection)),
            missing=[*needed, *lacking],
            refused=[*beside.not_accepted(needed, request.loading.allow), *refused],
            obstacles=takeover.obstacles(connection, request.target),
        )


def _tables(request: RestoreRequest) -> Sequence[TableRecord]:
    """Return the tables with rows; only the dump shows a partitioned one's parts."""
    tables = request.manifest.tables
    if not request.tables:
        return tables
    return [t for t in tables if (t.schema_name, t.name) in request.tables]
