"""The databases that are backed up: of a size, or of a number of tables."""

from __future__ import annotations

from benchmarks.servers import Server

SIZES_MB = {"small": 50, "medium": 500, "large": 2000}
SMALL_TABLES = 200
_MB = 1_000_000
# What one row is in a dump, in bytes, and which part of all is of its kind.
_ACCOUNT_BYTES, _ACCOUNT_PART = 97, 0.30
_HISTORY_BYTES, _HISTORY_PART = 60, 0.05
_ARTICLE_BYTES, _ARTICLE_PART = 2150, 0.20
_DOCUMENT_BYTES, _DOCUMENT_PART = 420, 0.20
_BLOB_BYTES, _BLOB_PART = 32_790, 0.20
_SMALL_BYTES, _SMALL_PART = 45, 0.05
_TABLES_A_TRANSACTION = 500

_MADE = """\
SELECT setseed(0.5);
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers
    (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_history
    (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches SELECT i, 0, '' FROM generate_series(1, {branches}) i;
INSERT INTO pgbench_tellers
    SELECT i, 1 + i / 10, 0, '' FROM generate_series(1, {branches} * 10) i;
INSERT INTO pgbench_accounts
    SELECT i, 1 + i / 100000, 0, '' FROM generate_series(1, {accounts}) i;
ALTER TABLE pgbench_accounts ADD PRIMARY KEY (aid);
INSERT INTO pgbench_history
    SELECT 1 + i % 10, 1, 1 + (random() * {accounts})::int, (random() * 5000)::int,
           timestamp '2026-01-01' + i * interval '1.7 seconds'
    FROM generate_series(1, {history}) i;
CREATE INDEX pgbench_history_mtime ON pgbench_history (mtime);

-- Half of a text comes out of a hundred sentences, half is told for the first time.
CREATE TABLE articles (id bigint, title text NOT NULL, body text NOT NULL);
INSERT INTO articles
    SELECT i, 'Article ' || i || ' ' || md5(i::text),
        (SELECT string_agg(
            repeat(md5((random() * 99)::int::text), 3) || E'.\\n' ||
            md5(random()::text || j) || md5(random()::text) || md5(j || ' ' || i), ' ')
         FROM generate_series(1, 11) j WHERE i > 0)
    FROM generate_series(1, {articles}) i;
ALTER TABLE articles ADD PRIMARY KEY (id);
CREATE INDEX articles_title ON articles (title);

CREATE TABLE documents (id bigint, body jsonb NOT NULL);
INSERT INTO documents
    SELECT i, jsonb_build_object(
        'customer', jsonb_build_object('id', (random() * 1e6)::int,
            'name', 'Customer ' || md5(i::text), 'vip', i % 17 = 0),
        'state', (ARRAY['new', 'paid', 'sent', 'closed'])[1 + i % 4],
        'placed_at', timestamptz '2026-01-01 00:00:00+00' + i * interval '1 second',
        'lines', jsonb_build_array(
            jsonb_build_object('sku', md5((i % 5000)::text), 'price', (i % 9973) / 7.0),
            jsonb_build_object('sku', md5((i % 4999)::text), 'price', random())),
        'note', NULL)
    FROM generate_series(1, {documents}) i;
ALTER TABLE documents ADD PRIMARY KEY (id);
CREATE INDEX documents_customer ON documents ((body -> 'customer' ->> 'id'));

-- Digests of random numbers: nothing in them repeats, so nothing compresses.
CREATE TABLE blobs (id bigint, content bytea NOT NULL);
INSERT INTO blobs
    SELECT i, (SELECT string_agg(sha512((random()::text || j)::bytea), NULL)
               FROM generate_series(1, 256) j WHERE i > 0)
    FROM generate_series(1, {blobs}) i;
ALTER TABLE blobs ADD PRIMARY KEY (id);
"""

_TABLES_MADE = """\
CREATE SCHEMA many;
DO $$
BEGIN
    FOR t IN 1..{tables} LOOP
        EXECUTE format('CREATE TABLE many.t_%s (id int PRIMARY KEY, word text)', t);
        EXECUTE format('INSERT INTO many.t_%s SELECT i, md5((i * %s)::text) '
                       'FROM generate_series(1, {rows}) i', t, t);
        IF t % {at_once} = 0 THEN COMMIT; END IF;
    END LOOP;
END $$;
"""


def build(server: Server, database: str, *, size_mb: float) -> None:
    """Make a database whose dump holds about so many megabytes, always the same."""
    total = size_mb * _MB
    accounts = _rows(total, _ACCOUNT_PART, _ACCOUNT_BYTES)
    script = _MADE.format(
        accounts=accounts,
        branches=max(1, accounts // 100_000),
        history=_rows(total, _HISTORY_PART, _HISTORY_BYTES),
        articles=_rows(total, _ARTICLE_PART, _ARTICLE_BYTES),
        documents=_rows(total, _DOCUMENT_PART, _DOCUMENT_BYTES),
        blobs=_rows(total, _BLOB_PART, _BLOB_BYTES),
    )
    _create(server, database, script + _tables(SMALL_TABLES, total * _SMALL_PART))


def build_tables(server: Server, database: str, *, tables: int, size_mb: float) -> None:
    """Make a database of so many tables that share so many megabytes."""
    _create(server, database, _tables(tables, size_mb * _MB))


def table_names(server: Server, database: str) -> list[str]:
    """Return the user's tables, quoted as SQL writes them."""
    listed = server.psql(
        database,
        "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace NOT "
        "IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) "
        "ORDER BY relname;",
    )
    return listed.splitlines()


def _create(server: Server, database: str, script: str) -> None:
    server.psql("postgres", f"CREATE DATABASE {database};")
    # Frozen and flushed: the first who reads it must not have more to do than the next.
    server.psql(database, script + "VACUUM (ANALYZE, FREEZE);\nCHECKPOINT;\n")


def _tables(tables: int, total_bytes: float) -> str:
    return _TABLES_MADE.format(
        tables=tables,
        rows=_rows(total_bytes / tables, 1, _SMALL_BYTES),
        at_once=_TABLES_A_TRANSACTION,
    )


def _rows(total_bytes: float, part: float, row_bytes: int) -> int:
    return max(1, int(total_bytes * part / row_bytes))
