"""Roles: split into statements, and only those about roles that are missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.postgres.connect import statements
from opskit.postgres.roles import Globals, created_roles, role_statements

SCRIPT = """\
--
-- PostgreSQL database cluster dump
--

\\restrict AbCd

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';

--
-- Roles
--

CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER INHERIT LOGIN PASSWORD 'SCRAM-SHA-256$4096:x$y:z';
COMMENT ON ROLE app IS 'it''s; "the" app
-- and no comment';
CREATE ROLE "odd; ""x"" y";
ALTER ROLE "odd; ""x"" y" WITH NOSUPERUSER;
CREATE ROLE ops;
ALTER ROLE ops WITH SUPERUSER;

--
-- User Configurations
--

--
-- User Config "app"
--

ALTER ROLE app SET search_path TO 'a; b', 'c';


--
-- Role memberships
--

GRANT app TO ops WITH INHERIT TRUE GRANTED BY ops;
GRANT ops TO "odd; ""x"" y" WITH ADMIN OPTION, INHERIT TRUE GRANTED BY ops;


\\unrestrict AbCd

--
-- PostgreSQL database cluster dump complete
--
"""
SETTINGS = ["SET default_transaction_read_only = off"]
ENCODING = ["SET client_encoding = 'UTF8'"]
OF_APP = [
    "CREATE ROLE app",
    "ALTER ROLE app WITH NOSUPERUSER INHERIT LOGIN PASSWORD 'SCRAM-SHA-256$4096:x$y:z'",
    "COMMENT ON ROLE app IS 'it''s; \"the\" app\n-- and no comment'",
]
OF_ODD = [
    'CREATE ROLE "odd; ""x"" y"',
    'ALTER ROLE "odd; ""x"" y" WITH NOSUPERUSER',
]
OF_OPS = ["CREATE ROLE ops", "ALTER ROLE ops WITH SUPERUSER"]
SETTING_OF_APP = ["ALTER ROLE app SET search_path TO 'a; b', 'c'"]
APP_TO_OPS = ["GRANT app TO ops WITH INHERIT TRUE GRANTED BY ops"]
OPS_TO_ODD = [
    'GRANT ops TO "odd; ""x"" y" WITH ADMIN OPTION, INHERIT TRUE GRANTED BY ops'
]


def _script(*parts: list[str]) -> str:
    return "".join(f"{statement};\n" for part in parts for statement in part)


def test_a_script_is_split_into_statements() -> None:
    """Quotes hold semicolons and line ends; comments and psql's own lines go."""
    assert list(statements(SCRIPT)) == [
        *SETTINGS,
        *ENCODING,
        *OF_APP,
        *OF_ODD,
        *OF_OPS,
        *SETTING_OF_APP,
        *APP_TO_OPS,
        *OPS_TO_ODD,
    ]


def test_a_last_statement_may_lack_its_semicolon() -> None:
    """What stands at the end is a statement too, but for empty lines."""
    assert list(statements("SET a = 1;\nCREATE ROLE b")) == [
        "SET a = 1",
        "CREATE ROLE b",
    ]
    assert list(statements("SET a = 1;\n\n \n")) == ["SET a = 1"]


ALL = {"app", "ops", 'odd; "x" y'}


@pytest.mark.parametrize(
    ("existing", "kept"),
    [
        (set(), [*SETTINGS, *OF_APP, *OF_ODD, *OF_OPS, *SETTING_OF_APP,
                 *APP_TO_OPS, *OPS_TO_ODD]),
        ({"app"}, [*SETTINGS, *OF_ODD, *OF_OPS, *APP_TO_OPS, *OPS_TO_ODD]),
        # Who exists may not grant it here, so it is the restoring role that does.
        ({"ops"}, [*SETTINGS, *OF_APP, *OF_ODD, *SETTING_OF_APP,
                   "GRANT app TO ops WITH INHERIT TRUE",
                   OPS_TO_ODD[0].removesuffix(" GRANTED BY ops")]),
        ({'odd; "x" y'}, [*SETTINGS, *OF_APP, *OF_OPS, *SETTING_OF_APP, *APP_TO_OPS,
                          *OPS_TO_ODD]),
        (ALL, SETTINGS),
        ({"APP", "o", "odd"}, [*SETTINGS, *OF_APP, *OF_ODD, *OF_OPS, *SETTING_OF_APP,
                               *APP_TO_OPS, *OPS_TO_ODD]),
    ],
    ids=["none", "app", "ops", "odd", "all", "others"],
)  # fmt: skip
def test_roles_that_exist_are_left_as_they_are(
    existing: set[str], kept: list[str]
) -> None:
    """Of a role that is there no password and no right changes."""
    assert role_statements(SCRIPT, ALL - existing, existing) == kept


def test_only_wanted_roles_are_made() -> None:
    """A membership in one that is neither wanted nor there is left out."""
    assert role_statements(SCRIPT, {'odd; "x" y'}, {"app"}) == [*SETTINGS, *OF_ODD]


def test_attributes_that_only_superusers_may_set_are_left_out() -> None:
    """Neither yes nor no; a password or a name of the same words stays."""
    script = (
        'CREATE ROLE "NOSUPERUSER WITH";\n'
        'ALTER ROLE "NOSUPERUSER WITH" WITH NOSUPERUSER INHERIT REPLICATION NOBYPASSRLS'
        " CONNECTION LIMIT 5 PASSWORD ' SUPERUSER';\n"
        "GRANT SET ON PARAMETER work_mem TO app;\n"
        "GRANT app TO b WITH ADMIN OPTION GRANTED BY app;\n"
    )

    assert role_statements(
        script, {"app", "b", "NOSUPERUSER WITH"}, set(), as_superuser=False
    ) == [
        'CREATE ROLE "NOSUPERUSER WITH"',
        'ALTER ROLE "NOSUPERUSER WITH" WITH INHERIT CONNECTION LIMIT 5 '
        "PASSWORD ' SUPERUSER'",
        "GRANT app TO b WITH ADMIN OPTION",
    ]


@pytest.mark.parametrize(
    "statement", ["DROP ROLE app", "SELECT 1", "CREATE TABLESPACE t LOCATION '/x'"]
)
def test_other_statements_are_left_out(statement: str) -> None:
    """What is neither about a role nor a setting is not run on somebody's server."""
    script = f"{statement};\nCREATE ROLE a;\n"

    assert role_statements(script, {"a", "app"}, set()) == ["CREATE ROLE a"]


_identifiers = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
)


@given(st.lists(st.tuples(_identifiers, _identifiers), max_size=5))
def test_names_and_values_never_end_a_statement(roles: list[tuple[str, str]]) -> None:
    """Whatever roles and comments hold, each statement comes out whole."""
    expected = []
    for name, value in roles:
        identifier = '"' + name.replace('"', '""') + '"'
        literal = "'" + value.replace("'", "''") + "'"
        expected.append(f"CREATE ROLE {identifier}")
        expected.append(f"COMMENT ON ROLE {identifier} IS {literal}")
    script = "-- comment\n\n" + "".join(f"{each};\n-- more\n\n" for each in expected)

    assert list(statements(script)) == expected
    assert role_statements(script, set(), {name for name, _value in roles}) == []
    assert created_roles(script) == {name for name, _value in roles}


@pytest.mark.parametrize("character", ["\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_comment_goes_on_to_its_line_feed(character: str) -> None:
    """A role's name in a comment must not become a statement."""
    script = f'-- User Config "a{character}ALTER ROLE x SUPERUSER;"\nCREATE ROLE y;\n'

    assert list(statements(script)) == ["CREATE ROLE y"]


def test_the_roles_that_are_made_are_known_by_name() -> None:
    """Quoted or not; one that is only spoken of is not among them."""
    script = SCRIPT.replace("CREATE ROLE ops;", "")
    found = Globals(
        roles_sql=f"{script}COMMENT ON ROLE app IS 'x;\nCREATE ROLE y;'".encode(),
        tablespaces_sql=b"",
        with_passwords=True,
    )

    assert found.roles() == {"app", 'odd; "x" y'}


def test_rights_to_parameters_come_along() -> None:
    """A missing role gets its rights to parameters, which pg_dumpall 15 writes."""
    script = "GRANT SET ON PARAMETER work_mem TO app;\n"

    assert role_statements(script, {"app"}, set()) == [script.removesuffix(";\n")]
    assert role_statements(script, set(), {"app"}) == []
