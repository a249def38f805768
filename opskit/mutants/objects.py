"""Damages to the structure: objects lost, altered, disabled or added."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from opskit.checks import Check
from opskit.compare import structure
from opskit.mutants.mutant import (
    Candidate,
    Ground,
    Statement,
    Supply,
    large_objects,
)
from opskit.postgres import schema
from opskit.postgres.connect import Connection, query_column
from opskit.postgres.schema import QUERIES

# Every server has this role, and it rarely owns or is granted anything.
ROLE = "pg_monitor"


@dataclass(frozen=True, kw_only=True)
class Damage:
    kind: str
    part: str
    query: LiteralString


DAMAGES = (
    Damage(kind="drop an index", part="index", query="""
        SELECT i.indexrelid::regclass::text,
          format('DROP INDEX %s', i.indexrelid::regclass)
        FROM pg_index i WHERE NOT EXISTS (SELECT FROM pg_constraint k
          WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))"""),
    Damage(kind="make an index invalid", part="index", query="""
        SELECT i.indexrelid::regclass::text, format('UPDATE pg_index '
          'SET indisvalid = false WHERE indexrelid = %L::regclass',
          i.indexrelid::regclass)
        FROM pg_index i WHERE i.indisvalid"""),
    Damage(kind="drop a constraint", part="constraint", query="""
        SELECT quote_ident(k.conname) || ' on ' || k.conrelid::regclass,
          format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname)
        FROM pg_constraint k
        WHERE k.conrelid <> 0 AND k.contype IN ('c', 'f', 'p', 'u', 'x')
          AND k.coninhcount = 0 AND k.conparentid = 0"""),
    Damage(kind="make a constraint not validated", part="constraint", query="""
        SELECT quote_ident(k.conname) || ' on ' || k.conrelid::regclass,
          format('UPDATE pg_constraint SET convalidated = false '
            'WHERE conrelid = %L::regclass AND conname = %L',
            k.conrelid::regclass, k.conname)
        FROM pg_constraint k
        WHERE k.conrelid <> 0 AND k.contype IN ('c', 'f') AND k.convalidated"""),
    Damage(kind="disable a trigger", part="trigger", query="""
        SELECT quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass,
          format('ALTER TABLE %s DISABLE TRIGGER %I', t.tgrelid::regclass, t.tgname)
        FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'"""),
    Damage(kind="drop a trigger", part="trigger", query="""
        SELECT quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass,
          format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
        FROM pg_trigger t WHERE NOT t.tgisinternal AND t.tgparentid = 0"""),
    Damage(kind="drop a rule", part="rule", query="""
        SELECT quote_ident(r.rulename) || ' on ' || r.ev_class::regclass,
          format('DROP RULE %I ON %s', r.rulename, r.ev_class::regclass)
        FROM pg_rewrite r WHERE r.rulename <> '_RETURN'"""),
    Damage(kind="drop a view", part="view", query="""
        SELECT c.oid::regclass::text, format('DROP VIEW %s', c.oid::regclass)
        FROM pg_class c WHERE c.relkind = 'v'"""),
    Damage(kind="drop a materialized view", part="materialized view", query="""
        SELECT c.oid::regclass::text,
          format('DROP MATERIALIZED VIEW %s', c.oid::regclass)
        FROM pg_class c WHERE c.relkind = 'm'"""),
    Damage(kind="drop a table", part="table", query="""
        SELECT c.oid::regclass::text, format('DROP %s %s',
          CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
          c.oid::regclass)
        FROM pg_class c WHERE c.relkind IN ('r', 'p', 'f')"""),
    Damage(kind="detach a partition", part="table", query="""
        SELECT c.oid::regclass::text, format('ALTER TABLE %s DETACH PARTITION %s',
          i.inhparent::regclass, c.oid::regclass)
        FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
        WHERE c.relispartition AND c.relkind IN ('r', 'p', 'f')"""),
    Damage(kind="change the owner of a table", part="table", query="""
        SELECT c.oid::regclass::text,
          format('ALTER TABLE %s OWNER TO pg_monitor', c.oid::regclass)
        FROM pg_class c WHERE c.relkind IN ('r', 'p', 'f')
          AND pg_get_userbyid(c.relowner) <> 'pg_monitor'"""),
    Damage(kind="change the owner of a view", part="view", query="""
        SELECT c.oid::regclass::text,
          format('ALTER VIEW %s OWNER TO pg_monitor', c.oid::regclass)
        FROM pg_class c WHERE c.relkind = 'v'
          AND pg_get_userbyid(c.relowner) <> 'pg_monitor'"""),
    Damage(kind="change the owner of a function", part="function", query="""
        SELECT p.oid::regprocedure::text,
          format('ALTER ROUTINE %s OWNER TO pg_monitor', p.oid::regprocedure)
        FROM pg_proc p WHERE pg_get_userbyid(p.proowner) <> 'pg_monitor'"""),
    Damage(kind="change the owner of a schema", part="schema", query="""
        SELECT quote_ident(n.nspname),
          format('ALTER SCHEMA %I OWNER TO pg_monitor', n.nspname)
        FROM pg_namespace n WHERE pg_get_userbyid(n.nspowner) <> 'pg_monitor'"""),
    Damage(kind="rename a schema", part="schema", query="""
        SELECT quote_ident(n.nspname),
          format('ALTER SCHEMA %I RENAME TO opskit_mutant', n.nspname)
        FROM pg_namespace n"""),
    Damage(kind="disable row security", part="table", query="""
        SELECT c.oid::regclass::text,
          format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', c.oid::regclass)
        FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity"""),
    Damage(kind="no longer force row security", part="table", query="""
        SELECT c.oid::regclass::text,
          format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', c.oid::regclass)
        FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relforcerowsecurity"""),
    Damage(kind="drop a policy", part="policy", query="""
        SELECT quote_ident(p.polname) || ' on ' || p.polrelid::regclass,
          format('DROP POLICY %I ON %s', p.polname, p.polrelid::regclass)
        FROM pg_policy p"""),
    Damage(kind="lose a grant", part="grant", query="""
        SELECT c.oid::regclass::text || ' to ' || CASE g.grantee WHEN 0 THEN 'public'
            ELSE pg_get_userbyid(g.grantee) END,
          format('REVOKE ALL ON %s %s FROM %s',
            CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
            c.oid::regclass, CASE g.grantee WHEN 0 THEN 'PUBLIC'
            ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) g
        WHERE g.grantee <> c.relowner AND g.grantor = c.relowner
        GROUP BY c.oid, c.relkind, g.grantee"""),
    Damage(kind="lose a grant on a column", part="grant", query="""
        SELECT c.oid::regclass::text || '.' || quote_ident(a.attname) || ' to '
            || CASE g.grantee WHEN 0 THEN 'public'
            ELSE pg_get_userbyid(g.grantee) END,
          format('REVOKE ALL (%I) ON %s FROM %s', a.attname, c.oid::regclass,
            CASE g.grantee WHEN 0 THEN 'PUBLIC'
            ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        CROSS JOIN LATERAL aclexplode(a.attacl) g
        WHERE NOT a.attisdropped AND g.grantee <> c.relowner
          AND g.grantor = c.relowner
        GROUP BY c.oid, a.attname, g.grantee"""),
    Damage(kind="drop a function", part="function", query="""
        SELECT p.oid::regprocedure::text,
          format('DROP ROUTINE %s', p.oid::regprocedure) FROM pg_proc p"""),
    Damage(kind="change the body of a function", part="function", query="""
        SELECT p.oid::regprocedure::text,
          format('UPDATE pg_proc SET prosrc = prosrc || '' '' '
            'WHERE oid = %L::regprocedure', p.oid::regprocedure)
        FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.prosqlbody IS NULL AND l.lanname NOT IN ('c', 'internal')"""),
    Damage(kind="drop a default", part="table", query="""
        SELECT c.oid::regclass::text, format('ALTER TABLE %s ALTER COLUMN %I '
          'DROP DEFAULT', c.oid::regclass, a.attname)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind IN ('r', 'p', 'f') AND a.atthasdef AND a.attgenerated = ''
          AND a.attnum > 0 AND NOT a.attisdropped"""),
    Damage(kind="allow NULL in a column", part="table", query="""
        SELECT c.oid::regclass::text, format('ALTER TABLE %s ALTER COLUMN %I '
          'DROP NOT NULL', c.oid::regclass, a.attname)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind IN ('r', 'p', 'f') AND a.attnotnull AND a.attnum > 0
          AND NOT a.attisdropped AND a.attidentity = '' AND a.attinhcount = 0
          AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
            AND i.indisprimary AND a.attnum = ANY (i.indkey))"""),
    Damage(kind="rename a column", part="table", query="""
        SELECT c.oid::regclass::text, format('ALTER TABLE %s RENAME COLUMN %I '
          'TO opskit_mutant', c.oid::regclass, a.attname)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0
          AND NOT a.attisdropped AND a.attinhcount = 0"""),
    Damage(kind="drop a column", part="table", query="""
        SELECT c.oid::regclass::text, format('ALTER TABLE %s DROP COLUMN %I',
          c.oid::regclass, a.attname)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relkind IN ('r', 'p', 'f') AND a.attnum > 0
          AND NOT a.attisdropped AND a.attinhcount = 0"""),
    Damage(kind="change a sequence's increment", part="sequence", query="""
        SELECT c.oid::regclass::text, format('ALTER SEQUENCE %s INCREMENT BY %s',
          c.oid::regclass, CASE s.seqincrement WHEN 2 THEN 3 ELSE 2 END)
        FROM pg_class c JOIN pg_sequence s ON s.seqrelid = c.oid"""),
    Damage(kind="rename an enum label", part="type", query="""
        SELECT t.oid::regtype::text, format('ALTER TYPE %s RENAME VALUE %L '
          'TO ''opskit_mutant''', t.oid::regtype, e.enumlabel)
        FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid"""),
    Damage(kind="drop a publication", part="publication", query="""
        SELECT quote_ident(p.pubname), format('DROP PUBLICATION %I', p.pubname)
        FROM pg_publication p"""),
    Damage(kind="disable an event trigger", part="event trigger", query="""
        SELECT quote_ident(e.evtname),
          format('ALTER EVENT TRIGGER %I DISABLE', e.evtname)
        FROM pg_event_trigger e WHERE e.evtenabled <> 'D'"""),
)  # fmt: skip

ADD_A_GRANT: LiteralString = """
    SELECT c.oid::regclass::text, format('GRANT SELECT ON %s TO pg_monitor',
      c.oid::regclass)
    FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
      AND pg_get_userbyid(c.relowner) <> 'pg_monitor'
      AND NOT EXISTS (SELECT FROM aclexplode(c.relacl) g
        WHERE g.grantee <> 0 AND pg_get_userbyid(g.grantee) = 'pg_monitor')"""

# By kind of `schema`: its name after that of its schema, and what adds it.
STRAYS = (
    ("table", "", "CREATE TABLE {name} (a integer)"),
    ("view", "", "CREATE VIEW {name} AS SELECT 1 AS a"),
    ("sequence", "", "CREATE SEQUENCE {name}"),
    ("function", "()", "CREATE FUNCTION {name}() RETURNS integer LANGUAGE sql "
     "AS 'SELECT 1'"),
    ("type", "", "CREATE TYPE {name} AS ENUM ('a')"),
)  # fmt: skip


_DROPPING: LiteralString = """
    SELECT o.name, 'DROP ' || upper(replace(replace(i.type, '-', ' '), ' object', ''))
      || ' ' || i.identity
    FROM ([listed]) AS o (name, state, class, oid)
    CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) AS i
    WHERE i.identity IS NOT NULL"""
_NOT_BY_IDENTITY = ("pg_class", "pg_largeobject")


def user_schemas(connection: Connection) -> list[str]:
    """Return the schemas that objects can be added to, quoted where need be."""
    return query_column(
        connection,
        """
        SELECT quote_ident(nspname) FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1
        """,
    )


def dropping(kind: str) -> Damage | None:
    """Return how to drop objects of a kind that has no damage of its own here.

    What `schema` finds by way of a relation is not dropped so: that would drop the
    relation. Nor are large objects, which it lists many at once.
    """
    if any(each.part == kind and each.kind.startswith("drop") for each in DAMAGES):
        return None
    if any(f"'{each}'::regclass," in QUERIES[kind] for each in _NOT_BY_IDENTITY):
        return None
    listed = QUERIES[kind].replace("%(excluded)s", "'{}'").replace("%%", "%")
    dropping = _DROPPING.replace("[listed]", listed)
    article = "an" if kind[0] in "aeiou" else "a"
    return Damage(kind=f"drop {article} {kind}", part=kind, query=dropping)


# So many may be refused before those asked for are found.
_REFUSED_MAX = 50
_LARGE_OBJECT = "large object"
_RELATIONS = ("table", "view", "materialized view")


class Parts:
    """The parts of the comparison of structure, each by itself."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._equal: dict[str, bool] = {}
        self.names: dict[str, list[str]] = {kind: [] for kind in schema.KINDS}
        for each in ground.copy.schema:
            self.names.setdefault(each.kind, []).append(each.name)

    def check(self, part: str, connection: Connection) -> Check:
        observed = schema.take(connection, kinds=[part])
        expected = self._ground.copy.schema
        # All of them: what is shortened for people may be the very one looked for.
        return structure.check_kind(
            part, expected, observed, names_shown=len(expected) + len(observed)
        )

    def is_equal(self, part: str) -> bool:
        """Return whether a part is equal while nothing is planted.

        Where it is not, whatever is planted would seem to be noticed.
        """
        if part not in self._equal:
            check = self.check(part, self._ground.connection)
            self._equal[part] = bool(check.passed)
        return self._equal[part]

    def candidate(
        self, part: str, statements: Sequence[Statement], text: str, names: list[str]
    ) -> Candidate:
        def look(connection: Connection) -> Check:
            return self.check(part, connection)

        return Candidate(target=text, statements=statements, look=look, names=names)


def kinds(ground: Ground, seed: str) -> dict[str, Supply]:
    """Return each kind of damage to objects that the copy has something for."""
    parts = Parts(ground)
    generic = [dropping(kind) for kind in schema.KINDS]
    found = {
        each.kind: _damages(ground, parts, each, seed)
        for each in (*DAMAGES, *generic)
        if each and parts.names.get(each.part)
    }
    if any(parts.names[kind] for kind in _RELATIONS):
        found["add a grant"] = _grants(ground, parts, seed)
    if parts.names.get(_LARGE_OBJECT):
        supply = _large_objects(ground, parts, seed)
        found["change the owner of a large object"] = supply
    found["add a stray object"] = _strays(ground, parts, seed)
    return found


def _sampled(
    ground: Ground, query: LiteralString, names: Sequence[str], seed: str
) -> list[tuple[str, str]]:
    """Return names and statements of a query, in an order that the seed decides.

    Only the names given count. The order does not depend on object numbers, which
    differ from one restore to the next.
    """
    # Without parameters: the percent signs in the query are the server's format().
    statement = sql.SQL(
        "SELECT q.name, q.statement FROM ({}) AS q (name, statement) "
        "WHERE q.name = ANY ({}::text[]) "
        'ORDER BY hashtextextended((q.name || q.statement) COLLATE "C", {}), 1, 2 '
        "LIMIT {}"
    ).format(
        sql.SQL(query),
        sql.Literal(list(names)),
        sql.Literal(_salt(seed)),
        sql.Literal(ground.number + _REFUSED_MAX),
    )
    rows = ground.connection.execute(statement).fetchall() if names else []
    return [(name, text) for name, text in rows]


def _damages(ground: Ground, parts: Parts, damage: Damage, seed: str) -> Supply:
    part = damage.part
    if parts.is_equal(part):
        for name, text in _sampled(
            ground, damage.query, parts.names[part], f"{seed}/{damage.kind}"
        ):
            yield parts.candidate(part, [sql.SQL(text)], text, [name])


def _grants(ground: Ground, parts: Parts, seed: str) -> Supply:
    if parts.is_equal("grant"):
        relations = [name for kind in _RELATIONS for name in parts.names[kind]]
        for name, text in _sampled(
            ground, ADD_A_GRANT, relations, f"{seed}/add a grant"
        ):
            named = [name, ROLE]
            yield parts.candidate("grant", [sql.SQL(text)], text, named)


def _large_objects(ground: Ground, parts: Parts, seed: str) -> Supply:
    theirs = any(ROLE in name for name in parts.names[_LARGE_OBJECT])
    if not theirs and parts.is_equal(_LARGE_OBJECT):
        for oid in large_objects(
            ground.connection, salt=_salt(f"{seed}/owner"), limit=ground.number
        ):
            damage = sql.SQL("ALTER LARGE OBJECT {} OWNER TO {}").format(
                sql.Literal(oid), sql.Identifier(ROLE)
            )
            yield parts.candidate(
                _LARGE_OBJECT, [damage], f"large object {oid}", [f"of {ROLE}"]
            )


def _strays(ground: Ground, parts: Parts, seed: str) -> Supply:
    """Yield objects that the source did not have: without end, in any database."""
    rng = random.Random(f"{seed}/strays")  # noqa: S311 - the same seed, the same mutants
    schemas = user_schemas(ground.connection)
    before = [] if schemas else [sql.SQL("CREATE SCHEMA opskit_mutant")]
    strays = [each for each in STRAYS if parts.is_equal(each[0])]
    for number in itertools.count(1) if strays else ():
        home = rng.choice(schemas) if schemas else "opskit_mutant"
        name = f"{home}.opskit_mutant_{number}"
        part, suffix, template = rng.choice(strays)
        text = template.format(name=name)
        statements = [*before, sql.SQL(text)]
        yield parts.candidate(part, statements, text, [f"{name}{suffix}"])


def _salt(seed: str) -> int:
    return random.Random(seed).getrandbits(63)  # noqa: S311 - as above
