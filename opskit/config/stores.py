"""The settings of stores: where backup sets live."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from opskit.config.section import Count, Duration, Section

_MIB = 1024**2
_SIZE_UNITS = {"": 1, "k": 1024, "m": _MIB, "g": 1024**3, "t": 1024**4}
_BUCKET_URL = re.compile(
    r"s3://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9])"
    r"(?P<prefix>(?:/[^/?#@\0]+)*)/?"
)
# The keys of a store in a folder.
_COMMON_KEYS = {"url", "bandwidth_limit"}


def parse_size(value: object) -> object:
    """Turn `512k`, `20m`, `1g` or a whole number into bytes; units are of 1024.

    Raises:
        ValueError: a text of another form.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else ""
    match = re.fullmatch(r"(\d{1,15})([kmgt]?)", text)
    if match is None:
        raise ValueError("a size is a whole number of bytes, or 512k, 20m, 1g")
    return int(match[1]) * _SIZE_UNITS[match[2]]


Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]


class StoreSettings(Section):
    """One place where backup sets live; all but url and bandwidth_limit is for S3."""

    url: str = Field(
        description="`file:///absolute/folder`, `s3://bucket` or `s3://bucket/prefix`; "
        "without credentials, which come from AWS's environment variables, profile, "
        "web identity or instance role"
    )
    endpoint_url: str = Field(
        default="", description="address of an S3-compatible server; empty for AWS"
    )
    region: str = Field(
        default="", description="empty for that of the environment or the profile"
    )
    profile: str = Field(
        default="", description="profile in AWS's files that holds the credentials"
    )
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="whether requests have the bucket in the path or in the host name",
    )
    ca_file: Path | None = Field(
        default=None,
        description="certificates (PEM) to check the server's certificate with",
    )
    proxy: str = Field(
        default="",
        description="`http://host:port`; empty for the environment's HTTPS_PROXY, "
        "which may hold a password",
    )
    checksums: Literal["when_supported", "when_required"] = Field(
        default="when_supported",
        description="when_required for a server that refuses the newer checksums",
    )
    max_parts: Count = Field(
        default=10_000,
        ge=100,
        le=10_000,
        description="how many parts of one object the server accepts; some accept 1000",
    )
    part_size_bytes: Size = Field(
        default=8 * _MIB,
        ge=5 * _MIB,
        le=1024 * _MIB,
        description="size of the first parts; later ones grow with the object, and up "
        "to four are held in memory",
    )
    attempts: Count = Field(
        default=6, ge=1, le=20, description="how often a request is tried in all"
    )
    timeout: Duration = Field(
        default=timedelta(seconds=60),
        ge=timedelta(seconds=1),
        description="how long connecting, or one wait for bytes, may take",
    )
    bandwidth_limit: Size = Field(
        default=0, description='bytes per second, also as `"20m"`; 0 for no limit'
    )
    object_lock_days: Count = Field(
        default=0,
        le=36_500,
        description="days for which the store refuses to delete what was written; the "
        "bucket must have object lock; 0 for none",
    )
    object_lock_mode: Literal["governance", "compliance"] = Field(
        default="governance",
        description="compliance: nobody can lift it; governance: special rights can",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_credentials(cls, values: object) -> object:
        """Refuse values that may hold a secret before a message could show them."""
        if not isinstance(values, dict):
            return values
        for key in ("url", "endpoint_url", "proxy"):
            text = str(values.get(key, ""))
            if not text.startswith("file:") and set(text) & set("@?#"):
                raise ValueError(
                    f"{key} must not hold @, ? or #: credentials come from AWS's "
                    "environment variables, profile or role"
                )
        return values

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if re.fullmatch(r"file:///[^?#]*", url) is None and not _is_bucket(url):
            raise ValueError(
                "must be file:///absolute/folder or s3://bucket or s3://bucket/prefix"
            )
        return url

    @field_validator("endpoint_url", "proxy")
    @classmethod
    def _http(cls, url: str) -> str:
        if url and re.fullmatch(r"https?://[^/\s]+(/\S*)?", url) is None:
            raise ValueError("must begin with https:// or http://")
        return url

    @model_validator(mode="after")
    def _fits_the_url(self) -> StoreSettings:
        strange = sorted(self.model_fields_set - _COMMON_KEYS)
        if not self.on_s3 and strange:
            raise ValueError(f"only a store at s3:// has {', '.join(strange)}")
        host, _, path = self.endpoint_url.partition("://")[2].partition("/")
        if self.on_s3 and (
            self.bucket in path.split("/") or host.startswith(f"{self.bucket}.s3.")
        ):
            raise ValueError(
                f"endpoint_url names the bucket {self.bucket} too: it must be the "
                "address of the server alone"
            )
        return self

    @property
    def on_s3(self) -> bool:
        """Whether this is a bucket, not a folder."""
        return self.url.startswith("s3://")

    @property
    def place(self) -> tuple[str, ...]:
        """What is equal for two stores that are the same place."""
        if self.on_s3:
            return (self.endpoint_url.rstrip("/").lower(), self.bucket, self.prefix)
        return (str(Path(self.url.removeprefix("file://")).resolve()),)

    @property
    def bucket(self) -> str:
        """The bucket's name; empty for a folder."""
        match = _BUCKET_URL.fullmatch(self.url)
        return match["bucket"] if match else ""

    @property
    def prefix(self) -> str:
        """The common beginning of all keys in the bucket: empty, or ends in a slash."""
        match = _BUCKET_URL.fullmatch(self.url)
        inner = match["prefix"].strip("/") if match else ""
        return f"{inner}/" if inner else ""


def _is_bucket(url: str) -> bool:
    match = _BUCKET_URL.fullmatch(url)
    return match is not None and not {".", ".."} & set(match["prefix"].split("/"))
