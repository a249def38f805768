"""Settings: what the service reads from its environment, typed and bounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from limits import RateLimitItem, parse
from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from urllib3.util import parse_url

from service import __version__


def rate_text(text: str) -> str:
    """Return a rate such as `600/minute`, or raise a ValueError."""
    parse(text)
    return text


def origin(url: str) -> str:
    """Return scheme, host and port of a URL.

    Raises:
        ValueError: it is no such URL, or it names a user.
    """
    parts = parse_url(url)
    if parts.scheme not in _PORTS or not parts.host or parts.auth:
        raise ValueError("not an http or https URL without a user")
    return f"{parts.scheme}://{parts.host}:{parts.port or _PORTS[parts.scheme]}"


_PORTS = {"http": 80, "https": 443}
Seconds = Annotated[float, Field(gt=0, le=3600)]
Number = Annotated[int, Field(ge=1, le=2**31)]


class Settings(BaseSettings):
    """All settings; each is `SERVICE_` and its name in the environment or in `.env`."""

    model_config = SettingsConfigDict(
        env_prefix="SERVICE_",
        env_file=".env",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # it may be a secret
    )

    version: str = Field(
        default=__version__, description="what /health and the metrics name"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on")
    database_url: SecretStr = Field(
        default=SecretStr("postgresql:///service"),
        description="PostgreSQL, as libpq understands it",
    )
    database_direct_url: SecretStr | None = Field(
        default=None,
        description="the same without a pooler such as PgBouncer, to listen for "
        "events; without it the one above is used",
    )
    database_connections_max: Number = Field(
        default=10, description="connections of the pool"
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis, which counts requests for all processes together; without "
        "it, or while it is away, each process counts its own",
    )
    redis_seconds: Seconds = Field(
        default=0.25, description="how long Redis may take; then it is away"
    )
    jwt_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="signs JSON Web Tokens (HS256); without it none is accepted",
    )
    jwt_issuer: str = Field(default="service", description="who must have issued them")
    jwt_audience: str = Field(default="service", description="whom they must be for")
    key_cache_seconds: Seconds = Field(
        default=30, description="how long a key that was checked is not checked again"
    )
    allowed_origins: list[str] = Field(
        default=[], description="origins whose pages may call the service, as JSON"
    )
    https: bool = Field(
        default=False, description="clients reach the service by HTTPS: send HSTS"
    )
    trusted_proxies: str = Field(
        default="", description="addresses whose X-Forwarded-For is believed"
    )
    rate_limit: Annotated[str, AfterValidator(rate_text)] = Field(
        default="600/minute", description="requests of one key, below /api"
    )
    concurrent_requests_max: Number = Field(
        default=100, description="how many are worked on at once; more get 503"
    )
    body_bytes_max: Number = Field(
        default=64 * 1024, description="of a request; a longer body gets 413"
    )
    body_seconds: Seconds = Field(
        default=5, description="how long a body may take to arrive; then 408"
    )
    request_seconds: Seconds = Field(
        default=10, description="until an answer must have begun; then 504"
    )
    hook_origins: list[Annotated[str, AfterValidator(origin)]] = Field(
        default=[],
        description="where hooks may lead, such as https://hooks.example.com, as JSON",
    )
    webhook_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="signs incoming webhooks; without it /webhooks/incoming is 404",
    )
    strict_events: bool = Field(
        default=True,
        description="refuse incoming events of an unknown type, rather than store them",
    )
    keep_days: Annotated[int, Field(ge=1, le=36_500)] = Field(
        default=30,
        description="days after which events, ended deliveries and incoming webhooks "
        "are deleted",
    )
    import_bytes_max: Number = Field(
        default=16 * 2**20, description="of a file that is sent to /api/imports"
    )
    import_seconds: Seconds = Field(
        default=300, description="how long its import may take"
    )
    workers_max: Number = Field(
        default=2, description="processes that import files, at once"
    )
    streams_max: Number = Field(
        default=100, description="event streams and WebSockets at once; more get 503"
    )
    diagnostics: bool = Field(
        default=False, description="serve /diagnostics to administrators"
    )
    state_dir: Path = Field(
        default=Path("state"), description="folder for files that the service keeps"
    )
    disk_free_min: Number = Field(
        default=256 * 2**20, description="bytes; with less the health is degraded"
    )
    memory_max: Number = Field(
        default=512 * 2**20, description="bytes; with more the health is degraded"
    )
    stop_seconds: Number = Field(
        default=10, description="how long requests may take to end at a shutdown"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least that is logged"
    )

    @model_validator(mode="after")
    def _bodies_are_timed_first(self) -> Self:
        if self.body_seconds >= self.request_seconds:
            raise ValueError("body_seconds must be less than request_seconds")
        return self

    @property
    def rate(self) -> RateLimitItem:
        """How many requests of one key are answered, and in which time."""
        return parse(self.rate_limit)


def example() -> str:
    """Return `.env.example`: every setting with its meaning and its default."""
    lines = ["# Written by `python -m service env-example`. Copy what you change."]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if default is None:
            default = ""
        shown = default if isinstance(default, str | Path) else json.dumps(default)
        lines += ["", f"# {field.description}", f"# SERVICE_{name.upper()}={shown}"]
    return "\n".join(lines) + "\n"
