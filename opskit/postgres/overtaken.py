"""What others changed in the catalog since a snapshot: a dump under it may fail."""

from __future__ import annotations

import re
from collections.abc import Iterable

from opskit.errors import BackupFailed, OpskitError
from opskit.postgres.connect import Connection, query

# Below are the OIDs of the server's own objects.
_FIRST_OWN = 16384
# How the server names an object when it does not find its name any more.
_NUMBERED = re.compile(
    r"\b(?:OID|relation|index|type|function|constraint|trigger|rule|schema) (\d+)\b"
)


class Overtaken(BackupFailed):
    """Something changed between the snapshot and the locks: a new snapshot may do."""


def explained(
    error: OpskitError,
    snapshot: Connection,
    now: Connection,
    *,
    planned: Iterable[tuple[str, str]],
) -> BackupFailed | None:
    """Return what is known better than a dump's error: changes, and names for OIDs.

    `snapshot` is a connection in the dump's snapshot, `now` one in none. The `planned`
    tables were gone when the snapshot was taken.
    """
    before, after = _objects(snapshot), _objects(now)

    def named(said: re.Match[str]) -> str:
        _, name = before.get(int(said[1]), ("", ""))
        return f"{said[0]} ({name})" if name else said[0]

    words = _NUMBERED.sub(named, error.message)
    changed = {name for _, (_, name) in before.items() - after.items()}
    changed.update(map(".".join, planned))
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return Overtaken(
            f"{min(changed)}{others} changed while the backup began: {words}",
            hint="Run the backup again when the migration has ended.",
        )
    return None if words == error.message else BackupFailed(words, hint=error.hint)


def _objects(connection: Connection) -> dict[int, tuple[str, str]]:
    """Return the version and the name of each object, by its OID."""
    rows = query(
        connection,
        """
        WITH own AS (
          SELECT oid, nspname AS name FROM pg_namespace
          WHERE nspname !~ '^pg_(toast_)?temp_'),
        relations AS (
          SELECT c.oid, format('%I.%I', name, relname) AS name,
                 concat_ws(' ', c.xmin::text,
                   (SELECT string_agg(a.xmin::text, ' ' ORDER BY attnum)
                    FROM pg_attribute a WHERE attrelid = c.oid)) AS version
          FROM pg_class c JOIN own ON own.oid = relnamespace)
        SELECT oid, xmin::text, quote_ident(nspname) FROM pg_namespace
        WHERE oid IN (SELECT oid FROM own)
        UNION ALL SELECT p.oid, p.xmin::text, format('%I.%I', name, proname)
        FROM pg_proc p JOIN own ON own.oid = pronamespace
        UNION ALL SELECT t.oid, t.xmin::text, format('%I.%I', name, typname)
        FROM pg_type t JOIN own ON own.oid = typnamespace
        UNION ALL SELECT c.oid, c.xmin::text, format('%I.%I', name, conname)
        FROM pg_constraint c JOIN own ON own.oid = connamespace
        UNION ALL SELECT t.oid, t.xmin::text, format('%I on %s', tgname, name)
        FROM pg_trigger t JOIN relations r ON r.oid = tgrelid
        UNION ALL SELECT p.oid, p.xmin::text, format('%I on %s', polname, name)
        FROM pg_policy p JOIN relations r ON r.oid = polrelid
        UNION ALL SELECT w.oid, w.xmin::text, format('%I on %s', rulename, name)
        FROM pg_rewrite w JOIN relations r ON r.oid = ev_class
        UNION ALL SELECT oid, version, name FROM relations
        """,
    )
    return {oid: (version, name) for oid, version, name in rows if oid >= _FIRST_OWN}
