"""The settings of probes: the service, its keys, and what each family asks."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from opskit.config.abuse import InputSettings, LimitsSettings, RateLimitSettings
from opskit.config.access import (
    AuditSettings,
    AuthenticationSettings,
    AuthorisationSettings,
    ListSettings,
    PaginationSettings,
    ResourceSettings,
)
from opskit.config.probes import (
    CorsSettings,
    HeadersSettings,
    HealthSettings,
    ObservabilitySettings,
    TlsSettings,
)
from opskit.config.section import Count, Duration, Section
from opskit.config.strain import (
    LatencyProbeSettings,
    LoadSettings,
    ResilienceSettings,
)
from opskit.config.webhooks import WebhooksSettings

HeaderName = Annotated[str, Field(pattern="^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class Profile(StrEnum):
    """How much is asked, from least to most; each includes the ones before it."""

    MINIMAL = "minimal"
    STANDARD = "standard"
    STRICT = "strict"

    @property
    def included(self) -> tuple[Profile, ...]:
        """The profiles whose probes are asked."""
        order = tuple(Profile)
        return order[: order.index(self) + 1]


class VersionSettings(Section):
    """Where the service names its version."""

    path: str = Field(
        default="/health", pattern="^/", description="path of a JSON answer"
    )
    field: str = Field(
        default="version",
        description="its field, with dots between levels; empty: the service names no "
        "version, and only that it answers is confirmed",
    )


class KeySettings(Section):
    """A credential of the service, by the name of its user."""

    file: Path = Field(description="a file of mode 0600 that holds the key or token")
    header: HeaderName = Field(
        default="X-API-Key", description="the header that carries it"
    )
    prefix: str = Field(
        default="",
        pattern="^[ -~]*$",
        description="what stands before it, for instance `Bearer `",
    )


class SmokeSettings(Section):
    """The service that is probed, and how."""

    url: str = Field(
        default="", description="address of the service, https:// or http://"
    )
    profile: Profile = Field(
        default=Profile.STANDARD, description="`minimal`, `standard` or `strict`"
    )
    version: VersionSettings = VersionSettings()
    identity: HeaderName | Literal[""] = Field(
        default="",
        description="a header that every answer of the service has: an answer without "
        "it is a balancer's",
    )
    deadline: Duration = Field(
        default=timedelta(minutes=2),
        description="until when all probes are tried again",
    )
    connections: Count = Field(
        default=5,
        ge=1,
        description="on how many new connections in a row the service must name the "
        "expected version",
    )
    timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(seconds=1),
        description="how long one answer may take",
    )
    advisory: list[str] = Field(
        default=[],
        description="families and probes that are reported and never fail the run",
    )
    baseline: Path | None = Field(
        default=None,
        description="a TOML file of known failures, each with an owner and an expiry "
        "date",
    )
    keys: dict[str, KeySettings] = Field(
        default={}, description="credentials, by a name that the probes use"
    )
    lists: dict[str, ListSettings] = Field(
        default={}, description="lists in pages, by a name that the probes use"
    )
    resources: dict[str, ResourceSettings] = Field(
        default={},
        description="what belongs to one user, by a name that paths use",
    )
    error_fields: list[str] = Field(
        default=[],
        description="fields that each error answer has as texts, with dots between "
        "levels",
    )
    audit: AuditSettings = AuditSettings()
    authentication: AuthenticationSettings = AuthenticationSettings()
    authorisation: AuthorisationSettings = AuthorisationSettings()
    cors: CorsSettings = CorsSettings()
    headers: HeadersSettings = HeadersSettings()
    health: HealthSettings = HealthSettings()
    input: InputSettings = InputSettings()
    latency: LatencyProbeSettings = LatencyProbeSettings()
    limits: LimitsSettings = LimitsSettings()
    load: LoadSettings = LoadSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    pagination: PaginationSettings = PaginationSettings()
    rate_limit: RateLimitSettings = RateLimitSettings()
    resilience: ResilienceSettings = ResilienceSettings()
    tls: TlsSettings = TlsSettings()
    webhooks: WebhooksSettings = WebhooksSettings()

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        return service_address(url) if url else url


def service_address(url: str) -> str:
    """Return the address of a service, in the one form in which it is compared.

    Raises:
        ValueError: it is no address, or holds what belongs elsewhere.
    """
    if "@" in url:
        raise ValueError(
            "must hold no user and no password; keys belong in [smoke.keys]"
        )
    try:
        parts, port = urlsplit(url), urlsplit(url).port
    except ValueError:  # its words repeat a part of the address
        raise ValueError("must be a host, and a port from 1 to 65535") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must begin with https:// or http:// and a host")
    if parts.query or parts.fragment or not (url.isascii() and url.isprintable()):
        raise ValueError("must be an address without ? and #, in ASCII")
    if port == 0 or " " in url:
        raise ValueError("must be a host, and a port from 1 to 65535")
    return parts._replace(
        netloc=parts.netloc.lower(), path=parts.path.rstrip("/")
    ).geturl()
