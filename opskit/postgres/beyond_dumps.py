"""What no dump of a database holds: what its extensions own, and some more.

pg_dump writes `CREATE EXTENSION` for an extension and nothing for what belongs to it,
but the rows of its configuration tables and grants that were changed later. The catalog
does not say what an extension's script made, but which transaction made each of its
rows: one that did not create or update the extension was somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

import psycopg

from opskit.postgres.connect import Connection, query, query_column, query_value
from opskit.postgres.inventory import Loss

_NAMES_SHOWN = 10
_GRANTED = {"pg_proc": "proacl", "pg_type": "typacl", "pg_language": "lanacl"}
_GRANTED |= {"pg_namespace": "nspacl", "pg_foreign_data_wrapper": "fdwacl"}
_GRANTED |= {"pg_foreign_server": "srvacl"}
_OTHERS = {"pg_operator", "pg_opfamily", "pg_cast", "pg_collation", "pg_ts_config"}
_OTHERS |= {"pg_ts_dict", "pg_event_trigger"}
_OBJECT = (
    "SELECT '{0}'::regclass AS classid, oid AS objid, xmin, cmin, "
    "{1}::aclitem[] AS acl FROM {0}"
)
_OBJECTS = " UNION ALL ".join(
    _OBJECT.format(table, acl)
    for table, acl in (_GRANTED | dict.fromkeys(sorted(_OTHERS), "NULL")).items()
)

# `member` has the members of extensions, and the transactions that made each extension.
# An object that was there before it became a member was put in by hand. pg_upgrade puts
# in every member by itself, so that two statements of one transaction tell nothing.
_OF_EXTENSIONS: LiteralString = """
    WITH object AS (
      {objects}
      -- Neither is written again when the relation is altered.
      UNION ALL SELECT 'pg_class'::regclass, attrelid, xmin, cmin, NULL
      FROM pg_attribute WHERE attnum = -1
      UNION ALL SELECT 'pg_class'::regclass, ev_class, xmin, cmin, NULL
      FROM pg_rewrite WHERE rulename = '_RETURN'),
    counted AS (
      SELECT refobjid AS extension, classid, objid, xmin, cmin,
             count(*) OVER (PARTITION BY refobjid, xmin::text) AS together
      FROM pg_depend
      WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass),
    link AS MATERIALIZED (
      SELECT *, max(together) OVER (PARTITION BY extension) AS most FROM counted),
    by_hand AS MATERIALIZED (
      SELECT link.* FROM link JOIN object USING (classid, objid)
      WHERE age(object.xmin) > age(link.xmin)
         OR object.xmin = link.xmin
            AND object.cmin::text::bigint < link.cmin::text::bigint
            AND link.most > 1),
    extension AS MATERIALIZED (
      SELECT e.oid, e.extname, e.extowner, coalesce(e.extconfig, '{}') AS config,
             array(SELECT DISTINCT l.xmin::text FROM link l WHERE l.extension = e.oid
                   EXCEPT SELECT h.xmin::text FROM by_hand h WHERE h.extension = e.oid)
               || e.xmin::text AS made_by
      FROM pg_extension e),
    member AS MATERIALIZED (
      SELECT e.*, l.classid, l.objid, h.objid IS NOT NULL AS is_by_hand
      FROM link l JOIN extension e ON e.oid = l.extension
      LEFT JOIN (SELECT DISTINCT classid, objid FROM by_hand) h
        USING (classid, objid)),
    altered AS (
      SELECT classid, objid, xmin FROM object WHERE acl IS NULL
      UNION ALL SELECT 'pg_type'::regclass, enumtypid, xmin FROM pg_enum
      UNION ALL SELECT 'pg_type'::regclass, contypid, xmin FROM pg_constraint
      UNION ALL SELECT classoid, objoid, xmin FROM pg_description
      UNION ALL SELECT classoid, objoid, xmin FROM pg_seclabel),
    part AS (
      SELECT 'pg_class'::regclass AS classid, indexrelid AS objid, 0 AS subid,
             indrelid AS relation, xmin FROM pg_index
      UNION ALL SELECT 'pg_trigger'::regclass, oid, 0, tgrelid, xmin
      FROM pg_trigger WHERE NOT tgisinternal
      UNION ALL SELECT 'pg_rewrite'::regclass, oid, 0, ev_class, xmin
      FROM pg_rewrite
      UNION ALL SELECT 'pg_policy'::regclass, oid, 0, polrelid, xmin FROM pg_policy
      UNION ALL SELECT 'pg_constraint'::regclass, oid, 0, conrelid, xmin
      FROM pg_constraint WHERE contype NOT IN ('p', 'u', 'x')
      UNION ALL SELECT 'pg_attrdef'::regclass, oid, 0, adrelid, xmin FROM pg_attrdef
      UNION ALL SELECT 'pg_publication_rel'::regclass, oid, 0, prrelid, xmin
      FROM pg_publication_rel
      UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum, attrelid, xmin
      FROM pg_attribute WHERE attnum > 0 AND attacl IS NULL
      -- What else changes its row may be a grant, or a rewrite of the table.
      UNION ALL SELECT 'pg_class'::regclass, oid, 0, oid, xmin
      FROM pg_class WHERE relrowsecurity),
    acl AS (
      SELECT classid, objid, acl FROM object WHERE acl IS NOT NULL
      UNION ALL SELECT 'pg_class'::regclass, oid, relacl FROM pg_class)
    SELECT 'by hand', m.extname, o.type || ' ' || o.identity, NULL, NULL
    FROM member m CROSS JOIN LATERAL pg_identify_object(m.classid, m.objid, 0) o
    WHERE m.is_by_hand
    UNION ALL
    SELECT 'rows', m.extname, c.oid::regclass::text, NULL,
           has_schema_privilege(c.relnamespace, 'USAGE')
             AND has_table_privilege(c.oid, 'SELECT')
             AND NOT row_security_active(c.oid)
    FROM member m JOIN pg_class c ON c.oid = m.objid AND c.relkind = 'r'
    WHERE m.classid = 'pg_class'::regclass AND NOT m.is_by_hand
      AND NOT c.oid = ANY (m.config)
      AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
    UNION ALL
    SELECT 'sequence', m.extname, c.oid::regclass::text, NULL, NULL
    FROM member m JOIN pg_class c ON c.oid = m.objid AND c.relkind = 'S'
    WHERE m.classid = 'pg_class'::regclass AND NOT m.is_by_hand
      AND NOT c.oid = ANY (m.config)
      AND CASE WHEN has_sequence_privilege(c.oid, 'SELECT, USAGE')
               THEN pg_sequence_last_value(c.oid) IS NOT NULL END
    UNION ALL
    SELECT 'part', m.extname,
           CASE WHEN part.objid = c.oid AND part.subid = 0 THEN 'row security'
                WHEN o.identity ~ '"\\.{8}pg\\.dropped\\.' THEN 'a dropped column'
                ELSE o.type || ' ' || o.identity END,
           c.oid::regclass::text, NULL
    FROM member m JOIN pg_class c ON c.oid = m.objid
    JOIN part ON part.relation = c.oid
    CROSS JOIN LATERAL pg_identify_object(part.classid, part.objid, part.subid) o
    WHERE m.classid = 'pg_class'::regclass AND NOT m.is_by_hand
      AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND NOT part.xmin::text = ANY (m.made_by)
    UNION ALL
    -- Where a member has grants, these may be all that was changed; they are dumped.
    SELECT DISTINCT 'altered', m.extname, o.type || ' ' || o.identity, NULL, NULL::bool
    FROM member m JOIN altered USING (classid, objid)
    CROSS JOIN LATERAL pg_identify_object(m.classid, m.objid, 0) o
    WHERE NOT m.is_by_hand AND NOT altered.xmin::text = ANY (m.made_by)
    UNION ALL
    -- A trusted extension's members are the first role's, which no row here names.
    SELECT DISTINCT 'owner', m.extname, o.type || ' ' || o.identity, NULL, NULL::bool
    FROM member m JOIN pg_shdepend s ON s.deptype = 'o'
      AND (s.classid, s.objid) = (m.classid, m.objid)
      AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND s.refobjid <> m.extowner
    CROSS JOIN LATERAL pg_identify_object(m.classid, m.objid, 0) o
    WHERE NOT m.is_by_hand
    UNION ALL
    -- Scripts grant to everybody and to predefined roles, not to others.
    SELECT DISTINCT 'grant', m.extname,
           CASE g.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(g.grantee) END
             || ' on ' || o.type || ' ' || o.identity, NULL, NULL::bool
    FROM member m JOIN pg_init_privs i
      ON (i.classoid, i.objoid) = (m.classid, m.objid) AND i.privtype = 'e'
    CROSS JOIN LATERAL aclexplode(i.initprivs) g
    CROSS JOIN LATERAL pg_identify_object(i.classoid, i.objoid, i.objsubid) o
    WHERE g.grantee <> g.grantor AND NOT m.is_by_hand
      AND (i.objsubid <> 0 OR EXISTS (
        SELECT FROM acl CROSS JOIN LATERAL aclexplode(acl.acl) a
        WHERE (acl.classid, acl.objid) = (m.classid, m.objid)
          AND (a.grantee, a.privilege_type) = (g.grantee, g.privilege_type)))
      AND (g.grantee >= 16384 OR g.grantee = 0 AND EXISTS (
        SELECT FROM pg_default_acl d CROSS JOIN LATERAL aclexplode(d.defaclacl) a
        WHERE d.defaclrole = g.grantor AND a.grantee = 0
          AND a.privilege_type = g.privilege_type
          AND d.defaclobjtype NOT IN ('f', 'T')))
    ORDER BY 1, 2, 3"""


def take(connection: Connection) -> tuple[Loss, ...]:
    """Return the name of each thing that no dump holds, and the reason.

    After pg_upgrade also what an extension's script made on its tables is named, for
    nothing tells it from what was added by hand.
    """
    return (
        *_of_extensions(connection),
        *_altered_rows(connection),
        *_in_system_schemas(connection),
        *_unlogged(connection),
    )


def _of_extensions(connection: Connection) -> Iterator[Loss]:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for kind, extension, name, relation, is_readable in query(
        connection, _OF_EXTENSIONS.replace("{objects}", _OBJECTS)
    ):
        if kind == "rows":
            has_rows = (
                _exists(connection, f"SELECT FROM ONLY {name}") if is_readable else None
            )
            if has_rows is False:
                continue
            kind = "rows" if has_rows else "unread rows"
        about = (relation or "") if kind in _TOGETHER else name
        groups.setdefault((kind, extension, about), []).append(name)
    in_order = sorted(groups.items(), key=lambda each: each[0][0] in _TOGETHER)
    for (kind, extension, relation), names in in_order:
        words = {"extension": extension, "relation": relation, "names": _listed(names)}
        what, reason = (each.format_map(words) for each in _WORDS[kind])
        yield _loss(what, reason)


_NOT_MARKED = (
    "the extension {extension} owns the %s and does not mark it for dumps "
    "(pg_extension_config_dump)"
)
_TOGETHER = ("altered", "grant", "owner", "part")
# By kind: what is lost, and the reason.
_WORDS = {
    "by hand": (
        "{names}",
        "it was put into the extension {extension}, so no dump holds its definition, "
        "its rows or anything else of it",
    ),
    "rows": ("rows of the table {names}", _NOT_MARKED % "table"),
    "unread rows": ("rows, if any, of the table {names}", _NOT_MARKED % "table"),
    "sequence": ("value of the sequence {names}", _NOT_MARKED % "sequence"),
    "part": (
        "{names}, added to {relation} or altered",
        "the extension {extension} owns {relation}, and brings it back as its script "
        "makes it",
    ),
    "altered": (
        "changes of {names}",
        "the extension {extension} owns them, and brings them back as its script makes "
        "them",
    ),
    "owner": (
        "owner of {names}",
        "they are members of the extension {extension}, and belong to whoever creates "
        "that",
    ),
    "grant": (
        "grants to {names}",
        "default privileges gave them when the extension {extension} was created, and "
        "pg_dump takes them for its own",
    ),
}


def _altered_rows(connection: Connection) -> Iterator[Loss]:
    """Yield tables with changed rows that are, by a condition, their extension's."""
    tables = query(
        connection,
        """
        SELECT e.extname, c.oid::regclass::text, each.condition, e.xmin::text
        FROM pg_extension e
        CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) each (oid, condition)
        JOIN pg_class c ON c.oid = each.oid
        WHERE c.relkind = 'r' AND each.condition <> ''
          AND has_schema_privilege(c.relnamespace, 'USAGE')
          AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)
        ORDER BY 1, 2""",
    )
    for extension, table, condition, made_by in tables:
        from_table = f"FROM ONLY {table}"
        newer = f"age(xmin) < age('{int(made_by)}'::xid)"
        changed = _exists(
            connection,
            f"SELECT ctid {from_table} WHERE {newer} "
            f"EXCEPT SELECT ctid {from_table} {condition}",
        )
        if changed:
            yield _loss(
                f"changed rows of the table {table}",
                f"the extension {extension} marks other rows of it for dumps and "
                "brings these itself",
            )


def _exists(connection: Connection, select: str) -> bool | None:
    """Return whether a query gives a row, None if its table is locked; keep no lock."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET LOCAL lock_timeout = '2s'")
            row = connection.execute(f"SELECT EXISTS ({select})".encode()).fetchone()
    except psycopg.errors.LockNotAvailable:
        return None
    return row is not None and bool(row[0])


def _in_system_schemas(connection: Connection) -> Iterator[Loss]:
    """Yield what somebody made in the schemas of PostgreSQL itself."""
    names = query_column(
        connection,
        """
        SELECT o.type || ' ' || o.identity FROM (
          SELECT 'pg_class'::regclass, oid, relnamespace FROM pg_class
          WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
          UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc
          UNION ALL SELECT 'pg_operator'::regclass, oid, oprnamespace FROM pg_operator
          UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type
          WHERE typtype IN ('d', 'e', 'r')) made (classid, oid, namespace)
        JOIN pg_namespace n ON n.oid = made.namespace
        CROSS JOIN LATERAL pg_identify_object(made.classid, made.oid, 0) o
        WHERE made.oid >= 16384
          AND n.nspname IN ('pg_catalog', 'information_schema')
          AND NOT EXISTS (SELECT FROM pg_depend d
            WHERE (d.classid, d.objid) = (made.classid, made.oid) AND d.deptype = 'e')
        ORDER BY 1""",
    )
    for name in names:
        yield _loss(name, "pg_dump leaves out what lies in the schemas of PostgreSQL")


def _unlogged(connection: Connection) -> Iterator[Loss]:
    if not query_value(connection, "SELECT pg_is_in_recovery()"):
        return
    tables = query_column(
        connection,
        """
        SELECT c.oid::regclass::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND n.nspname !~ '^pg_'
        ORDER BY 1""",
    )
    for table in tables:
        yield _loss(
            f"rows of the unlogged table {table}",
            "the server is a standby, which has no rows of unlogged tables",
        )


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _loss(name: str, reason: str) -> Loss:
    return Loss(name=name, reason=reason)
