"""Every object of a database by kind and name, with the state that must come back.

Read from the catalog in the dump's own snapshot and again from the restored copy; the
two lists must be equal. Texts that PostgreSQL writes anew from a parsed expression are
left out of the state: it may write the same expression differently after one round
trip through a dump.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from opskit.errors import ConfigurationError
from opskit.postgres.connect import Connection, query_column, quoted


def excluded_relations(connection: Connection, patterns: Sequence[str]) -> list[int]:
    """Return the OIDs of the relations that any of the patterns names."""
    relations: set[int] = set()
    for pattern in patterns:
        schema, name = pattern_regexes(pattern)
        if schema is None:
            # pg_dump, too, looks at what the role sees by its own search path.
            connection.execute("RESET search_path")
        oids = query_column(
            connection,
            """
            SELECT c.oid FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = ANY ('{r,v,m,S,f,p}')
              AND c.relname OPERATOR(pg_catalog.~) %s COLLATE pg_catalog.default
              AND CASE WHEN %s::text IS NULL
                  THEN pg_catalog.pg_table_is_visible(c.oid)
                  ELSE n.nspname OPERATOR(pg_catalog.~) %s COLLATE pg_catalog.default
                  END""",
            name,
            schema,
            schema,
        )
        connection.execute("SET search_path = ''")
        relations.update(oids)
    return sorted(relations)


def has_exact_pattern(schema: str, name: str) -> bool:
    """Return whether pg_dump can read a relation's name in any encoding."""
    return (schema + name).isascii() and (schema + name).isprintable()


def exact_pattern(schema: str, name: str) -> str:
    """Return the pattern that names one relation and no other."""
    return f"{quoted(schema)}.{quoted(name)}"


def pattern_regexes(pattern: str) -> tuple[str | None, str]:
    """Return the regular expressions of a pattern's schema (None for none) and name.

    Raises ConfigurationError if it has more parts than these.
    """
    parts = [""]
    quoted = False
    characters = iter(range(len(pattern)))
    for position in characters:
        character = pattern[position]
        if character == '"':
            if quoted and pattern[position + 1 : position + 2] == '"':
                parts[-1] += '"'
                next(characters)
            else:
                quoted = not quoted
        elif character == "." and not quoted:
            parts.append("")
        else:
            following = pattern[position + 1 : position + 2]
            parts[-1] += _translate(character, following, quoted=quoted)
    if len(parts) > 2:
        raise ConfigurationError(
            f"the table pattern {pattern} has more parts than schema and name",
            hint="Write it as schema.table; quote names that hold dots.",
        )
    anchored = [f"^({part})$" for part in parts]
    return (anchored[0] if len(anchored) == 2 else None, anchored[-1])


def _translate(character: str, following: str, *, quoted: bool) -> str:
    if quoted:
        return "\\" + character if character in "|*+?()[]{}.^$\\" else character
    if character == "*":
        return ".*"
    if character == "?":
        return "."
    if character == "$" or (character == "[" and following == "]"):
        return "\\" + character
    # Like PostgreSQL's own folding of names: ASCII alone.
    return character.lower() if character.isascii() else character


_USER_SCHEMA: LiteralString = (
    "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
)
# A relation and its schema, and which relations of the user's a dump holds.
_RELATION: LiteralString = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
_KEPT: LiteralString = (
    f"{_USER_SCHEMA} AND c.relpersistence <> 't' "
    "AND NOT c.oid = ANY (%(excluded)s::oid[])"
)

# In each query %(excluded)s holds the OIDs of relations that the dump leaves out, and
# the first two columns are name and state.
QUERIES: dict[str, LiteralString] = {
    "schema": f"""
        SELECT quote_ident(n.nspname), 'owner ' || pg_get_userbyid(n.nspowner),
               'pg_namespace'::regclass, n.oid
        FROM pg_namespace n WHERE {_USER_SCHEMA}""",
    "table": f"""
        SELECT c.oid::regclass::text,
               concat_ws(', ', 'owner ' || pg_get_userbyid(c.relowner),
                 CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
                 CASE WHEN c.relispartition THEN 'partition' END,
                 CASE WHEN c.relkind = 'p' THEN 'partitioned' END,
                 CASE WHEN c.relkind = 'f' THEN 'foreign' END,
                 CASE WHEN c.relrowsecurity THEN 'row security' END,
                 CASE WHEN c.relforcerowsecurity THEN 'forced' END,
                 (SELECT string_agg(concat_ws(' ', quote_ident(a.attname),
                           format_type(a.atttypid, a.atttypmod),
                           CASE WHEN a.attnotnull THEN 'not null' END,
                           CASE WHEN a.atthasdef THEN 'default' END,
                           CASE WHEN a.attidentity <> '' THEN 'identity' END,
                           CASE WHEN a.attgenerated <> '' THEN 'generated' END),
                         ', ' ORDER BY a.attname)
                  FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)),
               'pg_class'::regclass, c.oid
        FROM {_RELATION} WHERE c.relkind IN ('r', 'p', 'f') AND {_KEPT}""",
    "view": f"""
        SELECT c.oid::regclass::text, 'owner ' || pg_get_userbyid(c.relowner),
               'pg_class'::regclass, c.oid
        FROM {_RELATION} WHERE c.relkind = 'v' AND {_KEPT}""",
    "materialized view": f"""
        SELECT c.oid::regclass::text, 'owner ' || pg_get_userbyid(c.relowner),
               'pg_class'::regclass, c.oid
        FROM {_RELATION} WHERE c.relkind = 'm' AND {_KEPT}""",
    "sequence": f"""
        SELECT c.oid::regclass::text,
               concat_ws(' ', 'owner ' || pg_get_userbyid(c.relowner),
                 format_type(s.seqtypid, NULL), 'start', s.seqstart, 'increment',
                 s.seqincrement, 'range', s.seqmin, s.seqmax, 'cache', s.seqcache,
                 CASE WHEN s.seqcycle THEN 'cycle' END),
               'pg_class'::regclass, c.oid
        FROM {_RELATION} JOIN pg_sequence s ON s.seqrelid = c.oid
        WHERE {_USER_SCHEMA} AND c.relpersistence <> 't'
          -- One that a column owns comes and goes with its table.
          AND NOT coalesce(
            (SELECT d.refobjid FROM pg_depend d
             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
               AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('i', 'a')
             LIMIT 1), c.oid) = ANY (%(excluded)s::oid[])""",
    "index": f"""
        SELECT c.oid::regclass::text,
               concat_ws(', ', 'on ' || i.indrelid::regclass, am.amname,
                 CASE WHEN i.indisunique THEN 'unique' END,
                 CASE WHEN i.indisprimary THEN 'primary' END,
                 CASE WHEN i.indpred IS NOT NULL THEN 'partial' END,
                 i.indnkeyatts || ' of ' || i.indnatts || ' columns',
                 CASE WHEN i.indisvalid THEN 'valid' ELSE 'INVALID' END),
               'pg_class'::regclass, i.indrelid
        FROM {_RELATION} JOIN pg_index i ON i.indexrelid = c.oid
        JOIN pg_am am ON am.oid = c.relam
        WHERE {_USER_SCHEMA} AND c.relpersistence <> 't'
          -- What CREATE INDEX CONCURRENTLY left half-made, pg_dump leaves out.
          AND (i.indisvalid OR c.relkind = 'I')
          AND NOT i.indrelid = ANY (%(excluded)s::oid[])""",
    "constraint": f"""
        SELECT quote_ident(k.conname) || ' on ' || k.conrelid::regclass,
               concat_ws(', ', CASE k.contype
                   WHEN 'c' THEN 'check' WHEN 'f' THEN 'foreign key'
                   WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique'
                   WHEN 'x' THEN 'exclusion' WHEN 't' THEN 'trigger' END,
                 CASE WHEN k.condeferrable THEN 'deferrable' END,
                 CASE WHEN k.condeferred THEN 'deferred' END,
                 CASE WHEN k.convalidated THEN 'validated' ELSE 'NOT VALIDATED' END),
               'pg_class'::regclass, k.conrelid
        FROM {_RELATION} JOIN pg_constraint k ON k.conrelid = c.oid
        WHERE k.contype <> 'n' AND {_KEPT}""",
    "trigger": f"""
        SELECT quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass,
               'calls ' || t.tgfoid::regproc || ', ' || CASE t.tgenabled
                 WHEN 'O' THEN 'enabled' WHEN 'D' THEN 'disabled'
                 WHEN 'R' THEN 'replica' ELSE 'always' END,
               'pg_class'::regclass, t.tgrelid
        FROM {_RELATION} JOIN pg_trigger t ON t.tgrelid = c.oid
        WHERE NOT t.tgisinternal AND {_KEPT}""",
    "rule": f"""
        SELECT quote_ident(r.rulename) || ' on ' || r.ev_class::regclass,
               r.ev_enabled::text, 'pg_class'::regclass, r.ev_class
        FROM {_RELATION} JOIN pg_rewrite r ON r.ev_class = c.oid
        WHERE r.rulename <> '_RETURN' AND {_KEPT}""",
    "policy": f"""
        SELECT quote_ident(p.polname) || ' on ' || p.polrelid::regclass,
               concat_ws(', ', p.polcmd::text,
                 CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
                 (SELECT string_agg(pg_get_userbyid(role), ' '
                    ORDER BY pg_get_userbyid(role))
                  FROM unnest(p.polroles) role WHERE role <> 0)),
               'pg_class'::regclass, p.polrelid
        FROM {_RELATION} JOIN pg_policy p ON p.polrelid = c.oid WHERE {_KEPT}""",
    "function": f"""
        SELECT p.oid::regprocedure::text,
               concat_ws(', ', 'owner ' || pg_get_userbyid(p.proowner),
                 'kind ' || p.prokind::text, l.lanname, md5(p.prosrc)),
               'pg_proc'::regclass, p.oid
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_language l ON l.oid = p.prolang
        WHERE {_USER_SCHEMA} AND NOT EXISTS (SELECT FROM pg_depend d
          WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
            AND d.deptype = 'i')""",
    "type": f"""
        SELECT t.oid::regtype::text,
               concat_ws(', ', 'owner ' || pg_get_userbyid(t.typowner),
                 'kind ' || t.typtype::text,
                 (SELECT string_agg(e.enumlabel, ' ' ORDER BY e.enumsortorder)
                  FROM pg_enum e WHERE e.enumtypid = t.oid)),
               'pg_type'::regclass, t.oid
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE {_USER_SCHEMA} AND t.typtype IN ('e', 'd', 'c', 'r')
          AND (t.typrelid = 0 OR c.relkind = 'c')""",
    "operator": f"""
        SELECT o.oid::regoperator::text, 'owner ' || pg_get_userbyid(o.oprowner),
               'pg_operator'::regclass, o.oid
        FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
        WHERE {_USER_SCHEMA}""",
    "event trigger": """
        SELECT quote_ident(e.evtname), e.evtevent::text || ' ' || e.evtenabled::text,
               'pg_event_trigger'::regclass, e.oid FROM pg_event_trigger e""",
    "publication": """
        SELECT quote_ident(p.pubname), 'owner ' || pg_get_userbyid(p.pubowner),
               'pg_publication'::regclass, p.oid FROM pg_publication p""",
    "grant": f"""
        SELECT c.oid::regclass::text || coalesce('.' || quote_ident(a.attname), '')
                 || ' to ' || CASE g.grantee WHEN 0 THEN 'public'
                   ELSE pg_get_userbyid(g.grantee) END,
               string_agg(g.privilege_type
                            || CASE WHEN g.is_grantable THEN '*' ELSE '' END,
                          ' ' ORDER BY g.privilege_type),
               'pg_class'::regclass, c.oid
        FROM {_RELATION} CROSS JOIN LATERAL (
          SELECT NULL::name, c.relacl WHERE c.relacl IS NOT NULL
          UNION ALL SELECT t.attname, t.attacl FROM pg_attribute t
          WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL AND NOT t.attisdropped
        ) a (attname, acl)
        CROSS JOIN LATERAL aclexplode(a.acl) g
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND {_KEPT}
          AND g.grantee <> c.relowner
        GROUP BY c.oid, a.attname, g.grantee""",
    # Together, for there may be millions: those of one owner with the same grants.
    "large object": """
        SELECT concat_ws(', ', 'of ' || pg_get_userbyid(m.lomowner), g.grants,
                         'about ' || obj_description(m.oid, 'pg_largeobject')),
               count(*) || ' with numbers '
                 || md5(string_agg(m.oid::text, ' ' ORDER BY m.oid)),
               'pg_largeobject'::regclass, 0
        FROM pg_largeobject_metadata m CROSS JOIN LATERAL (
          SELECT string_agg(concat_ws(' ', CASE a.grantee WHEN 0 THEN 'public'
                              ELSE pg_get_userbyid(a.grantee) END, a.privilege_type,
                              CASE WHEN a.is_grantable THEN 'grantable' END),
                            ', ' ORDER BY pg_get_userbyid(a.grantee),
                            a.privilege_type) AS grants
          FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) a) g
        GROUP BY 1""",
}


@dataclass(frozen=True, order=True)
class SchemaObject:
    """One object; `state` is compared to the letter."""

    kind: str
    name: str
    state: str


# Raise it whenever a query writes another text for the same object: the texts of
# an older set can then not be compared to the letter.
FORMAT = 2

KINDS = tuple(QUERIES)


def take(
    connection: Connection,
    *,
    exclude_tables: Sequence[str] = (),
    kinds: Sequence[str] = KINDS,
) -> list[SchemaObject]:
    """Return the objects of these kinds, sorted, but for those of extensions."""
    excluded = excluded_relations(connection, exclude_tables)
    objects = []
    for kind in kinds:
        statement = QUERIES[kind]
        rows = connection.execute(
            f"""
            SELECT q.name, q.state FROM ({statement}) AS q (name, state, class, oid)
            WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
              AND d.classid = q.class AND d.objid = q.oid)""",
            {"excluded": excluded},
        ).fetchall()
        objects += [SchemaObject(kind, name, state) for name, state in rows]
    return sorted(objects)


def populated_views(connection: Connection) -> list[str]:
    """Return schema and name, joined by a dot, of the materialized views with rows."""
    return query_column(
        connection,
        """
        SELECT n.nspname || '.' || c.relname
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'm' AND c.relispopulated
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
            AND d.classid = 'pg_class'::regclass AND d.objid = c.oid)
        ORDER BY 1""",
    )


def invalid_indexes(connection: Connection) -> list[str]:
    """Return the indexes that PostgreSQL holds for unusable."""
    return query_column(
        connection,
        """
        SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1
        """,
    )


def unvalidated_constraints(connection: Connection) -> list[str]:
    """Return the constraints that existing rows were never checked against."""
    return query_column(
        connection,
        """
        SELECT quote_ident(conname) || ' on ' || conrelid::regclass
        FROM pg_constraint
        WHERE NOT convalidated AND contype <> 'n' AND conrelid <> 0 ORDER BY 1""",
    )
