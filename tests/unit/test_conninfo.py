"""Conninfo: settings in a URL come to the server as they were meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opskit.errors import ConfigurationError
from opskit.log import mask
from opskit.postgres.parameters import (
    PINNED_OPTIONS,
    parse,
    server_of,
    target,
    with_settings,
)

URL = "postgresql://ops:hunter2@db.example:6432/shop"
_values = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
)


def _split(options: str) -> list[str]:
    """Split as the server does: at blanks, a backslash takes the next one along.

    Written from `pg_split_opts` in PostgreSQL's `postinit.c`.
    """
    words: list[str] = []
    word: str | None = None
    characters = iter(options)
    for character in characters:
        if character in " \t\n\v\f\r":
            if word is not None:
                words.append(word)
            word = None
        else:
            taken = next(characters, "") if character == "\\" else character
            word = (word or "") + taken
    return words if word is None else [*words, word]


def _settings(url: str) -> list[str]:
    words = _split(parse(url)["options"])
    assert words[::2] == ["-c"] * (len(words) // 2)
    return words[1::2]


@pytest.mark.parametrize(
    "value",
    [
        "off",
        "",
        "de_DE.UTF-8",
        "two words",
        " blanks around ",
        "tab\there, line\nend",
        "back\\slash",
        "ends in \\",
        "\\ ",
        "it's",
        'say "hi"',
        "-c role=app",
        "a=b",
        "Bestellübersicht",
    ],
)
def test_a_setting_comes_as_it_was_meant(value: str) -> None:
    """Blanks, backslashes and quotes neither end a value nor are lost from it."""
    made = with_settings(URL, {"app.value": value, "role": "none"})

    assert _settings(made) == [f"app.value={value}", "role=none"]


@given(st.lists(_values, max_size=3))
def test_any_settings_come_as_they_were_meant(values: list[str]) -> None:
    """However many there are, and whatever is in them."""
    expected = {f"app.v{number}": value for number, value in enumerate(values)}

    assert _settings(with_settings(URL, expected)) == [
        f"{name}={value}" for name, value in expected.items()
    ]


def test_nothing_else_of_the_url_changes() -> None:
    """Address, name and password stay, in a form that can be read again."""
    made = parse(with_settings(URL, {"role": "none"}))

    assert made == parse(URL) | {"options": "-c role=none"}


def test_the_urls_own_options_come_first() -> None:
    """Where both set the same, the server takes the last: ours."""
    made = with_settings(
        f"{URL}?options=-c%20role%3Dapp%20-c%20geqo%3Doff", {"role": "none"}
    )

    assert _settings(made) == ["role=app", "geqo=off", "role=none"]


def test_settings_may_be_added_twice() -> None:
    """The second time takes nothing from the first."""
    made = with_settings(with_settings(URL, {"a": "x y\\"}), {"b": "z"})

    assert _settings(made) == ["a=x y\\", "b=z"]


def test_a_url_without_settings_stays_as_it_is() -> None:
    """No setting is no setting."""
    assert _settings(with_settings(URL, {})) == []


def test_a_url_that_is_none_is_refused_without_its_password() -> None:
    """The message masks what it quotes."""
    with pytest.raises(ConfigurationError) as refused:
        with_settings("postgresql://ops:hunter2@[db/shop", {"role": "none"})

    assert "hunter2" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ops:Zk9 hunter@h/db",
        "postgresql://ops:hunter%00x@h/db",
        "postgresql://ops:hunter%zz@h/db",
        "postgresql://ops:Zk9/hunter@h/db",
        "postgresql://ops:123/hunter@h/db",
        "postgresql://ops:Zk9@hunter@h/db",
        "postgresql://ops@h:99999/db?password=hunter",
        "postgresql://ops@h:hunter/db",
        "postgresql://ops@h/db?password=a&hunter",
        "postgresql://ops@h/db?connect_timeout=hunter",
        "postgresql://ops:[hunter@[h/db",
        "host=h port=hunter",
    ],
)
def test_nothing_of_an_impossible_url_is_shown(url: str) -> None:
    """Whatever of the password libpq took for something else: exit 2 without it."""
    with pytest.raises(ConfigurationError) as refused:
        parse(url)

    assert "hunter" not in refused.value.message + refused.value.hint
    assert refused.value.exit_code == 2
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ops:Zk9%20hunter%40%2F@h/db",
        "postgresql://h1:5432,h2/db?connect_timeout=-1",
        "postgresql://h:,h2:6432/a%40b",
        "postgresql://%2Ftmp%2Fwith%20blank/db",
        "postgresql://%40opskit/db",
        "postgresql://",
        "host=h dbname='a@b' password='x @/'",
    ],
)
def test_a_possible_url_is_read(url: str) -> None:
    """What is encoded, or no URL, may hold anything."""
    parse(url)


def test_the_secrets_of_a_url_are_masked_from_then_on() -> None:
    """Unless a secret is no secret: the same word is the user's or database's name."""
    parse("postgresql://ops:Zk9%20hunter4711@h/db?sslpassword=jack4711")
    parse("postgresql://harry4711:harry4711@h/db")

    assert mask("hunter4711 jack4711 harry4711") == "*** *** harry4711"


def test_the_pinned_settings_are_read_one_by_one() -> None:
    """What every session of opskit has goes the same way."""
    words = _split(PINNED_OPTIONS)

    assert "TimeZone=UTC" in words
    assert len(words) == 16


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("q", "q"),
        ("postgresql://ops@h:5433/q", "q"),
        ("postgres:///a%3Db", "a=b"),
        ("host=h password=hunter2 dbname=q", "q"),
        ("dbname='q r'", "q r"),
    ],
)
def test_a_target_is_a_name_or_leads_to_a_database(text: str, name: str) -> None:
    """A connection string is read as one, and never made the name of a database."""
    url, found = target(text)

    assert found == name
    assert url == ("" if text == name else text)


@pytest.mark.parametrize(
    "text",
    [
        "host=h pasword=hunter2 dbname=q",
        "host=h dbname=q password='hunter2",
        "a=hunter2",
        "=hunter2",
        "host=h password=hunter2",
        "postgresql://ops:hunter2@h",
        "postgresql://ops:hunter2@h/",
        "postgresql+psycopg://ops:hunter2@h/q",
        "PostgreSQL://ops:hunter2@h/q",
        "mysql://ops:hunter2@h/q",
        "postgresql://ops:Zk9 hunter2@h/q",
        "postgresql://ops:hunter2@h:port/q",
        f"postgresql://ops:hunter2@h/{'q' * 64}",
        "q" * 64,
        "q\udcff",
        "postgresql://ops:hunter2@h/q\udcff",
        "",
    ],
)
def test_what_is_neither_is_refused_and_not_shown(text: str) -> None:
    """It may hold a password; exit 2."""
    with pytest.raises(ConfigurationError) as refused:
        target(text)

    assert "hunter" not in refused.value.message + refused.value.hint
    assert refused.value.exit_code == 2


def test_databases_of_one_server_are_seen_to_be() -> None:
    """However it is named: by its host, its address, or a service of libpq."""
    one = ["postgresql://a@db/x", "postgresql://b@db:5432/y?sslmode=require"]
    others = ["postgresql://db:5433/x", *(f"postgresql:///x?{w}" for w in _PLACES)]

    assert len({server_of(each) for each in one}) == 1
    assert len({server_of(each) for each in [one[0], *others]}) == 1 + len(others)


_PLACES = ("hostaddr=192.0.2.1", "hostaddr=192.0.2.2", "service=one", "service=two")
