"""Masking: no password in any text that a person or a log is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.masking import MASK, mask

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
    masked = mask(text.join(["", *secrets, ""]), ["", *secrets])

    assert not any(secret in masked for secret in secrets)
    assert mask(text, [""]) == mask(text)


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
