"""Refused configurations: the key, the value without its secrets, what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from opskit import config
from opskit.errors import ConfigurationError
from tests.unit.conftest import LoadConfig
from tests.unit.test_config import SHOP

PASSWORD = "hunter2"
URL = f"postgresql://ops:{PASSWORD}@db.example/shop"


def _message(load_config: LoadConfig, text: str, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_config(text, **variables)
    assert refused.value.exit_code == 2
    assert refused.value.hint.endswith(".")
    return refused.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[retenton]\nkeep_last = 1", "unknown key retenton (did you mean retention?)"),
        (
            "[retention]\nkeeplast = 1",
            "unknown key retention.keeplast (did you mean keep_last?)",
        ),
        (
            '[databases.shop]\nurlx = "x"',
            "unknown key databases.shop.urlx (did you mean url?)",
        ),
        ("[hooks]\nzzz = 1", "hooks.zzz (allowed: after, before, failed, timeout)"),
        (
            '[[drill.queries]]\nname = "a"\nsql = "b"\nexpct = 1\nexpect = 1',
            "unknown key drill.queries.0.expct (did you mean expect?)",
        ),
        (
            '[[drill.queries]]\nname = "a"\nsql = "b"',
            "drill.queries.0.expect is missing",
        ),
        ("[stores.local]", "stores.local.url is missing"),
    ],
)
def test_unknown_and_missing_keys_are_named(
    load_config: LoadConfig, text: str, words: str
) -> None:
    """A key that does not exist is refused with the one that was surely meant."""
    assert words in _message(load_config, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[retention]\nkeep_last = -1", "retention.keep_last = -1: input should be"),
        ("[retention]\nkeep_last = 1.5", "retention.keep_last = 1.5: input should be"),
        ("[retention]\nkeep_last = 'x'", "retention.keep_last = 'x': input should be"),
        ("[retention]\nmin_keep = 0", "min_keep = 0: input should be greater than"),
        (
            "[retention]\nkeep_within = '30'",
            "keep_within = '30': a duration is a whole",
        ),
        ("[retention]\nkeep_within = '-1d'", "90s, 15m, 26h, 30d, 8w"),
        ("[retention]\nkeep_within = '1.5h'", "90s, 15m, 26h, 30d, 8w"),
        (
            "[scheduler]\ngrace = '0s'",
            "scheduler.grace = '0s': input should be greater",
        ),
        ("[drill]\njobs = 65", "drill.jobs = 65: input should be less than or equal"),
        (
            "[drill]\nserver = 'docker'",
            "'auto', 'installed', 'embedded', 'container' or 'existing'",
        ),
        ("log_format = 'xml'", "log_format = 'xml': input should be 'auto', 'console'"),
        ("[databases.'a b']", "databases.a b"),
        ("[databases.shop]", "databases.shop = {…}: exactly one of url and url_file"),
        (SHOP + "url_file = '/x'", "exactly one of url and url_file must be set"),
        (
            "[databases.shop]\nurl = 'mysql://db'",
            "url = 'mysql://…': must begin with postgresql://",
        ),
        ("[databases.shop]\nurl = 5", "databases.shop.url = 5: input should be"),
        ("[stores.a]\nurl = 'file://a'", "must be file:///absolute/folder"),
        ("[stores.a]\nurl = 's3://a'", "must be file:///absolute/folder"),
    ],
)
def test_wrong_values_are_named(load_config: LoadConfig, text: str, words: str) -> None:
    """A wrong type or an impossible value is refused with key, value and reason."""
    assert words in _message(load_config, text)


@pytest.mark.parametrize(
    "text",
    [
        "[retention]\nkeep_within = 30",
        "[retention]\nkeep_within = true",
        "[retention]\nkeep_last = true",
    ],
)
def test_wrong_types_are_refused(load_config: LoadConfig, text: str) -> None:
    """A number of days is not taken for seconds, nor a text or a yes for a count."""
    assert "retention.keep_" in _message(load_config, text)


def test_a_duration_beyond_all_time_is_refused(load_config: LoadConfig) -> None:
    """A number too large for any calendar is refused like any other."""
    assert "keep_within" in _message(
        load_config, '[retention]\nkeep_within = "999999999w"'
    )


def test_every_problem_is_told_at_once(load_config: LoadConfig) -> None:
    """Two mistakes are mended in one go."""
    message = _message(load_config, "[drill]\njobs = 65\n[retention]\nmin_keep = 0\n")

    assert "drill.jobs = 65" in message
    assert "retention.min_keep = 0" in message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """Without a file it says where one was looked for, and how to name another."""
    with pytest.raises(ConfigurationError, match="does not exist") as refused:
        config.load(tmp_path / "none.toml")

    assert str(tmp_path / "none.toml") in refused.value.message
    assert "OPSKIT_CONFIG" in refused.value.hint
    assert "`inv init` writes" in refused.value.hint


@pytest.mark.parametrize("text", ["a = [1,", "url = postgresql://x", "[a]\n[a]", "\0"])
def test_what_is_not_toml_is_refused(load_config: LoadConfig, text: str) -> None:
    """A file that is no TOML is refused as a whole."""
    assert "cannot be read as TOML" in _message(load_config, text)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A file in another encoding is refused, not guessed at."""
    path = tmp_path / "opskit.toml"
    path.write_bytes("[databases.shöp]".encode("latin-1"))

    with pytest.raises(ConfigurationError, match="cannot be read as TOML"):
        config.load(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("OPSKIT_RETENTON__KEEP_LAST", "(did you mean retention?)"),
        ("OPSKIT_COLOUR", "(allowed: databases, discover, "),
        ("OPSKIT_", "(allowed: databases, discover, "),
    ],
)
def test_an_unknown_variable_is_refused(
    load_config: LoadConfig, name: str, words: str
) -> None:
    """A variable that would have no effect is refused, its value not shown."""
    message = _message(load_config, SHOP, **{name: PASSWORD})

    assert message.startswith(f"the environment variable {name} names no")
    assert words in message
    assert PASSWORD not in message


def test_an_unknown_key_in_a_variable_is_refused(load_config: LoadConfig) -> None:
    """A section that exists does not excuse a key that does not."""
    message = _message(load_config, SHOP, OPSKIT_DATABASES__SHOP__ULR=URL)

    assert "unknown key databases.shop.ulr (did you mean url?)" in message
    assert PASSWORD not in message


@pytest.mark.parametrize("name", ["OPSKIT_CONFIG", "OPSKIT_DEBUG", "OPSKITX", "OPS"])
def test_other_variables_are_nobodys_business(
    load_config: LoadConfig, name: str
) -> None:
    """Variables that are no configuration are left alone."""
    assert load_config(SHOP, **{name: "1"}).databases


@pytest.mark.parametrize(
    "name", ["OPSKIT_RETENTION", "OPSKIT_DATABASES__SHOP__EXCLUDE_TABLES"]
)
def test_a_variable_that_is_no_json_is_refused(
    load_config: LoadConfig, name: str
) -> None:
    """Where a list or a section is due, a bare word is refused with its name."""
    assert name in _message(load_config, SHOP, **{name: PASSWORD})
    assert PASSWORD not in _message(load_config, SHOP, **{name: PASSWORD})


@pytest.mark.parametrize(
    "text",
    [
        f"[databases.shop]\nurl = '{URL}'\nurl_file = '/x'",
        f"[databases.shop]\nurl = ['{URL}']",
        f"[databases.shop]\nurl = 'host=db password={PASSWORD}'",
        f"[databases.shop]\nurl = 'host=db password=Zk9 {PASSWORD} dbname=db'",
        f"[databases.shop]\nrestore_url = 'mysql: ops:Zk9 {PASSWORD}'",
        f"[drill]\nexisting_url = 'host=db password=Zk9 {PASSWORD}'",
        f"[notify]\nsentry_dsn = ['{PASSWORD}']",
        f"[notify.heartbeats]\nshop = 'ftp://hc.example/{PASSWORD}'",
        f"[databases.shop]\npassword = '{PASSWORD}'",
        f"[stores.a]\nurl = 's3://key:{PASSWORD}@bucket'",
        f"[retention]\nkeep_last = -1\n[databases.shop]\nurl = '{URL}'",
    ],
)
def test_secrets_are_masked(load_config: LoadConfig, text: str) -> None:
    """What is wrong is shown without the password in it."""
    assert PASSWORD not in _message(load_config, text)


@pytest.mark.parametrize(
    "text",
    [
        f"[databases]\nshop = '{URL}'",
        f"[[databases.shop]]\nurl = '{URL}'",
        f"databases = ['{URL}']",
        f"[databases.shop]\nurl = ['host=db password={PASSWORD}']",
        f"[stores.a]\nurl = 's3://bucket?secret={PASSWORD}'",
    ],
)
def test_secrets_in_the_wrong_place_are_masked(
    load_config: LoadConfig, text: str
) -> None:
    """A URL that stands where it does not belong is masked all the same."""
    assert PASSWORD not in _message(load_config, text)
