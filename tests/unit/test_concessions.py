"""Concessions: what is done without, no more than was accepted, and all of it said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from opskit.catalog.manifest import DatabaseManifest
from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.inventory import Inventory, Locale
from opskit.preflight.concessions import Concessions, accept
from tests.unit import builders
from tests.unit.entries import entry, shortage

LOCALE = Locale(provider="icu", collate="de_DE", ctype="de_DE", locale="de")
STAND_IN = Locale(provider="libc", collate="C", ctype="C")
FLAGS = ("without_owners", "without_tablespaces", "without_locale", "names_everything")

ENTRIES = [
    entry(1, "ENCODING", "ENCODING", schema=""),
    entry(2, "SCHEMA", "cron", schema=""),
    entry(3, "EXTENSION", "pg_cron", 2, schema=""),
    entry(4, "EXTENSION", "hstore", schema=""),
    entry(5, "TABLE", "settings", 4),
    entry(6, "TABLE", "plain"),
    entry(7, "VIEW", "of_jobs", 3, 6),
    entry(8, "VIEW", "of_view", 7),
    entry(9, "COLLATION", "german"),
    entry(10, "TABLE", "names", 9),
    entry(13, "TABLE", "german"),
    # Before what it needs, as attached partitions come.
    entry(11, "RULE", "late", 12),
    entry(12, "VIEW", "last", 8),
    entry(20, "TABLE DATA", "job", schema="cron"),
    entry(21, "TABLE DATA", "plain", 6),
    entry(22, "TABLE DATA", "job"),
    entry(23, "SEQUENCE SET", "job_seq", schema="cron"),
    entry(24, "SEQUENCE SET", "plain_seq"),
    entry(25, "TABLE DATA", "settings", 5),
]
RECORD: dict[str, Any] = {"rows": 1, "digest": "0" * 32}
VALUE: dict[str, Any] = {"last_value": 1, "is_called": True}


def test_an_extension_is_left_out_without_its_library() -> None:
    """As where the extension itself is missing."""
    without = [
        accept(ENTRIES, [shortage(what, "pg_cron")], _manifest()).left_out
        for what in ("library", "extension")
    ]

    assert without[0] == without[1]
    assert without[0]


def test_what_only_a_superuser_may_own_is_left_out_with_what_needs_it() -> None:
    """No other entry of the same name, and nothing else."""
    entries = [
        entry(1, "FOREIGN DATA WRAPPER", "w", schema=""),
        entry(2, "SERVER", "s", 1, schema=""),
        entry(3, "TABLE", "w"),
        entry(4, "EVENT TRIGGER", "w", schema=""),
    ]

    found = accept(entries, [shortage("FOREIGN DATA WRAPPER", "w")], _manifest())

    assert found.left_out == {1, 2}
    names = [name for name, _reason in found.unmade(entries)]
    assert names[:2] == ["FOREIGN DATA WRAPPER w", "SERVER s"]


def _manifest() -> DatabaseManifest:
    return builders.manifest(
        tables=[
            {"schema": "cron", "name": "job", "extension": "pg_cron", **RECORD},
            {"schema": "public", "name": "job", **RECORD},
            {"schema": "public", "name": "plain", **RECORD},
            {"schema": "public", "name": "settings", "extension": "hstore", **RECORD},
        ],
        sequences=[
            {"schema": "cron", "name": "job_seq", "extension": "pg_cron", **VALUE},
            {"schema": "public", "name": "plain_seq", **VALUE},
        ],
    )


def _accepted(
    *missing: tuple[str, str], entries: Sequence[TocEntry] = ENTRIES
) -> Concessions:
    return accept(entries, [shortage(*each) for each in missing], _manifest())


def _left_out(*missing: tuple[str, str], **entries: Any) -> set[int]:
    return set(_accepted(*missing, **entries).left_out)


def test_without_a_shortage_nothing_is_done_without() -> None:
    """Everything is restored, compared and named."""
    found = _accepted()

    assert found == Concessions()
    assert [getattr(found, flag) for flag in FLAGS] == [False, False, False, True]
    assert found.unmade(ENTRIES) == []
    assert found.inventory(Inventory(locale=LOCALE)).locale == LOCALE


def test_an_extension_goes_with_all_that_depends_on_it() -> None:
    """Through any number of steps, in whatever order, with its tables' rows."""
    assert _left_out(("extension", "pg_cron")) == {3, 7, 8, 11, 12, 20, 23}


def test_another_extension_and_its_rows_stay() -> None:
    """Each goes by its own name."""
    assert _left_out(("extension", "hstore")) == {4, 5, 25}
    assert _left_out(("extension", "cron")) == set()


@pytest.mark.parametrize(
    "missing",
    [
        ("extension-version", "pg_cron"),
        ("locale", "pg_cron"),
        ("provider", "icu"),
        ("setting", "pg_cron"),
        ("tablespace", "plain"),
        ("collation", "german"),
        ("role", "ops"),
    ],
)
def test_other_shortages_leave_no_object_out(missing: tuple[str, str]) -> None:
    """Not by a name that happens to be the same, nor because an owner is missing."""
    assert _left_out(missing) == set()


def test_a_missing_collation_is_replaced() -> None:
    """A stand-in takes its place, so that what depends on it is restored."""
    assert _left_out(("collation", "public.german")) == {9}
    assert _left_out(("collation", "other.german")) == set()


def test_a_table_that_needs_a_collation_of_a_lost_extension_goes() -> None:
    """The stand-in is for a collation alone, not for what else is missing."""
    found = _left_out(("collation", "public.german"), ("extension", "hstore"))

    assert found == {4, 5, 9, 25}


@pytest.mark.parametrize(
    ("role", "definition", "goes"),
    [
        ("app", "CREATE POLICY own ON public.t TO app USING (true);\n", True),
        ("app", "CREATE POLICY own ON public.t TO ann, app;\n", True),
        ("app", "CREATE POLICY p ON t FOR SELECT TO app WITH CHECK (true);\n", True),
        ("app", "CREATE POLICY own ON public.t TO ann, app, bob;\n", True),
        ("app", "CREATE POLICY own ON public.t TO app;\n", True),
        ("app", "CREATE USER MAPPING FOR app SERVER s;\n", True),
        ("An App", 'CREATE POLICY own ON public.t TO "An App";\n', True),
        ('a"b', 'CREATE POLICY own ON public.t TO "a""b", c;\n', True),
        ("a,b", 'CREATE POLICY own ON public.t TO "a,b";\n', True),
        ("app", "CREATE POLICY own ON public.t TO application;\n", False),
        ("app", "CREATE POLICY own ON public.app_t TO app_reader;\n", False),
        ("app", "CREATE POLICY own ON public.t TO bob USING ((a = 'app'));\n", False),
        ("app", 'CREATE POLICY "go TO them" ON public.t TO app;\n', True),
        ("App", "CREATE POLICY own ON public.t TO app;\n", False),
        ("app", "CREATE POLICY app ON public.t TO bob;\n", False),
        ("app", "CREATE POLICY own ON public.t TO bob USING (f(app, b));\n", False),
        ("app", "CREATE POLICY own ON public.t USING ((app = 1));\n", False),
        ("app", "CREATE USER MAPPING FOR bob SERVER app;\n", False),
        ("b", 'CREATE POLICY own ON public.t TO "a, b", c;\n', False),
    ],
)
@pytest.mark.parametrize("kind", ["POLICY", "USER MAPPING"])
def test_what_names_a_missing_role_goes(
    role: str, definition: str, goes: bool, kind: str
) -> None:
    """Only where a role is named, quoted or not; columns and others are no roles."""
    made = [entry(1, kind, "t own", definition=definition), entry(2, "TABLE", "t")]

    assert _left_out(("role", role), entries=made) == ({1} if goes else set())


@pytest.mark.parametrize("kind", ["FUNCTION", "VIEW", "TABLE", "COMMENT", "ACL"])
def test_other_texts_that_hold_the_roles_name_stay(kind: str) -> None:
    """Grants and owners are left out by pg_restore; the objects are restored."""
    made = [entry(1, kind, "t", definition="SELECT app FROM app;")]

    assert _left_out(("role", "app"), entries=made) == set()


@pytest.mark.parametrize(
    ("what", "flags"),
    [
        ("role", (True, False, False, False)),
        ("tablespace", (False, True, False, True)),
        ("locale", (False, False, True, True)),
        ("provider", (False, False, True, True)),
        ("setting", (False, False, False, True)),
        ("access-method", (False, False, False, True)),
        ("extension-version", (False, False, False, True)),
        ("collation", (False, False, False, True)),
        ("extension", (False, False, False, True)),
    ],
)
def test_a_concession_gives_up_its_own_alone(
    what: str, flags: tuple[bool, ...]
) -> None:
    """One kind of shortage takes nothing from the comparison of another."""
    found = _accepted((what, "x"))

    assert tuple(getattr(found, flag) for flag in FLAGS) == flags
    locale = found.inventory(Inventory(locale=LOCALE)).locale
    assert locale == (STAND_IN if flags[2] else LOCALE)
    assert found.subjects(what) == {"x"}
    assert found.subjects("other") == frozenset()


def test_what_is_left_out_ends_the_comparison_by_name() -> None:
    """A list that lacks something cannot be compared as a whole."""
    assert not _accepted(("extension", "pg_cron")).names_everything


def test_records_of_what_is_left_out_are_not_compared() -> None:
    """By kind, schema and name: the same name elsewhere is compared."""
    found = _accepted(("extension", "pg_cron"))
    made = _manifest()
    tables = found.kept(made.tables, "TABLE DATA", ENTRIES)
    sequences = found.kept(made.sequences, "SEQUENCE SET", ENTRIES)

    assert tables == made.tables[1:]
    assert sequences == made.sequences[1:]
    assert found.kept(made.tables, "SEQUENCE SET", ENTRIES) == made.tables
    assert Concessions().kept(made.tables, "TABLE DATA", ENTRIES) == made.tables


@pytest.mark.parametrize(
    ("what", "check"),
    [
        ("extension", "extension x and all that depends on it"),
        ("extension-version", "version of the extension x"),
        ("locale", "locale and order of the database"),
        ("provider", "locale and order of the database"),
        ("collation", "collation x"),
        ("setting", "setting x, and all other properties of the database"),
        ("access-method", "access method x"),
        ("tablespace", "tablespace x, and in which one anything lies"),
    ],
)
def test_what_is_not_checked_is_said_with_its_reason(what: str, check: str) -> None:
    """Each shortage that was accepted is in the list by its own name."""
    found = _accepted((what, "x"))

    assert (check, "the server has no x") in found.unmade(ENTRIES)


def test_without_a_role_the_whole_list_of_objects_is_not_checked() -> None:
    """Owners, grants and the state of the objects, which names owners."""
    assert _accepted(("role", "x")).unmade(ENTRIES) == [
        (
            "role x, owners and grants, properties of the database",
            "the server has no x",
        ),
        ("objects by name and state", "some were not restored"),
    ]


def test_everything_that_is_left_out_is_named() -> None:
    """Whatever kind it is, it is never passed over in silence."""
    needing = [
        *ENTRIES,
        entry(30, "TABLE", "runs", 3),
        entry(31, "TABLE DATA", "runs", 30),
    ]
    found = _accepted(("extension", "pg_cron"), entries=needing)
    names = [name for name, _reason in found.unmade(needing)]

    assert names == [
        "extension pg_cron and all that depends on it",
        "EXTENSION pg_cron",
        "VIEW public.of_jobs",
        "VIEW public.of_view",
        "RULE public.late",
        "VIEW public.last",
        "TABLE DATA cron.job",
        "SEQUENCE SET cron.job_seq",
        "TABLE public.runs",
        "TABLE DATA public.runs",
        "objects by name and state",
    ]


def test_a_collation_that_is_replaced_is_named_once() -> None:
    """By what is missing; what stands in for it is there."""
    found = _accepted(("collation", "public.german"))

    assert found.unmade(ENTRIES) == [
        ("collation public.german", "the server has no public.german"),
        ("objects by name and state", "some were not restored"),
    ]
