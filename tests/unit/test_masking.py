"""Masking: no password in any text that a person or a log is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.log import MASK, configure, hide, mask, masked
from opskit.operations.run import begin
from tests.unit.conftest import LoadConfig

# What a URL or a bare value of a connection string can hold without being escaped.
_passwords = st.text(
    st.characters(exclude_characters="@'\"&\\*", exclude_categories=["Z", "C"]),
    min_size=8,
)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://ops:hunter2@db/shop", "postgresql://ops:***@db/shop"),
        ("postgresql://:hunter2@db", "postgresql://:***@db"),
        ("a postgres://o:p:w@h/d b", "a postgres://o:***@h/d b"),
        ("s3://key:hunter2@bucket x://a:b@c", "s3://key:***@bucket x://a:***@c"),
        ("host=db password=hunter2 port=1", "host=db password=*** port=1"),
        ("password = 'two words' x", "password = *** x"),
        ("?sslmode=require&PassWord=hunter2&a=b", "?sslmode=require&PassWord=***&a=b"),
        ("postgresql://ops@db/shop at 12:30", "postgresql://ops@db/shop at 12:30"),
        ('role "password" does not exist', 'role "password" does not exist'),
        ("", ""),
    ],
)
def test_passwords_are_masked(text: str, masked: str) -> None:
    """Passwords in URLs and connection strings go, and nothing else does."""
    assert mask(text) == masked


@given(_passwords)
def test_any_password_is_masked(password: str) -> None:
    """Whatever it is, no password of a URL or a connection string is left."""
    url, conninfo = f"x://ops:{password}@db/shop", f"password={password} user=ops"

    assert mask(url) == "x://ops:***@db/shop"
    assert mask(conninfo) == "password=*** user=ops"


@given(st.lists(_passwords, max_size=3), st.text(max_size=20))
def test_known_secrets_are_masked_anywhere(secrets: list[str], text: str) -> None:
    """What is known to be secret goes wherever it stands; an empty one is none."""
    configure(run_id="abc123", form="json")
    hide("")
    assert mask("nothing is hidden") == "nothing is hidden"
    for secret in secrets:
        hide(secret)
    shown = mask(f" {text} ".join(["", *secrets, ""]))

    assert not any(f" {secret} " in shown for secret in secrets)


@pytest.mark.parametrize(
    "written",
    [
        "Zk9 hunter@ten/of:diamonds",
        "Zk9%20hunter%40ten%2Fof%3Adiamonds",
        'unexpected spaces found in "Zk9 hunter", use percent-encoded spaces',
        'could not translate host name "hunter" to address',
        'database "diamonds" does not exist',
        "Zk9",
    ],
)
def test_every_form_and_piece_of_a_known_secret_is_masked(
    written: str,
) -> None:
    """A password comes back encoded, or cut where a URL ends: all of it goes."""
    hide("Zk9 hunter@ten/of:diamonds")

    assert not any(each in mask(written) for each in ("Zk9", "hunter", "diamonds"))


def test_a_piece_of_another_word_stays() -> None:
    """A password that is an ordinary word does not tear others to pieces."""
    hide("shop")
    hide("it")

    assert mask("shopping with it at shop-1: shop") == (
        f"shopping with it at shop-1: {MASK}"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE USER MAPPING FOR app SERVER s OPTIONS (\n    password '{}',\n"
        "    \"user\" 'bob'\n);",
        "ALTER USER MAPPING FOR app SERVER s OPTIONS (SET password '{}')",
        "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'x', api_key '{}');",
        "ALTER FOREIGN TABLE t OPTIONS (ADD key 'it''s {}')",
        "create server s foreign data wrapper w options(x E'{}', y '(', z '{}')",
        "CREATE SUBSCRIPTION s CONNECTION 'host=h application_name={}' PUBLICATION p",
        "ALTER SUBSCRIPTION s CONNECTION 'postgresql://u:x {}@h/d'",
        "ALTER ROLE app WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:{}' VALID UNTIL 'x'",
        "CREATE ROLE app ENCRYPTED PASSWORD E'{}'",
        "CREATE USER MAPPING FOR app SERVER s OPTIONS (password 'cut off {}",
    ],
)
def test_secrets_in_statements_are_masked(statement: str) -> None:
    """Programs quote the statement that failed; its options and passwords go."""
    shown = mask(f"Command was: {statement.replace('{}', 'hunter2')}")

    assert "hunter2" not in shown
    assert shown.startswith(f"Command was: {statement[:12]}")


def test_what_follows_a_statement_stays() -> None:
    """A literal ends where SQL ends it; what is no option is shown."""
    text = "OPTIONS (a 'it''s x'); ERROR: it's over; SELECT 'y' (z 'z')"

    assert mask(text) == f"OPTIONS (a '{MASK}'); ERROR: it's over; SELECT 'y' (z 'z')"


def test_a_whole_document_is_masked() -> None:
    """However deep a text lies, and whatever else becomes a text."""
    hide("hunter2")
    document = {"a": [{"b": ("x hunter2", 5, None)}], "c": ValueError("hunter2")}

    assert masked(document) == {"a": [{"b": [f"x {MASK}", 5, None]}], "c": MASK}


@pytest.mark.parametrize(
    "text",
    [
        "password='it\\'s hunter2'",
        "password=two\\ hunter2",
        "PGPASSWORD=hunter2",
        '{"password": "hunter2"}',
    ],
)
def test_other_forms_of_passwords_are_masked(text: str) -> None:
    """Escaped quotes and spaces, a variable, JSON: forms that a message may have."""
    assert "hunter2" not in mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "AGE-SECRET-KEY-1QQQHUNTER2",
        "age-secret-key-1qqqHUNTER2 behind it",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nHUNTER2\n-----END OPENSSH PRIVATE KEY-----",
        "cut: -----BEGIN PRIVATE KEY-----\nHUNTER2",
    ],
)
def test_private_keys_are_masked(text: str) -> None:
    """Of age, of OpenSSH and in PEM, also one that is cut."""
    assert "HUNTER2" not in mask(text)
    assert MASK in mask(text)


@pytest.mark.parametrize(
    "section", ["databases.shop", "discover.crm", "fleet"], ids=lambda name: name
)
def test_the_password_of_each_url_is_masked_from_the_start(
    section: str, load_config: LoadConfig
) -> None:
    """Before anything connects, something may be printed."""
    pattern = 'pattern = ["*"]' if section.startswith("discover") else ""
    begin(
        load_config(
            f'[{section}]\nurl = "postgresql://ops:quetzal-77@db/shop"\n{pattern}'
        )
    )

    assert mask("it said quetzal-77") == f"it said {MASK}"
