"""Ahead: extensions in the source's versions, and stand-ins, before all else."""

from __future__ import annotations

from opskit.catalog.manifest import DatabaseManifest
from opskit.preflight.concessions import Concessions
from opskit.restore.make import statements_ahead
from tests.unit import builders
from tests.unit.entries import entry, inventory, shortage

HSTORE = entry(11, "EXTENSION", "hstore", schema="")
CRON = entry(12, "EXTENSION", "pg_cron", schema="")
TABLE = entry(20, "TABLE", "hstore")


def _manifest() -> DatabaseManifest:
    return builders.manifest(inventory=inventory())


def _without(*missing: tuple[str, str]) -> Concessions:
    return Concessions(accepted=tuple(shortage(*each) for each in missing))


def test_extensions_come_in_the_sources_version_and_schema() -> None:
    """In the archive's order, by which one that another needs comes first."""
    assert statements_ahead([CRON, TABLE, HSTORE], _manifest(), Concessions()) == [
        'CREATE EXTENSION IF NOT EXISTS "pg_cron" WITH SCHEMA "cron" VERSION "1.6"',
        'CREATE EXTENSION IF NOT EXISTS "hstore" WITH SCHEMA "public" VERSION "1.8"',
    ]


def test_names_and_versions_are_quoted() -> None:
    """Whatever they are called, nothing in them means anything."""
    odd = {"name": 'odd"one', "version": '1.0"a', "schema": "My Schema"}
    manifest = builders.manifest(inventory=inventory(extensions=[odd]))
    entries = [entry(11, "EXTENSION", 'odd"one', schema="")]

    assert statements_ahead(entries, manifest, Concessions()) == [
        'CREATE EXTENSION IF NOT EXISTS "odd""one" WITH SCHEMA "My Schema" '
        'VERSION "1.0""a"'
    ]


def test_only_extensions_that_are_restored_are_made() -> None:
    """Not one that the archive does not hold, nor one that nothing is known of."""
    entries = [TABLE, entry(5, "COMMENT", "hstore"), entry(6, "EXTENSION", "unknown")]

    assert statements_ahead(entries, _manifest(), Concessions()) == []


def test_an_extension_whose_version_was_given_up_comes_in_the_servers() -> None:
    """That one alone, and it is made all the same."""
    given_up = _without(("extension-version", "pg_cron"), ("extension", "hstore"))

    assert statements_ahead([HSTORE, CRON], _manifest(), given_up) == [
        'CREATE EXTENSION IF NOT EXISTS "hstore" WITH SCHEMA "public" VERSION "1.8"',
        'CREATE EXTENSION IF NOT EXISTS "pg_cron" WITH SCHEMA "cron"',
    ]


def test_a_collation_that_is_missing_gets_a_stand_in() -> None:
    """Only one that was given up, by schema and name; both are quoted."""
    given_up = _without(("collation", "sales.Dansk"), ("role", "public.german"))

    assert statements_ahead([TABLE], _manifest(), given_up) == [
        'CREATE COLLATION "sales"."Dansk" (provider = libc, locale = \'C\')'
    ]


def test_stand_ins_come_before_extensions() -> None:
    """An extension may use a collation."""
    given_up = _without(("collation", "public.german"))
    first, second = statements_ahead([HSTORE], _manifest(), given_up)

    assert first.startswith("CREATE COLLATION ")
    assert second.startswith("CREATE EXTENSION ")
