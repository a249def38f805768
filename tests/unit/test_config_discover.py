"""The settings of rules that discover databases: what is possible, what is refused."""

from __future__ import annotations

import pytest

from opskit.errors import ConfigurationError
from tests.unit.conftest import LoadConfig

URL = 'url = "postgresql://ops:hunter22@db.example/postgres"\n'


def test_a_rule_has_the_settings_of_its_databases(load_config: LoadConfig) -> None:
    """The environment overrides them, as those of a database."""
    found = load_config(
        f'[discover.eu]\n{URL}pattern = ["*", "!postgres"]\nmax_age = "2h"\n',
        OPSKIT_DISCOVER__EU__SCHEDULE="@daily",
        OPSKIT_DISCOVER__EU__PREFIX="eu-",
    ).discover["eu"]

    assert found.pattern == ["*", "!postgres"]
    assert (found.schedule, found.prefix, found.label) == ("@daily", "eu-", "default")
    assert found.max_age.total_seconds() == 7200


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (URL, "exactly one of pattern, query and file must be set"),
        (f'{URL}pattern = ["*"]\nquery = "x"', "exactly one of pattern, query and"),
        (f'{URL}pattern = ["*"]\nfile = "/x"', "exactly one of pattern, query and"),
        ('pattern = ["*"]', "exactly one of url and url_file must be set"),
        (f'{URL}url_file = "/x"\nquery = "x"', "exactly one of url and url_file"),
        (f'{URL}file = "/x"', "the file holds the URLs: no other may be set"),
        ('file = "/x"\nrestore_url_file = "/y"', "the file holds the URLs"),
        (f'{URL}pattern = ["!x"]', "pattern only leaves out"),
        (f'{URL}pattern = ["*"]\nprefix = "EU"', "discover.eu.prefix = 'EU'"),
        (f'{URL}pattern = ["*"]\npaths = 1', "unknown key discover.eu.paths"),
    ],
)
def test_an_impossible_rule_is_refused(
    load_config: LoadConfig, keys: str, said: str
) -> None:
    """With the key, and without its secrets."""
    with pytest.raises(ConfigurationError) as caught:
        load_config(f"[discover.eu]\n{keys}")

    assert said in caught.value.message
    assert "hunter22" not in caught.value.message


def test_a_heartbeat_may_be_of_a_source_that_a_rule_finds(
    load_config: LoadConfig,
) -> None:
    """Nobody knows its name before; without a rule it must be configured."""
    text = '[notify.heartbeats]\nshop = "https://hc.example/ping"\n'
    with pytest.raises(ConfigurationError, match="no configured source"):
        load_config(text)

    rule = f'[discover.eu]\n{URL}pattern = ["*"]\n'
    assert "shop" in load_config(text + rule).notify.heartbeats
