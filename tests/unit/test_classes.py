"""The class of a migration, by the statements that it ran."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from opskit.release.classes import Kind, kind_of
from opskit.release.locks import Statement

NOW = datetime(2026, 1, 1, tzinfo=UTC)

ADDITIVE = [
    "BEGIN; SET lock_timeout = 1; SHOW transaction_isolation; COMMIT",
    "SELECT pg_catalog.version(), current_schema()",
    "SELECT relname FROM pg_class WHERE pg_catalog.pg_table_is_visible(oid)",
    "SELECT oid FROM pg_type WHERE oid = to_regtype($1)",
    "INSERT INTO alembic_version (version_num) VALUES ('a')",
    "UPDATE alembic_version SET version_num = 'a'",
    "DELETE FROM opskit.migrations WHERE id = $1",
    "CREATE TABLE t (i int PRIMARY KEY DEFAULT f())",
    "CREATE INDEX CONCURRENTLY ON t (lower(x))",
    "CREATE VIEW v AS SELECT f(x) FROM t",
    "CREATE FUNCTION f() RETURNS void BEGIN ATOMIC DELETE FROM t; END",
    "CREATE TYPE e AS ENUM ('a')",
    "ALTER TYPE e ADD VALUE 'b'",
    "ALTER TABLE t ADD a int",
    "ALTER TABLE t ADD a int NOT NULL DEFAULT 1",
    "ALTER TABLE t ADD a bigserial NOT NULL",
    "ALTER TABLE t ADD a int NOT NULL GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u NOT VALID",
    "ALTER TABLE t VALIDATE CONSTRAINT c",
    "ALTER TABLE t ALTER a SET DEFAULT 1",
    "ALTER TABLE t ATTACH PARTITION p DEFAULT",
    "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
    "DROP INDEX CONCURRENTLY i",
    "GRANT SELECT ON t TO r",
    "COMMENT ON TABLE t IS 'x'",
    "CREATE TABLE n (i int); UPDATE n SET i = 1; ALTER TABLE n ALTER i SET NOT NULL",
    "CREATE TABLE n (i int); REVOKE ALL ON n FROM PUBLIC; DROP TABLE n",
]
REWRITING = [
    "ALTER TABLE t ALTER a TYPE int8",
    "ALTER TABLE t SET LOGGED",
    "VACUUM (FULL) t",
    "CLUSTER t USING i",
]
DESTRUCTIVE = [
    "WITH d AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM d",
    "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
    "CREATE TABLE n AS WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
    "INSERT INTO t VALUES (1) ON CONFLICT (i) DO UPDATE SET i = 2",
    "SELECT f()",
    "SELECT app.version()",
    "SELECT * FROM t WHERE i = (SELECT f())",
    "SELECT setval('s', 1)",
    "INSERT INTO t SELECT f()",
    "EXECUTE p",
    "DO $$ BEGIN END $$",
    "CALL p()",
    "ALTER TABLE t SET SCHEMA s",
    "ALTER TABLE t ALTER a SET NOT NULL",
    "ALTER TABLE t ADD a int NOT NULL",
    "ALTER TABLE t ALTER a DROP DEFAULT",
    "ALTER TABLE t DROP a",
    "ALTER TABLE t DETACH PARTITION p",
    "ALTER TABLE t DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE t DISABLE TRIGGER ALL",
    "ALTER TABLE t OWNER TO r",
    "ALTER TABLE t RENAME a TO b",
    "ALTER TYPE e RENAME VALUE 'a' TO 'b'",
    "ALTER SEQUENCE s RESTART",
    "DROP OWNED BY r",
    "DROP TABLE t",
    "DROP POLICY p ON t",
    "DROP TRIGGER g ON t",
    "REVOKE SELECT ON t FROM r",
    "TRUNCATE t",
    "UPDATE t SET a = 1",
    "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
    "DELETE FROM app.migrations",
    "CREATE OR REPLACE VIEW v AS SELECT 1",
    "CREATE OR REPLACE FUNCTION f() RETURNS int RETURN 1",
    "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
    "EXPLAIN ANALYZE DELETE FROM t",
    "no SQL",
    # Not new, or not any more.
    "UPDATE n SET i = 1; CREATE TABLE n (i int)",
    "CREATE TABLE IF NOT EXISTS n (i int); UPDATE n SET i = 1",
    "CREATE TEMP TABLE t (i int); DROP TABLE t; DELETE FROM t",
    "CREATE TABLE n (i int); SET search_path = other; DELETE FROM n",
    "CREATE TABLE n (i int); ROLLBACK; DELETE FROM n",
    "CREATE TABLE n (i int); UPDATE n SET i = f()",
    "CREATE TABLE n (i int); TRUNCATE n, t",
]


def kind(text: str) -> Kind:
    return kind_of(
        [Statement(text=text, session=1, transaction="", began_at=NOW, ended_at=NOW)]
    )


@pytest.mark.parametrize("text", ADDITIVE)
def test_additive_is_what_is_known_to_be(text: str) -> None:
    """Neither data nor anything that the code before uses is lost."""
    assert kind(text) is Kind.ADDITIVE


@pytest.mark.parametrize("text", REWRITING)
def test_rewriting_is_what_writes_a_table_anew(text: str) -> None:
    """All of its data stays."""
    assert kind(text) is Kind.REWRITING


@pytest.mark.parametrize("text", DESTRUCTIVE)
def test_everything_else_is_destructive(text: str) -> None:
    """Wherever in a statement it stands."""
    assert kind(text) is Kind.DESTRUCTIVE


def test_a_table_is_new_for_the_statements_after_it() -> None:
    """Also where each of them is sent alone."""
    ran = [
        Statement(text=text, session=1, transaction="", began_at=NOW, ended_at=NOW)
        for text in ("CREATE TABLE n (i int)", "UPDATE n SET i = 1")
    ]

    assert kind_of(ran) is Kind.ADDITIVE
    assert kind_of(ran[1:]) is Kind.DESTRUCTIVE
