"""Schemas that other projects ship: backed up, drilled and restored as they are.

`.ci/foreign-schemas FOLDER` fetches them. They have licences of their own, so none is
kept here; `TEST_OPSKIT_FOREIGN_SCHEMAS=FOLDER` tells where they are, and `foreign` in
`TEST_OPSKIT_REQUIRE` says that none may be missing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from opskit.catalog.manifest import of_database
from opskit.postgres import database
from opskit.postgres.connect import connect, quoted
from opskit.postgres.servers.throwaway import Server
from tests.conftest import MajorServer, majors
from tests.integration.test_restore import run_restore
from tests.support import back_up, execute, failed, run_drill, sets

_DATABASE = "designed_by_others"
_COPY = "copy of it"
_LOAD_SECONDS_MAX = 120


@dataclass(frozen=True, kw_only=True)
class Schema:
    """How many tables a schema has at least, and how many of them get rows here."""

    tables: int
    filled: int
    majors: tuple[int, ...]


SCHEMAS = {
    "bacula": Schema(tables=26, filled=24, majors=(18,)),
    "davical": Schema(tables=34, filled=34, majors=(15,)),
    "ejabberd": Schema(tables=41, filled=41, majors=(18,)),
    "icinga2-ido": Schema(tables=61, filled=61, majors=(18,)),
    # citext comes with the distribution's server, not with the wheel's.
    "icingadb": Schema(tables=61, filled=58, majors=(15,)),
    "kamailio": Schema(tables=71, filled=71, majors=(15,)),
    "kea": Schema(tables=55, filled=26, majors=(15, 18)),
    # Some of its functions are refused by servers newer than 15.
    "ledgersmb": Schema(tables=166, filled=110, majors=(15,)),
    "pdns": Schema(tables=7, filled=7, majors=(18,)),
    "sql-ledger": Schema(tables=67, filled=67, majors=(15,)),
    "tt-rss": Schema(tables=32, filled=31, majors=(18,)),
    "zabbix": Schema(tables=173, filled=170, majors=(18,)),
}

# Tries three rows in each table without any: first with a value in every column, then
# only where one must be. What a constraint or a trigger refuses is left out, and tried
# again when the tables that foreign keys lead to have rows.
_FILL = r"""
SET search_path = public;  -- their triggers rely on it
DO $fill$
DECLARE
    t regclass; i int; pass int; found boolean; names text; vals text;
BEGIN
    SET CONSTRAINTS ALL IMMEDIATE;
    FOR pass IN 1..4 LOOP FOR t IN SELECT oid FROM pg_class c WHERE relkind = 'r'
            AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
            ORDER BY relname LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %s)', t) INTO found;
        CONTINUE WHEN found;
        FOR i IN 1..3 LOOP
            SELECT string_agg(quote_ident(a.attname), ', '),
                string_agg(format('CAST(%s AS %s)', CASE
                    WHEN f.target IS NOT NULL THEN
                        format('(SELECT %I FROM %s LIMIT 1 OFFSET %s)', f.target, f.origin, i - 1)
                    WHEN e.enumlabel IS NOT NULL THEN quote_literal(e.enumlabel)
                    WHEN b.typcategory IN ('N', 'T') THEN quote_literal(i)
                    WHEN b.typcategory = 'B' THEN quote_literal(i % 2 = 0)
                    WHEN b.typcategory = 'D' THEN
                        quote_literal(timestamptz '2024-02-28 23:59:59.5Z' + i * '1 day'::interval)
                    WHEN b.typcategory = 'I' THEN quote_literal('2001:db8::' || i)
                    WHEN b.typcategory = 'A' THEN quote_literal('{}')
                    WHEN b.typname = 'bytea' THEN  -- of a digest's size
                        quote_literal('\x' || repeat('00ff5c0a', 4) || '0000000' || i)
                    WHEN b.typname LIKE 'json%' THEN format('''{"k": %s}''', i)
                    WHEN b.typname = 'uuid' THEN
                        quote_literal('00000000-0000-4000-8000-00000000000' || i)
                    WHEN b.typname = 'macaddr' THEN quote_literal('08:00:2b:01:02:0' || i)
                    ELSE quote_literal(i || E'\\.\t"\u00e9''\n') END,
                    format_type(a.atttypid, a.atttypmod)), ', ')
                INTO names, vals
                FROM pg_attribute a JOIN pg_type d ON d.oid = a.atttypid
                JOIN pg_type b ON b.oid = coalesce(nullif(d.typbasetype, 0), d.oid)
                LEFT JOIN pg_enum e ON e.enumtypid = b.oid AND e.enumsortorder = 1
                LEFT JOIN LATERAL (
                    SELECT confrelid::regclass AS origin, r.attname AS target
                    FROM pg_constraint JOIN pg_attribute r ON r.attrelid = confrelid
                    AND r.attnum = confkey[array_position(conkey, a.attnum)]
                    WHERE contype = 'f' AND conrelid = t LIMIT 1) f ON true
                WHERE a.attrelid = t AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = '' AND a.attidentity = ''
                AND (pass < 3 OR a.attnotnull AND NOT a.atthasdef);
            BEGIN
                IF names IS NULL THEN
                    EXECUTE format('INSERT INTO %s DEFAULT VALUES', t);
                ELSE
                    EXECUTE format('INSERT INTO %s (%s) VALUES (%s)', t, names, vals);
                END IF;
            EXCEPTION WHEN OTHERS THEN NULL; END;
        END LOOP;
    END LOOP; END LOOP;
END $fill$
"""


def missing(reason: str) -> NoReturn:
    """Skip a test for want of something, or fail it where that is demanded."""
    if "foreign" in os.environ.get("TEST_OPSKIT_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)


def script_of(name: str) -> Path:
    """Return the script that loads a schema."""
    folder = os.environ.get("TEST_OPSKIT_FOREIGN_SCHEMAS")
    if not folder:
        missing("TEST_OPSKIT_FOREIGN_SCHEMAS names no folder of foreign schemas")
    script = Path(folder) / name / "load.sql"
    if not script.is_file():
        missing(f"there is no {script}: .ci/foreign-schemas has not fetched it")
    return script


def load(running: Server, url: str, script: Path) -> None:
    """Load a schema the way its project does: with psql, up to the first error."""
    psql = running.installation.program("psql")
    finished = subprocess.run(
        [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PGOPTIONS": "-c client_min_messages=error"},
        timeout=_LOAD_SECONDS_MAX,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr.decode()[-2000:]


def names(running: Server, statement: str) -> set[str]:
    """Return the names that a query gives."""
    with connect(running.url(), purpose="test") as connection:
        return {name for (name,) in connection.execute(statement.encode())}


@pytest.fixture
def foreign_database(server_of: MajorServer) -> Iterator[Callable[[str, int], str]]:
    """Return a function that makes a database of a schema; it and its roles go after."""
    used: list[tuple[Server, set[str]]] = []
    roles = "SELECT rolname FROM pg_roles"

    def make(name: str, major: int) -> str:
        script = script_of(name)
        if major not in majors():
            missing(f"there is no server of major {major} here")
        running = server_of(major)
        used.append((running, names(running, roles)))
        create = f"CREATE DATABASE {_DATABASE} TEMPLATE template0 ENCODING 'UTF8'"
        with connect(running.url(), purpose="test") as connection:
            database.run_script(connection, create)
        load(running, running.url(_DATABASE), script)
        execute(running.url(_DATABASE), _FILL)
        return running.url(_DATABASE)

    yield make
    for running, before in used:
        with connect(running.url(), purpose="test") as connection:
            for each in (_DATABASE, _COPY):
                database.drop(connection, each)
            for role in names(running, roles) - before:
                database.run_script(connection, f"DROP ROLE {quoted(role)}")


def counts(tables: Any) -> tuple[int, int]:
    """Return how many tables there are, and how many have rows."""
    return len(tables), sum(table.rows > 0 for table in tables)


@pytest.mark.parametrize(
    ("name", "major"),
    [(name, major) for name, schema in SCHEMAS.items() for major in schema.majors],
)
def test_a_drill_passes_what_others_designed(
    name: str,
    major: int,
    foreign_database: Callable[[str, int], str],
    store_dir: Path,
) -> None:
    """The whole schema came, rows in most of its tables, and nothing differs."""
    manifest = back_up(foreign_database(name, major), store_dir).manifest
    tables, filled = counts(of_database(manifest).tables)
    print(f"{name} on {major}: {tables} tables, {filled} with rows")

    assert tables >= SCHEMAS[name].tables
    assert filled >= SCHEMAS[name].filled
    assert failed(run_drill(sets(store_dir)[0])) == []


def test_a_restore_gives_what_others_designed(
    server_of: MajorServer,
    foreign_database: Callable[[str, int], str],
    store_dir: Path,
) -> None:
    """Beside its source, on the same server, the copy has every table and row."""
    manifest = back_up(foreign_database("ledgersmb", 15), store_dir).manifest

    result = run_restore(sets(store_dir)[0], server_of(15), _COPY)

    assert (
        result.tables
        == len(of_database(manifest).tables)
        >= SCHEMAS["ledgersmb"].tables
    )
    assert result.rows == sum(table.rows for table in of_database(manifest).tables) > 0
    assert [check for check in result.checks if not check.passed] == []
