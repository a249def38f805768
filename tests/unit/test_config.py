"""Configuration: read from one file and the environment, and only what is meant."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from opskit import config
from opskit.errors import ConfigurationError
from tests.unit.conftest import LoadConfig

SHOP = '[databases.shop]\nurl = "postgresql://ops@db.example/shop"\n'


def test_everything_has_a_default(load_config: LoadConfig, tmp_path: Path) -> None:
    """An empty file is a configuration, with the defaults of the contract."""
    found = load_config("")

    assert (found.databases, found.stores) == ({}, {})
    assert found.retention.model_dump() == {
        "keep_last": 7,
        "keep_within": timedelta(days=30),
        "keep_daily": 30,
        "keep_weekly": 8,
        "keep_monthly": 12,
        "min_keep": 2,
        "require_drill": False,
        "max_drop": 0.5,
        "ignore_drop": [],
    }
    assert (found.drill.server, found.drill.queries) == ("auto", [])
    assert found.log_format == "auto"
    assert found.state_dir == tmp_path / ".opskit"


def test_every_section_is_read(load_config: LoadConfig) -> None:
    """Values of the file come out typed, in the sections that they stand in."""
    found = load_config(
        SHOP
        + """
        exclude_tables = ["audit.*"]
        max_age = "2h"

        [stores.local]
        url = "file:///var/backups/opskit"

        [retention]
        keep_within = "2w"

        [[drill.queries]]
        name = "orders"
        sql = "SELECT count(*) FROM orders"
        expect = 12
        """
    )

    assert found.databases["shop"].resolve_url() == "postgresql://ops@db.example/shop"
    assert found.databases["shop"].exclude_tables == ["audit.*"]
    assert found.databases["shop"].max_age == timedelta(hours=2)
    assert found.stores["local"].url == "file:///var/backups/opskit"
    assert found.retention.keep_within == timedelta(days=14)
    assert found.drill.queries[0].expect == 12


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("0s", 0), ("90s", 90), ("15m", 900), ("26h", 93_600), ("30d", 2_592_000)],
)
def test_durations_are_a_number_and_a_unit(
    load_config: LoadConfig, written: str, seconds: int
) -> None:
    """Seconds, minutes, hours, days: each with its letter."""
    found = load_config(f'[retention]\nkeep_within = "{written}"')

    assert found.retention.keep_within == timedelta(seconds=seconds)


@pytest.mark.parametrize("rule", ["keep_last", "keep_within", "keep_monthly"])
def test_naming_a_rule_of_retention_sets_the_others_to_zero(
    rule: str, load_config: LoadConfig
) -> None:
    """Who writes that sets are kept for 30 days does not keep them for a year."""
    value = "'30d'" if rule == "keep_within" else "5"
    found = load_config(f"[retention]\n{rule} = {value}\nmax_drop = 1.0").retention
    others = {
        "keep_last": found.keep_last,
        "keep_within": found.keep_within,
        "keep_daily": found.keep_daily,
        "keep_weekly": found.keep_weekly,
        "keep_monthly": found.keep_monthly,
    }

    assert others.pop(rule)
    assert not any(others.values())
    assert found.min_keep == 2


def test_other_keys_of_retention_leave_the_rules_as_they_are(
    load_config: LoadConfig,
) -> None:
    """They are no rules; the environment names a rule like the file does."""
    assert load_config("[retention]\nmin_keep = 5").retention.keep_daily == 30
    found = load_config("", OPSKIT_RETENTION__KEEP_LAST="3").retention
    assert (found.keep_last, found.keep_daily) == (3, 0)


def test_the_environment_overrides_the_file(load_config: LoadConfig) -> None:
    """A variable wins over the file, key by key; the rest of the file holds."""
    found = load_config(
        SHOP + 'schedule = "@daily"\n[retention]\nkeep_last = 3\nkeep_daily = 4\n',
        OPSKIT_DATABASES__SHOP__URL="postgresql://ops@other.example/shop",
        OPSKIT_DATABASES__SHOP__EXCLUDE_TABLES='["a", "b"]',
        OPSKIT_RETENTION__KEEP_LAST="9",
        OPSKIT_LOG_FORMAT="json",
    )

    shop = found.databases["shop"]
    assert shop.resolve_url() == "postgresql://ops@other.example/shop"
    assert (shop.schedule, shop.exclude_tables) == ("@daily", ["a", "b"])
    assert (found.retention.keep_last, found.retention.keep_daily) == (9, 4)
    assert found.log_format == "json"


def test_the_environment_alone_is_enough(load_config: LoadConfig) -> None:
    """A database may be configured by variables only."""
    found = load_config(
        "", OPSKIT_DATABASES__SHOP__URL="postgresql://ops@db.example/shop"
    )

    assert list(found.databases) == ["shop"]


def test_the_file_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPSKIT_CONFIG names the file; without it, it is the one in the folder."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "ops.toml").write_text("log_format = 'json'\nstate_dir = 'state'\n")
    (tmp_path / "opskit.toml").write_text("log_format = 'console'\n")
    monkeypatch.chdir(tmp_path)
    nearby = config.load()
    monkeypatch.setenv("OPSKIT_CONFIG", "elsewhere/ops.toml")
    named = config.load()

    assert (nearby.log_format, named.log_format) == ("console", "json")
    assert named.state_dir == folder / "state"


def test_an_absolute_state_folder_stays_where_it_is(load_config: LoadConfig) -> None:
    """Only a relative path is taken from the configuration's folder."""
    assert load_config('state_dir = "/var/lib/opskit"').state_dir == Path(
        "/var/lib/opskit"
    )


def test_a_url_may_come_from_a_file(load_config: LoadConfig, tmp_path: Path) -> None:
    """A mounted secret holds the URL, with or without a line end."""
    secret = tmp_path / "secret"
    secret.write_text("postgres://ops:hunter2@db.example/shop\n")
    found = load_config(f'[databases.shop]\nurl_file = "{secret}"\n')

    assert (
        found.databases["shop"].resolve_url()
        == "postgres://ops:hunter2@db.example/shop"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "does not hold a postgresql:// URL"),
        (b"host=db password=hunter2", "does not hold a postgresql:// URL"),
    ],
)
def test_a_file_without_a_url_is_refused(
    load_config: LoadConfig, tmp_path: Path, content: bytes | None, words: str
) -> None:
    """A secret that is missing, unreadable or no URL is refused; it is never shown."""
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_bytes(content)
    found = load_config(f'[databases.shop]\nurl_file = "{secret}"\n')

    with pytest.raises(ConfigurationError, match=words) as refused:
        found.databases["shop"].resolve_url()

    assert "hunter2" not in refused.value.message + refused.value.hint


def test_urls_are_not_shown_by_accident(load_config: LoadConfig) -> None:
    """Printing the settings does not print a password."""
    found = load_config('[databases.shop]\nurl = "postgresql://ops:hunter2@db/shop"')

    assert "hunter2" not in f"{found!r} {found} {found.model_dump()}"


def test_settings_cannot_be_changed(load_config: LoadConfig) -> None:
    """The configuration is loaded once and stays as it is."""
    found = load_config(SHOP)

    with pytest.raises(ValueError, match="frozen"):
        found.retention.keep_last = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        found.log_format = "json"  # type: ignore[misc]


def test_names_with_capitals_are_refused(load_config: LoadConfig) -> None:
    """The environment knows no case: a variable could not override such a name."""
    with pytest.raises(ConfigurationError, match="Shop"):
        load_config(SHOP.replace("shop]", "Shop]"))


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Some editors write one; it is no part of the first key."""
    path = tmp_path / "opskit.toml"
    path.write_bytes(b"\xef\xbb\xbflog_format = 'json'\n")

    assert config.load(path).log_format == "json"
