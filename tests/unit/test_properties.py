"""Properties: what belongs to the database itself goes to the copy's name alone."""

from __future__ import annotations

import pytest

from opskit.postgres.archive.entry import TocEntry
from opskit.postgres.database import property_script
from tests.unit.entries import entry


def _of_database(kind: str, definition: str, *, tag: str = "DATABASE shop") -> TocEntry:
    return entry(1, kind, tag, schema="", definition=definition)


def _properties(definition: str, *, tag: str = "shop") -> TocEntry:
    return _of_database("DATABASE PROPERTIES", definition, tag=tag)


SETTINGS = _properties(
    "ALTER DATABASE shop SET work_mem TO '8MB';\n"
    "ALTER ROLE app IN DATABASE shop SET search_path TO 'a', 'b';\n"
)
GRANT = _of_database("ACL", "GRANT CREATE ON DATABASE shop TO app;\n")
COMMENT = _of_database("COMMENT", "COMMENT ON DATABASE shop IS 'the shop';\n")
LABEL = _of_database(
    "SECURITY LABEL", "SECURITY LABEL FOR x ON DATABASE shop IS 'y';\n"
)


def test_all_that_belongs_to_the_database_comes_to_the_copy() -> None:
    """Settings, settings of roles, grants, comments and labels, in their order."""
    script = property_script([SETTINGS, GRANT, COMMENT, LABEL], "shop", "copy")

    assert script == (
        "ALTER DATABASE \"copy\" SET work_mem TO '8MB';\n"
        "ALTER ROLE app IN DATABASE \"copy\" SET search_path TO 'a', 'b';\n"
        'GRANT CREATE ON DATABASE "copy" TO app;\n'
        "COMMENT ON DATABASE \"copy\" IS 'the shop';\n"
        "SECURITY LABEL FOR x ON DATABASE \"copy\" IS 'y';\n"
    )


@pytest.mark.parametrize(
    "other",
    [
        entry(1, "TABLE", "shop", definition="CREATE TABLE DATABASE shop"),
        entry(1, "DATABASE", "shop", schema="", definition="CREATE DATABASE shop;"),
        _of_database("ACL", "GRANT SELECT ON TABLE shop TO app;", tag="shop"),
        _of_database("COMMENT", "COMMENT ON SCHEMA shop IS 'x';", tag="SCHEMA shop"),
        _of_database("ACL", "GRANT a;", tag="DATABASE shop_old"),
        _of_database("DEFAULT ACL", "ALTER DEFAULT PRIVILEGES;"),
        _properties("ALTER DATABASE shop_old SET a TO 'b';", tag="shop_old"),
    ],
)
def test_nothing_else_comes(other: TocEntry) -> None:
    """Neither other objects, though they share the name, nor other databases."""
    assert property_script([other], "shop", "copy") == ""


@pytest.mark.parametrize("target", ["copy", "My Copy", 'a"b', r"back\1slash\g<0>", "ü"])
def test_the_copys_name_is_quoted(target: str) -> None:
    """Whatever it is called: nothing in it means anything."""
    written = '"' + target.replace('"', '""') + '"'

    assert property_script([COMMENT], "shop", target) == (
        f"COMMENT ON DATABASE {written} IS 'the shop';\n"
    )


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("my-shop", '"my-shop"'),
        ("Shop", '"Shop"'),
        ('a"b', '"a""b"'),
        ("a b", '"a b"'),
        ("shop.x*", '"shop.x*"'),
        ("shop", '"shop"'),
        ("shop", "shop"),
    ],
)
@pytest.mark.parametrize("end", [" SET a TO 'b'", ""])
def test_the_sources_name_is_found_quoted_or_not(
    source: str, written: str, end: str
) -> None:
    """Also at the end of a statement; a dot in it is nothing but a dot."""
    made = [
        _properties(f"ALTER DATABASE {written}{end};\n", tag=source),
        _of_database(
            "ACL", f"GRANT x ON DATABASE {written}{end};\n", tag=f"DATABASE {written}"
        ),
    ]

    assert property_script(made, source, "copy") == (
        f'ALTER DATABASE "copy"{end};\nGRANT x ON DATABASE "copy"{end};\n'
    )


def test_later_mentions_are_somebodys_words() -> None:
    """A comment may say the source's name, and keeps saying it."""
    made = _of_database(
        "COMMENT", "COMMENT ON DATABASE shop IS 'was DATABASE shop ';\n"
    )

    assert property_script([made], "shop", "copy") == (
        "COMMENT ON DATABASE \"copy\" IS 'was DATABASE shop ';\n"
    )


def test_a_name_that_only_begins_like_the_sources_is_left() -> None:
    """Another database of that server is not renamed."""
    made = _properties("ALTER DATABASE shop_old SET a TO 'b';\n")

    assert property_script([made], "shop", "copy") == (
        "ALTER DATABASE shop_old SET a TO 'b';\n"
    )


def test_semicolons_and_line_ends_in_values_stay() -> None:
    """A statement ends where the server says, not at the first semicolon."""
    made = _properties(
        "ALTER DATABASE shop SET a TO 'x;\n-- y';\nALTER DATABASE shop SET b TO 'z';\n"
    )
    script = property_script([made], "shop", "copy")

    assert script == (
        "ALTER DATABASE \"copy\" SET a TO 'x;\n-- y';\n"
        "ALTER DATABASE \"copy\" SET b TO 'z';\n"
    )


@pytest.mark.parametrize(
    ("statement", "stays"),
    [
        ("ALTER DATABASE shop SET work_mem TO '8MB'", False),
        ("ALTER DATABASE shop SET \"work_mem\" TO '8MB'", False),
        ("ALTER DATABASE shop SET Work_Mem TO '8MB'", False),
        ("ALTER DATABASE shop SET work_mem = '8MB'", False),
        ("ALTER ROLE app IN DATABASE shop SET work_mem TO '8MB'", False),
        ("ALTER DATABASE shop SET work_mem_x TO '8MB'", True),
        ("ALTER DATABASE shop SET x.work_mem TO '8MB'", True),
        ("ALTER DATABASE shop SET search_path TO 'work_mem'", True),
        ("ALTER DATABASE shop WITH CONNECTION LIMIT = 5", True),
    ],
)
def test_a_setting_that_was_given_up_is_left_out(statement: str, stays: bool) -> None:
    """That one alone: for the database and for every role in it."""
    script = property_script(
        [_properties(f"{statement};\n"), COMMENT],
        "shop",
        "shop",
        without_settings={"work_mem"},
    )

    assert script.count(";\n") == 1 + stays
    assert ("ALTER" in script) is stays


@pytest.mark.parametrize(
    ("statement", "stays"),
    [
        ("ALTER ROLE app IN DATABASE shop SET a TO 'b'", False),
        ("ALTER ROLE \"app\" IN DATABASE shop SET a TO 'b'", False),
        ("ALTER ROLE app_x IN DATABASE shop SET a TO 'b'", True),
        ("ALTER ROLE \"App\" IN DATABASE shop SET a TO 'b'", True),
        ("ALTER ROLE ops IN DATABASE shop SET app TO 'app'", True),
        ("ALTER DATABASE shop SET a TO 'ALTER ROLE app '", True),
    ],
)
def test_settings_of_a_role_that_is_missing_are_left_out(
    statement: str, stays: bool
) -> None:
    """That role's alone, quoted or not: the server would refuse them."""
    script = property_script(
        [_properties(f"{statement};\n"), COMMENT],
        "shop",
        "shop",
        without_roles={"app"},
    )

    assert script.count(";\n") == 1 + stays
    assert ("ALTER" in script) is stays


def test_without_grants_only_grants_are_left_out() -> None:
    """Settings and comments name no role that is missing."""
    every = [SETTINGS, GRANT, COMMENT, LABEL]
    script = property_script(every, "shop", "copy", with_grants=False)

    assert script == property_script([SETTINGS, COMMENT, LABEL], "shop", "copy")
    assert "GRANT" not in script
