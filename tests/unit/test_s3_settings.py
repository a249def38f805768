"""The settings of a store in a bucket: what is read, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from opskit.config import StoreSettings
from opskit.errors import ConfigurationError, StoreError
from opskit.store import S3Store
from opskit.store.s3.client import Bucket, make_client
from tests.unit.conftest import LoadConfig

SECRET = "hunter2/x"


def _store(load_config: LoadConfig, lines: str) -> StoreSettings:
    return load_config(f"[stores.off]\n{lines}").stores["off"]


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://acme-backups", "acme-backups", ""),
        ("s3://acme-backups/", "acme-backups", ""),
        ("s3://acme-backups/prod", "acme-backups", "prod/"),
        ("s3://acme.backups/prod/eu west/", "acme.backups", "prod/eu west/"),
        ("file:///var/s3", "", ""),
    ],
)
def test_a_url_names_bucket_and_prefix(url: str, bucket: str, prefix: str) -> None:
    """A prefix ends in one slash, however it is written; a folder has neither."""
    settings = StoreSettings(url=url)

    assert (settings.bucket, settings.prefix) == (bucket, prefix)
    assert settings.on_s3 is bool(bucket)


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///x", "s3://a", "s3://-a-", "s3://bucket//a", "s3://bucket/../a",
     "s3://bucket/./a", "s3:bucket", "http://bucket"],
)  # fmt: skip
def test_what_is_no_bucket_is_refused(load_config: LoadConfig, url: str) -> None:
    """A URL that names no bucket, or climbs out of its prefix, is refused."""
    with pytest.raises(ConfigurationError, match="must be file:///absolute/folder or"):
        _store(load_config, f"url = {url!r}")


def test_sizes_and_durations_have_units(load_config: LoadConfig) -> None:
    """Sizes may be written with a unit of 1024, or as a number."""
    found = _store(
        load_config,
        "url = 's3://bucket'\nbandwidth_limit = '20m'\npart_size_bytes = 10_000_000\n"
        "timeout = '5m'\nca_file = '/etc/ca.pem'",
    )

    assert found.bandwidth_limit == 20 * 1024**2
    assert found.part_size_bytes == 10_000_000
    assert found.timeout == timedelta(minutes=5)
    assert found.ca_file == Path("/etc/ca.pem")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bandwidth_limit = '20 mb'", "a size is a whole number of bytes"),
        ("bandwidth_limit = true", "a size is a whole number of bytes"),
        ("bandwidth_limit = -1", "greater than or equal to 0"),
        ("part_size_bytes = '4m'", "greater than or equal to 5242880"),
        ("max_parts = 99", "greater than or equal to 100"),
        ("max_parts = 10001", "less than or equal to 10000"),
        ("attempts = 0", "greater than or equal to 1"),
        ("timeout = '0s'", "greater than or equal to 1 second"),
        ("checksums = 'never'", "when_supported"),
        ("object_lock_mode = 'legal'", "governance"),
        ("endpoint_url = 's3.example'", "must begin with https:// or http://"),
        ("access_key = 'x'", "unknown key stores.off.access_key"),
    ],
)
def test_impossible_values_are_refused(
    load_config: LoadConfig, line: str, words: str
) -> None:
    """Each is named, with what is allowed."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        _store(load_config, f"url = 's3://bucket'\n{line}")

    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "lines",
    [
        f"url = 's3://key:{SECRET}@bucket'",
        f"url = 's3://bucket?AWS_SECRET_ACCESS_KEY={SECRET}'",
        f"url = 's3://bucket'\nendpoint_url = 'https://key:{SECRET}@host'",
        f"url = 's3://bucket'\nproxy = 'http://user:{SECRET}@host:3128'",
    ],
)
def test_credentials_are_refused_and_not_shown(
    load_config: LoadConfig, lines: str
) -> None:
    """They come from AWS's own places; what stands here is not repeated."""
    with pytest.raises(
        ConfigurationError, match=r"must not hold @, \? or #"
    ) as refused:
        _store(load_config, lines)

    assert "hunter2" not in refused.value.message + refused.value.hint


def test_a_folder_takes_no_settings_of_s3(load_config: LoadConfig) -> None:
    """What would have no effect is refused, and named."""
    with pytest.raises(
        ConfigurationError, match="only a store at s3:// has object_lock_days, region"
    ):
        _store(
            load_config,
            "url = 'file:///x'\nregion = 'eu'\nobject_lock_days = 3\nbandwidth_limit = 5",
        )


@pytest.mark.parametrize(
    "endpoint_url",
    [
        "https://0123.r2.example/acme-backups",
        "https://s3.example:9000/acme-backups/",
        "https://acme-backups.s3.eu-west-1.example",
    ],
)
def test_an_endpoint_with_the_bucket_in_it_is_refused(
    endpoint_url: str, load_config: LoadConfig
) -> None:
    """As consoles show it for copying; every request would go to a wrong place."""
    with pytest.raises(ConfigurationError, match="names the bucket acme-backups too"):
        load_config(
            f"[stores.off]\nurl = 's3://acme-backups'\nendpoint_url = '{endpoint_url}'"
        )


def test_settings_reach_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses, limits and retries are those of the settings."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    client = make_client(
        StoreSettings(
            url="s3://bucket",
            endpoint_url="https://s3.example:9000",
            region="eu-north-1",
            addressing="virtual",
            proxy="http://proxy.example:3128",
            checksums="when_required",
            attempts=4,
            timeout=timedelta(seconds=7),
        )
    )
    config = client.meta.config
    client.close()

    assert client.meta.endpoint_url == "https://s3.example:9000"
    assert (client.meta.region_name, config.s3["addressing_style"]) == (
        "eu-north-1",
        "virtual",
    )
    assert config.retries == {"mode": "standard", "total_max_attempts": 4}
    assert (config.connect_timeout, config.read_timeout) == (7, 7)
    assert config.proxies["https"] == "http://proxy.example:3128"
    assert config.request_checksum_calculation == "when_required"


def test_an_address_that_boto3_refuses_is_told() -> None:
    """What only boto3 can tell of an address is an error of the store."""
    store = S3Store("off", StoreSettings(url="s3://bucket", endpoint_url="http://a_b/"))

    with pytest.raises(StoreError, match=r"store off: Invalid endpoint") as refused:
        store.stat("a")

    assert "endpoint_url" in refused.value.hint


def test_a_region_that_is_none_is_named_as_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before anything is asked of the network."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket = Bucket("offsite", StoreSettings(url="s3://bucket", region="not a region!"))

    with pytest.raises(StoreError) as refused:
        _ = bucket.client

    assert refused.value.hint == "Look at endpoint_url and region."
