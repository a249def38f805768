"""The settings of the timetable, of notifications and of objectives."""

from __future__ import annotations

import zoneinfo
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator

from opskit.config.cron import CronLine
from opskit.config.section import Count, Duration, Section, SourceName
from opskit.crypto import keys
from opskit.errors import ConfigurationError


class SchedulerSettings(Section):
    """The timetable, and the address of the status page.

    A cron line is five fields or one of `@hourly`, `@daily`, `@weekly`, `@monthly`,
    `@yearly`. Backups have their lines in `schedule` of each source.
    """

    timezone: str = Field(default="UTC", description="time zone of the schedules")
    listen: str = Field(
        default="127.0.0.1:8321",
        description="address of the status page, health and metrics; empty: none",
    )
    api_key_file: Path | None = Field(
        default=None,
        description="a file of mode 0600 that holds the key for everything but the "
        "bare status; needed beyond loopback",
    )
    allowed_origins: list[str] = Field(
        default=[], description="origins whose pages may read the answers (CORS)"
    )
    verify: CronLine = Field(
        default="0 3 * * 0", description="when sets are read again; empty: never"
    )
    drill: CronLine = Field(
        default="0 4 * * 0",
        description="when the newest set of each source is drilled; empty: never",
    )
    prune: CronLine = Field(
        default="30 9 * * *", description="when retention is applied; empty: never"
    )
    report: CronLine = Field(
        default="0 6 1 * *",
        description="when the monthly report is written; empty: never",
    )
    smoke: CronLine = Field(
        default="@hourly",
        description="when the service of `[smoke]` is asked, if it has a `url`; "
        "empty: never",
    )
    grace: Duration = Field(
        default=timedelta(hours=12),
        ge=timedelta(minutes=1),
        description="how late a missed run may still start",
    )
    job_timeout: Duration = Field(
        default=timedelta(hours=6),
        ge=timedelta(seconds=1),
        description="a job that takes longer is ended, and has failed",
    )
    stop_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="how long running jobs may take to end when the daemon is told to",
    )
    takeover: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=2),
        description="within this time a second daemon takes over from one that died",
    )
    textfile: Path | None = Field(
        default=None,
        description="a file for node_exporter's textfile collector, written by every "
        "run; its name ends in .prom",
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone; Europe/Berlin is one") from None
        return name

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        host, colon, port = listen.rpartition(":")
        if listen and not (colon and host and port.isdigit() and int(port) < 1 << 16):
            raise ValueError("must be HOST:PORT, for instance 127.0.0.1:8321")
        return listen

    @field_validator("textfile")
    @classmethod
    def _collected(cls, path: Path | None) -> Path | None:
        if path is not None and (path.suffix != ".prom" or not path.is_absolute()):
            raise ValueError("must be an absolute path that ends in .prom")
        return path

    @model_validator(mode="after")
    def _some_origins(self) -> SchedulerSettings:
        if "*" in self.allowed_origins and self.api_key_file is None:
            raise ValueError(
                "allowed_origins: * lets every web page read the answers; name the "
                "origins, or set api_key_file"
            )
        return self

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The time zone of the schedules."""
        return zoneinfo.ZoneInfo(self.timezone)


class WebhookSettings(Section):
    """A receiver of signed messages."""

    url: str = Field(description="address, https:// or http://")
    secret_file: Path = Field(
        description="a file of mode 0600 that holds the secret of the signatures"
    )

    @field_validator("url")
    @classmethod
    def _web(cls, url: str) -> str:
        return _web_address(url)


def _web_address(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("must begin with https:// or http://")
    return url


class NotifySettings(Section):
    """Receivers of failures, recoveries and missed runs."""

    urls: list[SecretStr] = Field(default=[], description="addresses of apprise")
    recovery_after: Count = Field(
        default=1, ge=1, description='good runs before "recovered" is said'
    )
    heartbeats: dict[SourceName, SecretStr] = Field(
        default={},
        description="by source: an address that is asked for at start, success and "
        "failure of each backup, in the form of healthchecks.io",
    )
    drill_heartbeats: dict[SourceName, SecretStr] = Field(
        default={}, description="the same for drills"
    )
    webhooks: list[WebhookSettings] = Field(
        default=[], description="receivers of signed messages"
    )
    timeout: Duration = Field(
        default=timedelta(seconds=15),
        ge=timedelta(seconds=1),
        description="how long one attempt to reach a receiver may take",
    )
    runbooks_url: str = Field(
        default="",
        description="where alerts link the runbooks, for instance "
        "https://git.example/shop/blob/main/runbooks; empty: the path `runbooks/`",
    )
    sentry_dsn: SecretStr = Field(
        default=SecretStr(""), description="where errors are tracked; empty: nowhere"
    )

    @field_validator("heartbeats", "drill_heartbeats")
    @classmethod
    def _web(cls, urls: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for url in urls.values():
            _web_address(url.get_secret_value())
        return urls

    @field_validator("runbooks_url")
    @classmethod
    def _address(cls, url: str) -> str:
        if any(each.isspace() for each in url):
            raise ValueError("must not hold spaces")
        return _web_address(url) if url else url


class HooksSettings(Section):
    """Programs that run before and after each operation that goes on record.

    Each is a list of arguments, and gets the outcome as JSON on standard input.
    """

    before: list[list[str]] = Field(
        default=[], description="before it begins; if one fails, it does not begin"
    )
    after: list[list[str]] = Field(default=[], description="after it succeeded")
    failed: list[list[str]] = Field(default=[], description="after it failed")
    timeout: Duration = Field(
        default=timedelta(minutes=1),
        ge=timedelta(seconds=1),
        description="a program that takes longer is ended",
    )

    @field_validator("before", "after", "failed")
    @classmethod
    def _programs(cls, lists: list[list[str]]) -> list[list[str]]:
        if not all(each and each[0] for each in lists):
            raise ValueError("each is a list of a program and its arguments")
        return lists


class LatencySettings(Section):
    """How fast answers are, by percentile."""

    p95: str = Field(default="", description="95 % are faster, for instance 1.2s")
    p99: str = Field(default="", description="99 % are faster")

    @model_validator(mode="after")
    def _parses(self) -> LatencySettings:
        for each in (self.p95, self.p99):
            if each:
                latency_seconds(each)
        return self


def latency_seconds(text: str) -> float:
    """Return `1.2s` or `300ms` in seconds.

    Raises:
        ValueError: a text of another form.
    """
    number, unit = (text[:-2], 1000) if text.endswith("ms") else (text[:-1], 1)
    try:
        value = float(number) / unit
    except ValueError:
        value = 0
    if not 0 < value < float("inf") or not text.endswith("s"):
        raise ValueError("a latency is a number and a unit: 1.2s, 300ms")
    return value


_METRIC = "[a-zA-Z_:][a-zA-Z0-9_:]*"
_MetricName = Annotated[str, Field(pattern=f"^{_METRIC}$")]
_LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


class SloSettings(Section):
    """Objectives of the service that is operated, and where they are measured."""

    availability: float | None = Field(
        default=None, gt=0, lt=100, description="percent of requests that succeed"
    )
    latency: LatencySettings = Field(
        default=LatencySettings(),
        description="how fast 95 % and 99 % of the answers are, for instance "
        '`{ p95 = "1.2s", p99 = "2s" }`',
    )
    error_rate: float | None = Field(
        default=None, gt=0, lt=1, description="share of requests that may fail"
    )
    rate_limited: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="share of requests that a rate limit may refuse",
    )
    prometheus_url: str = Field(
        default="", description="a Prometheus that reports ask for figures"
    )
    labels: dict[_LabelName, str] = Field(
        default={},
        description="labels that the series of the service have, for instance "
        '`{ job = "shop" }`; needed where Prometheus watches several services',
    )
    requests_metric: _MetricName = Field(
        default="http_requests_total",
        description="counter of requests, with the label `status_label`",
    )
    status_label: _LabelName = Field(
        default="status", description="label of the HTTP status"
    )
    latency_metric: _MetricName = Field(
        default="http_request_duration_seconds",
        description="histogram of the time that requests take",
    )
    rate_limited_metric: str = Field(
        default="",
        pattern=rf"^({_METRIC})?$",
        description="counter of requests that a rate limit refused; "
        "empty: answers with status 429",
    )
    minimum_requests: Count = Field(
        default=100,
        description="no alert is raised about a window with fewer requests",
    )

    @field_validator("prometheus_url")
    @classmethod
    def _web(cls, url: str) -> str:
        if "@" in url:
            raise ValueError("must hold no user and no password")
        return _web_address(url) if url else url


def read_key(key: str, path: Path) -> str:
    """Return the secret in a file, without the line's end.

    Raises:
        ConfigurationError: it cannot be read, is empty, or others may read it.
    """
    try:
        secret = keys.read(path, key).decode().strip()
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{key} {path} cannot be read: it holds no text",
            hint="The file holds the secret on its first line.",
        ) from None
    if not secret:
        raise ConfigurationError(
            f"{key} {path} is empty",
            hint="The file holds the secret on its first line.",
        )
    return secret
