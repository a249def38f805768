"""Configuration of drills: bounds, values that nobody meant, and URLs in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit.config import LoadSettings
from opskit.errors import ConfigurationError
from tests.unit.conftest import LoadConfig

PASSWORD = "hunter2"
URL = f"postgresql://ops:{PASSWORD}@drill.example/postgres"
QUERY = '[[drill.queries]]\nname = "n"\nsql = "s"\nexpect = '


def _message(load_config: LoadConfig, text: str, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_config(text, **variables)
    assert refused.value.exit_code == 2
    return refused.value.message


def test_a_drill_gives_up_nothing_by_itself(load_config: LoadConfig) -> None:
    """The defaults allow nothing, plant damage, and stay away from the source."""
    found = load_config("").drill

    assert (found.allow, found.mutants) == ([], 12)
    assert (found.accept_newer_major, found.on_source_server) == (False, False)
    assert (found.image, found.memory, found.cpus) == ("", "4g", 2.0)
    assert (found.settings, found.sql_before, found.sql_after) == ({}, [], [])
    assert found.resolve_existing_url() == ""
    assert found.timeout is None


@pytest.mark.parametrize(
    ("text", "size_bytes", "seconds"),
    [
        ("", 0, 1800),
        ("", 10_000_000_000, 5400),
        ('[drill]\ntimeout = "20s"', 10_000_000_000, 20),
    ],
)
def test_the_time_for_a_drill_grows_with_the_database(
    load_config: LoadConfig, text: str, size_bytes: int, seconds: float
) -> None:
    """Unless it is set."""
    found = load_config(text).drill.timeout_seconds(size_bytes)

    assert found == pytest.approx(seconds)


@pytest.mark.parametrize(
    "line",
    [
        "jobs = 64",
        "mutants = 0",
        "mutants = 5000",
        "cpus = 0.5",
        "cpus = 256",
        'memory = "512m"',
        'memory = "16g"',
        'settings = { shared_preload_libraries = "pg_cron" }',
        'allow = ["extension pg_cron", "role My Role"]',
        'allow = ["extension-version a", "locale b", "provider c", "collation d.e"]',
        'allow = ["setting a", "role-attributes b", "tablespace c"]',
        'memory = "599m"',
        'memory = "1000m"',
        'memory = "1g"',
        'timeout = "1s"',
        *(f'server = "{kind}"' for kind in ("installed", "embedded", "container")),
        'existing_url = ""',
        'timeout = "90s"',
    ],
)
def test_values_within_bounds_are_taken(load_config: LoadConfig, line: str) -> None:
    """Also those at the very bound."""
    assert load_config(f"[drill]\n{line}").drill


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("jobs = 65", "drill.jobs = 65: input should be less than or equal to 64"),
        ("jobs = -1", "drill.jobs = -1: input should be greater than or equal to 0"),
        ("jobs = true", "drill.jobs"),
        ("mutants = -1", "drill.mutants = -1: input should be greater"),
        ("mutants = true", "drill.mutants"),
        ("mutants = 1.5", "drill.mutants = 1.5"),
        ("cpus = 0", "drill.cpus = 0: input should be greater than 0"),
        ("cpus = 257", "drill.cpus = 257"),
        ("cpus = nan", "drill.cpus"),
        ("cpus = inf", "drill.cpus"),
        ('memory = "511m"', "drill.memory = '511m'"),
        ('memory = "99m"', "drill.memory = '99m'"),
        ('memory = "0512m"', "drill.memory = '0512m'"),
        ('memory = "0g"', "drill.memory = '0g'"),
        ('memory = "4"', "drill.memory = '4'"),
        ('memory = "4G"', "drill.memory = '4G'"),
        ('memory = "4gb"', "drill.memory"),
        ('memory = "4g\\n"', "drill.memory"),
        ("memory = 4", "drill.memory = 4"),
        ('timeout = "1"', "drill.timeout = '1': a duration is"),
        ('timeout = "-1s"', "drill.timeout"),
        ('timeout = "0s"', "drill.timeout"),
        ('allow = ["pg_cron"]', "each is a kind and a name"),
        ('allow = ["extension"]', "each is a kind and a name"),
        ('allow = ["extension "]', "each is a kind and a name"),
        ('allow = ["an extension x"]', "each is a kind and a name"),
        ('allow = ["Extension pg_cron"]', "each is a kind and a name"),
        ('allow = ["role app", "extensions x"]', "each is a kind and a name"),
        ('allow = ["access-method columnar"]', "each is a kind and a name"),
        ('allow = ["lc_monetary fr_FR"]', "each is a kind and a name"),
        ('allow = "extension pg_cron"', "drill.allow"),
        ("allow = [1]", "drill.allow"),
        ("settings = { work_mem = 4 }", "drill.settings.work_mem = 4"),
        ('server = "docker"', "'container' or 'existing'"),
        ('server = ""', "drill.server = ''"),
        ('sql_before = "SELECT 1"', "drill.sql_before"),
        ('alow = ["x"]', "unknown key drill.alow (did you mean allow?)"),
        ("mutant = 1", "unknown key drill.mutant (did you mean mutants?)"),
    ],
)
def test_values_beyond_bounds_are_refused(
    load_config: LoadConfig, line: str, words: str
) -> None:
    """With the key, the value, and what is allowed."""
    assert words in _message(load_config, f"[drill]\n{line}")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12),
        ("1.5", 1.5),
        ("true", True),
        ('"12"', "12"),
        ('[[1, "a"], [2, "b"]]', [[1, "a"], [2, "b"]]),
    ],
)
def test_what_a_query_expects_keeps_its_type(
    load_config: LoadConfig, written: str, value: object
) -> None:
    """The text 12 is not the number, nor a yes a one."""
    expected = load_config(QUERY + written).drill.queries[0].expect

    assert expected == value
    assert type(expected) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        QUERY.replace('"n"', '""') + "1",
        QUERY.replace('"s"', '""') + "1",
        QUERY + "[1, 2]",
        QUERY + "{ a = 1 }",
        QUERY.replace("expect = ", ""),
    ],
)
def test_a_query_that_asks_nothing_is_refused(
    load_config: LoadConfig, text: str
) -> None:
    """Name, statement and what is expected must be there."""
    assert "drill.queries.0." in _message(load_config, text)


def test_the_environment_may_set_them(load_config: LoadConfig) -> None:
    """Lists and sections as JSON, all else as it is."""
    found = load_config(
        "",
        OPSKIT_DRILL__ALLOW='["extension pg_cron"]',
        OPSKIT_DRILL__SETTINGS='{"jit": "on"}',
        OPSKIT_DRILL__EXISTING_URL=URL,
        OPSKIT_DRILL__MUTANTS="3",
    ).drill

    assert (found.allow, found.settings) == (["extension pg_cron"], {"jit": "on"})
    assert (found.resolve_existing_url(), found.mutants) == (URL, 3)


def test_the_existing_servers_url_is_not_shown(load_config: LoadConfig) -> None:
    """Neither by printing the settings, nor where it is refused."""
    found = load_config(f'[drill]\nexisting_url = "{URL}"').drill
    message = _message(load_config, f'[drill]\nexisting_url = "x{URL}"')

    assert found.resolve_existing_url() == URL
    assert PASSWORD not in f"{found!r} {found} {found.model_dump()}"
    assert "drill.existing_url" in message
    assert "must begin with postgresql://" in message
    assert PASSWORD not in message


@pytest.mark.parametrize("content", [f"{URL}\n", f"  {URL}  \n\n", URL])
def test_the_existing_servers_url_may_come_from_a_file(
    load_config: LoadConfig, tmp_path: Path, content: str
) -> None:
    """A mounted secret, with or without a line end; it is read when it is needed."""
    secret = tmp_path / "secret"
    found = load_config(f'[drill]\nexisting_url_file = "{secret}"').drill
    secret.write_text(content)

    assert found.resolve_existing_url() == URL


@pytest.mark.parametrize("file", ["secret", "gone"])
def test_there_is_one_address_at_most(
    load_config: LoadConfig, tmp_path: Path, file: str
) -> None:
    """Nobody could tell which of the two is meant; the file is not even read."""
    (tmp_path / "secret").write_text(URL)
    lines = f'existing_url = "{URL}"\nexisting_url_file = "{tmp_path / file}"'
    message = _message(load_config, f"[drill]\n{lines}")

    assert "only one of existing_url and existing_url_file may be set" in message
    assert PASSWORD not in message


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"\xff",
        b"",
        f"url = {URL}".encode(),
        f"{URL}\n# the drill's".encode(),
        f"{URL}\n{URL}\n".encode(),
        f"{URL}\r{URL}".encode(),
    ],
)
def test_a_file_without_a_url_is_refused(
    load_config: LoadConfig, tmp_path: Path, content: bytes | None
) -> None:
    """By the key and the path; what is in it is not shown."""
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    found = load_config(f'[drill]\nexisting_url_file = "{secret}"').drill

    with pytest.raises(ConfigurationError, match="existing_url_file") as refused:
        found.resolve_existing_url()

    assert str(secret) in refused.value.message
    assert PASSWORD not in refused.value.message + refused.value.hint


def test_a_restore_loads_as_a_drill_does_where_it_says_nothing(
    load_config: LoadConfig,
) -> None:
    """What it sets itself counts, also if that is nothing."""
    settings = load_config(
        """
        [drill]
        settings = { work_mem = "1GB" }
        allow = ["extension pg_cron"]
        sql_before = ["SELECT 1"]
        sql_after = ["SELECT 2"]
        [restore]
        sql_before = []
        sql_after = ["SELECT 3"]
        """
    )

    assert settings.restore.loading(settings.drill) == LoadSettings(
        settings={"work_mem": "1GB"},
        allow=["extension pg_cron"],
        sql_before=[],
        sql_after=["SELECT 3"],
    )
    assert settings.drill.loading == LoadSettings(
        allow=["extension pg_cron"], sql_before=["SELECT 1"], sql_after=["SELECT 2"]
    )
